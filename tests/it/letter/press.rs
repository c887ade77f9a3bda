//! The server `press`: tools with schemas of results, and things with everything that a descriptor may carry.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use weir::error::Result;
use weir::mcp::content::{Content, PromptMessage, ResourceContents, ToolResult};
use weir::mcp::result::{InputRequest, InputRequired};
use weir::providers::{
    Call, Completing, Completion, Failure, PromptResult, PromptSpec, Provider, Reference, Reply,
    ResourceSpec, TemplateSpec, ToolSpec, Toolkit,
};

use crate::support::Gateway;
use crate::support::gateway::Builder;

/// A gateway with the server, not started yet.
pub fn build() -> Builder {
    Gateway::build().provider(provider().expect("a provider"))
}

/// A gateway with the server.
pub async fn gateway() -> Gateway {
    build().start().await
}

/// What a tool says of itself beyond what Weir knows.
pub fn adorned() -> Value {
    json!({
        "title": "Adorned",
        "description": "Says nothing.",
        "icons": [{ "src": "https://example.com/a.png", "mimeType": "image/png", "sizes": ["48x48"], "theme": "dark" }],
        "execution": { "taskSupport": "optional" },
        "_meta": { "com.example/key": { "deep": [1, null] }, "ui": { "resourceUri": "ui://press/app" } },
        "x-vendor": ["untouched", 1.5],
    })
}

/// What its result says beyond what Weir knows.
pub fn odd_blocks() -> Value {
    json!([
        { "type": "text", "text": "plain", "annotations": { "audience": ["user"], "priority": 0.5 }, "_meta": { "a": 1 } },
        { "type": "hologram", "data": { "x": 1 } },
        { "type": "resource", "resource": { "uri": "press://x", "text": "x", "x-vendor": [true] }, "annotations": {} },
    ])
}

/// Blocks that are younger than MCP.
pub fn young_blocks() -> Value {
    json!([
        { "type": "audio", "data": "AAEC", "mimeType": "audio/wav" },
        { "type": "resource_link", "uri": "press://static", "name": "s", "title": "S", "size": 7, "icons": [] },
    ])
}

type Answer = std::result::Result<ToolResult, Failure>;

/// What a tool reads whose schema says less.
#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Strict {
    n: i64,
}

/// A tool that hands back what it is given as structured content; with `error`, as a business error; with `bare`,
/// without any.
fn promising(kit: Toolkit, name: &str, schema: Value) -> Result<Toolkit> {
    let spec = ToolSpec::new(name).read_only().output_schema(schema);
    kit.tool(spec, |_: Call, arguments: Map<String, Value>| async move {
        let flag = |name: &str| arguments.get(name) == Some(&Value::Bool(true));
        let structured = Some(arguments.get("give").cloned().unwrap_or_default()).filter(|_| !flag("bare"));
        let content = arguments.get("text").and_then(Value::as_str).map(Content::text).into_iter().collect();
        Answer::Ok(ToolResult { content, structured, is_error: flag("error"), ..ToolResult::default() })
    })
}

fn provider() -> Result<Arc<dyn Provider>> {
    let object = json!({ "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"] });
    let kit = promising(Toolkit::new("press"), "gives_object", object)?;
    let kit = promising(kit, "gives_list", json!({ "type": "array", "items": { "type": "integer" } }))?;
    let kit = promising(kit, "gives_any", json!({ "type": ["null", "number"] }))?;
    let mut adorned_tool = ToolSpec::new("adorned").read_only().annotation("x-mood", "calm".into());
    for (name, value) in adorned().as_object().expect("an object") {
        adorned_tool = adorned_tool.field(name, value.clone());
    }
    let kit = kit.tool(adorned_tool, |_: Call, _: Map<String, Value>| async move {
        let blocks = odd_blocks().as_array().cloned().unwrap_or_default();
        let content = blocks.into_iter().map(Content::Other).collect();
        let meta = Map::from_iter([("com.example/trace".to_owned(), json!({ "span": 7 }))]);
        Answer::Ok(ToolResult { content, meta, ..ToolResult::default() })
    })?;
    let loose = json!({ "type": "object", "properties": { "any": true, "text": { "type": "string" } } });
    let kit = kit.tool(
        ToolSpec::new("loose").read_only().input_schema(loose),
        |_: Call, _: Map<String, Value>| async move { Answer::Ok(ToolResult::text("loose")) },
    )?;
    let kit = kit.tool(
        ToolSpec::new("strict").read_only().input_schema(json!({ "type": "object" })),
        |_: Call, Strict { n }: Strict| async move { Answer::Ok(ToolResult::text(n.to_string())) },
    )?;
    let kit = kit.tool(ToolSpec::new("young").read_only(), |_: Call, _: Map<String, Value>| async move {
        let blocks = young_blocks().as_array().cloned().unwrap_or_default();
        let sound = Content::Audio { data: "AAEC".to_owned(), mime_type: "audio/wav".to_owned() };
        let mut content: Vec<_> = blocks.into_iter().map(Content::Other).collect();
        content.push(sound);
        Answer::Ok(ToolResult { content, ..ToolResult::default() })
    })?;
    let kit =
        kit.tool(ToolSpec::new("misasks").read_only(), |_: Call, asked: Map<String, Value>| async move {
            std::result::Result::<Reply<ToolResult>, Failure>::Ok(Reply::ask(misasked(asked.get("method"))))
        })?;
    let asking = ToolSpec::new("samples").read_only();
    let kit = kit.tool(asking, |_: Call, params: Map<String, Value>| async move {
        let question = InputRequired::new().sample("q", Value::Object(params));
        std::result::Result::<Reply<ToolResult>, Failure>::Ok(Reply::ask(question))
    })?;
    readable(kit)
}

/// A question that clients cannot be asked; none at all without a method.
fn misasked(method: Option<&Value>) -> InputRequired {
    match method.and_then(Value::as_str) {
        None => InputRequired::new(),
        Some(method) => {
            InputRequired::new().ask("q", &InputRequest { method: method.to_owned(), params: json!({}) })
        }
    }
}

/// Two hundred suggestions whose number is not told; for `echo`, what is known already.
fn complete(what: &Reference, typing: &Completing) -> Completion {
    if typing.name == "echo" {
        let known = typing.known.iter().map(|(name, value)| format!("{what:?} {name}={value}"));
        return Completion { values: known.collect(), ..Completion::default() };
    }
    Completion { values: (0..200).map(|n| format!("{}{n}", typing.value)).collect(), ..Completion::default() }
}

fn readable(kit: Toolkit) -> Result<Arc<dyn Provider>> {
    let extra = json!({ "com.example/key": [true] });
    let resource = ResourceSpec::new("press://static", "static", "text/html")
        .title("Static")
        .field("size", json!(7))
        .field("annotations", json!({ "audience": ["assistant"], "lastModified": "2025-01-12T15:00:58Z" }))
        .field("icons", json!([{ "src": "data:image/png;base64,AA==" }]))
        .field("_meta", extra.clone());
    let template =
        TemplateSpec::new("press://page/{id}", "pages", "text/plain").field("_meta", extra.clone());
    let prompt = PromptSpec::new("ask").field("icons", json!([{ "src": "https://example.com/p.svg" }]));
    let prompt = prompt.argument("topic", "What about", true).field("_meta", extra.clone());
    let kit = kit
        .resource(&resource, move |_: Call| {
            let mut page = ResourceContents::text("press://static", "text/html", "<p>");
            page.meta = extra.as_object().cloned().unwrap_or_default();
            async move { Ok(vec![page].into()) }
        })?
        .template(&template, |_: Call, (uri, found)| async move {
            if found["id"] == "misasked" {
                return Ok(Reply::ask(misasked(None)));
            }
            Ok(vec![ResourceContents::text(uri, "text/plain", "a page")].into())
        })?
        .prompt(prompt, |_: Call, _| async move {
            let block = odd_blocks()[0].clone();
            let messages = vec![PromptMessage::user(Content::Other(block))];
            Ok(PromptResult { messages, ..PromptResult::default() }.into())
        })?;
    let kit = kit.completion(|_: Call, (what, typing): (Reference, Completing)| async move {
        Ok(complete(&what, &typing))
    });
    Ok(kit.build())
}
