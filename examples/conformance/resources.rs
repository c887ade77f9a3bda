//! Resources and a template.

use serde_json::json;
use weir::error::Result;
use weir::mcp::content::ResourceContents;
use weir::providers::{Call, ResourceSpec, TemplateSpec, Toolkit, Variables};

use crate::samples::PNG;

const TEXT: &str = "test://static-text";
const BINARY: &str = "test://static-binary";
const WATCHED: &str = "test://watched-resource";
const TEMPLATE: &str = "test://template/{id}/data";

pub(crate) fn add(kit: Toolkit) -> Result<Toolkit> {
    let text = ResourceSpec::new(TEXT, "Static text", "text/plain").description("Text that never changes.");
    let binary =
        ResourceSpec::new(BINARY, "Static picture", "image/png").description("A picture that never changes.");
    let watched = ResourceSpec::new(WATCHED, "Watched text", "text/plain")
        .description("Text to which clients may subscribe.");
    let template = TemplateSpec::new(TEMPLATE, "Data by id", "application/json")
        .description("Whatever there is to say of an id.");
    kit.resource(&text, |_: Call| async move {
        let content = "This is the content of the static text resource.";
        Ok(vec![ResourceContents::text(TEXT, "text/plain", content)].into())
    })?
    .resource(
        &binary,
        |_: Call| async move { Ok(vec![ResourceContents::blob(BINARY, "image/png", PNG)].into()) },
    )?
    .resource(&watched, |_: Call| async move {
        Ok(vec![ResourceContents::text(WATCHED, "text/plain", "Watched resource content.")].into())
    })?
    .template(&template, |_: Call, (uri, variables): (String, Variables)| async move {
        let id = variables.get("id").map_or("", String::as_str);
        let data = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
        Ok(vec![ResourceContents::text(uri, "application/json", data.to_string())].into())
    })
}
