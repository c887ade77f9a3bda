//! Resources and a template, and a tool that changes one of the resources.

use serde_json::json;
use weir::error::Result;
use weir::mcp::bus::Changed;
use weir::mcp::content::{ResourceContents, ToolResult};
use weir::providers::{Call, NoArguments, ResourceSpec, TemplateSpec, ToolSpec, Toolkit, Variables};

use crate::memory::Memory;
use crate::samples::PNG;

const TEXT: &str = "test://static-text";
const BINARY: &str = "test://static-binary";
const WATCHED: &str = "test://watched-resource";
const TEMPLATE: &str = "test://template/{id}/data";

pub(crate) fn add(kit: Toolkit, memory: &Memory) -> Result<Toolkit> {
    let text = ResourceSpec::new(TEXT, "Static text", "text/plain").description("Text that never changes.");
    let binary =
        ResourceSpec::new(BINARY, "Static picture", "image/png").description("A picture that never changes.");
    let watched = ResourceSpec::new(WATCHED, "Watched text", "text/plain")
        .description("Text to which clients may subscribe.");
    let template = TemplateSpec::new(TEMPLATE, "Data by id", "application/json")
        .description("Whatever there is to say of an id.");
    let (read, changes) = (memory.clone(), memory.clone());
    let trigger = ToolSpec::new("test_trigger_resource_change")
        .description("Changes the watched text and says so.")
        .additive();
    kit.resource(&text, |_: Call| async move {
        let content = "This is the content of the static text resource.";
        Ok(vec![ResourceContents::text(TEXT, "text/plain", content)].into())
    })?
    .resource(
        &binary,
        |_: Call| async move { Ok(vec![ResourceContents::blob(BINARY, "image/png", PNG)].into()) },
    )?
    .resource(&watched, move |_: Call| {
        let content = format!("Watched resource content, changed {} times.", read.count(WATCHED));
        async move { Ok(vec![ResourceContents::text(WATCHED, "text/plain", content)].into()) }
    })?
    .tool(trigger, move |call: Call, NoArguments {}| {
        // Changed before anybody is told: who reads on the notification reads the new text.
        changes.add(WATCHED);
        call.notifier().changed(Changed::Resource(WATCHED.into()));
        async move { Ok(ToolResult::text("Changed.")) }
    })?
    .template(&template, |_: Call, (uri, variables): (String, Variables)| async move {
        let id = variables.get("id").map_or("", String::as_str);
        let data = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
        Ok(vec![ResourceContents::text(uri, "application/json", data.to_string())].into())
    })
}
