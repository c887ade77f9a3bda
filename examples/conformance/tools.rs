//! Tools that answer at once: every kind of content, errors, progress, log messages, schemas.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;
use weir::error::Result;
use weir::mcp::bus::Changed;
use weir::mcp::content::{Content, ResourceContents, ToolResult};
use weir::mcp::request::LogLevel;
use weir::providers::{Call, Failure, NoArguments, ToolSpec, Toolkit};

use crate::samples::{PNG, WAV};

/// Between two things that a tool says on its way.
const STEP: Duration = Duration::from_millis(50);

pub(crate) fn add(kit: Toolkit) -> Result<Toolkit> {
    let kit = content(kit)?;
    let kit = speaking(kit)?;
    let kit = schemas(kit)?;
    changes(kit)
}

/// The description of a tool that changes nothing.
pub(crate) fn spec(name: &str, description: &str) -> ToolSpec {
    ToolSpec::new(name).description(description).read_only()
}

fn image() -> Content {
    Content::Image { data: PNG.to_owned(), mime_type: "image/png".to_owned() }
}

fn resource(uri: &str, mime_type: &str, text: &str) -> Content {
    Content::Resource { resource: ResourceContents::text(uri, mime_type, text) }
}

fn many(content: Vec<Content>) -> ToolResult {
    ToolResult { content, ..ToolResult::default() }
}

fn content(kit: Toolkit) -> Result<Toolkit> {
    kit.tool(
        spec("test_simple_text", "Answers with one line of text."),
        |_: Call, NoArguments {}| async move {
            Ok(ToolResult::text("This is a simple text response for testing."))
        },
    )?
    .tool(spec("test_image_content", "Answers with a picture."), |_: Call, NoArguments {}| async move {
        Ok(many(vec![image()]))
    })?
    .tool(spec("test_audio_content", "Answers with a sound."), |_: Call, NoArguments {}| async move {
        Ok(many(vec![Content::Audio { data: WAV.to_owned(), mime_type: "audio/wav".to_owned() }]))
    })?
    .tool(spec("test_embedded_resource", "Answers with a resource."), |_: Call, NoArguments {}| async move {
        let text = "This is an embedded resource content.";
        Ok(many(vec![resource("test://embedded-resource", "text/plain", text)]))
    })?
    .tool(
        spec("test_multiple_content_types", "Answers with text, a picture and a resource."),
        |_: Call, NoArguments {}| async move {
            let data = json!({ "test": "data", "value": 123 }).to_string();
            Ok(many(vec![
                Content::text("Multiple content types test:"),
                image(),
                resource("test://mixed-content-resource", "application/json", &data),
            ]))
        },
    )?
    .tool(spec("test_error_handling", "Always says no."), |_: Call, NoArguments {}| async move {
        Ok(ToolResult::error("This tool intentionally returns an error for testing"))
    })
}

fn speaking(kit: Toolkit) -> Result<Toolkit> {
    kit.tool(
        spec("test_tool_with_progress", "Reports progress: 0, 50 and 100 of 100."),
        |call: Call, NoArguments {}| async move {
            for done in [0.0, 50.0, 100.0] {
                call.progress(done, Some(100.0), None);
                sleep(STEP).await;
            }
            Ok(ToolResult::text("Progress was reported three times."))
        },
    )?
    .tool(
        spec("test_tool_with_logging", "Sends three log messages."),
        |call: Call, NoArguments {}| async move {
            for text in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
                call.log(LogLevel::Info, None, &text.into());
                sleep(STEP).await;
            }
            Ok(ToolResult::text("Three messages were logged."))
        },
    )?
    .tool(
        spec("test_logging_tool", "Sends one log message of each severity from debug to error."),
        |call: Call, NoArguments {}| async move {
            for level in [LogLevel::Debug, LogLevel::Info, LogLevel::Warning, LogLevel::Error] {
                call.log(level, Some("fixtures"), &json!({ "level": level }));
            }
            Ok(ToolResult::text("Four messages were logged."))
        },
    )?
    .tool(
        spec("test_reconnection", "Lets the client's connection go, then answers."),
        |call: Call, NoArguments {}| async move {
            call.close_stream();
            sleep(STEP).await;
            Ok(ToolResult::text("The answer arrived, whether or not the stream was closed."))
        },
    )?
    .tool(
        spec("test_missing_capability", "Needs a client that lets servers use its model."),
        |call: Call, NoArguments {}| async move {
            if !call.capabilities().sampling {
                return Err(Failure::MissingCapability(json!({ "sampling": {} })));
            }
            Ok(ToolResult::text("The client declared sampling."))
        },
    )
}

/// Where something is to run.
#[derive(Deserialize, JsonSchema)]
struct Place {
    /// The region, such as "us-west1". Modern clients repeat it in the header Mcp-Param-Region.
    #[schemars(extend("x-mcp-header" = "Region"))]
    region: String,
    /// How urgent it is, 0 being not at all.
    #[serde(default)]
    #[schemars(extend("x-mcp-header" = "Priority"))]
    priority: i64,
}

/// Arguments of a tool whose schema is given as JSON.
#[derive(Deserialize, JsonSchema)]
struct Person {
    name: Option<String>,
    phone: Option<String>,
    email: Option<String>,
}

fn schemas(kit: Toolkit) -> Result<Toolkit> {
    let person = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": { "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": { "street": { "type": "string" }, "city": { "type": "string" } },
        } },
        "properties": {
            "name": { "type": "string" },
            "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "type": "string", "enum": ["phone", "email"] },
            "phone": { "type": "string" },
            "email": { "type": "string" },
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
        "if": { "properties": { "contactMethod": { "const": "phone" } }, "required": ["contactMethod"] },
        "then": { "required": ["phone"] },
        "else": { "required": ["email"] },
        "additionalProperties": false,
    });
    kit.tool(
        spec("json_schema_2020_12_tool", "Has most of what JSON Schema 2020-12 has in its input schema.")
            .input_schema(person),
        |_: Call, person: Person| async move {
            let name = person.name.unwrap_or_else(|| "Somebody".to_owned());
            let reach = person.phone.or(person.email).unwrap_or_default();
            Ok(ToolResult::text(format!("{name} can be reached at {reach}.")))
        },
    )?
    .tool(
        spec("test_custom_header", "Has arguments that clients repeat in headers."),
        |_: Call, place: Place| async move {
            let Place { region, priority } = place;
            Ok(ToolResult::text(format!("region={region} priority={priority}")))
        },
    )
}

/// Tools after which clients are told that a list changed. It did not really; clients list again all the same.
fn changes(kit: Toolkit) -> Result<Toolkit> {
    let trigger = |name: &str, what: &str| {
        ToolSpec::new(name).description(&format!("Says that the list of {what} changed.")).additive()
    };
    kit.tool(trigger("test_trigger_tool_change", "tools"), |call: Call, NoArguments {}| async move {
        call.notifier().changed(Changed::Tools);
        Ok(ToolResult::text("Everybody who listens is told."))
    })?
    .tool(trigger("test_trigger_prompt_change", "prompts"), |call: Call, NoArguments {}| async move {
        call.notifier().changed(Changed::Prompts);
        Ok(ToolResult::text("Everybody who listens is told."))
    })
}
