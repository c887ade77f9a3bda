//! Tools: which one to call, with which headers, and what its answer means.

use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::trouble::Trouble;

fn name(tool: &Value) -> Option<&str> {
    tool.get("name").and_then(Value::as_str)
}

/// The tool to call: the named one, or the first that says it only reads and requires no argument.
pub(super) fn choose<'a>(tools: &'a [Value], named: Option<&str>) -> Result<&'a Value, Trouble> {
    if let Some(wanted) = named {
        return tools.iter().find(|tool| name(tool) == Some(wanted)).ok_or_else(|| {
            let listed: Vec<_> = tools.iter().filter_map(name).take(20).collect();
            Trouble::new(
                format!("the server lists no tool {wanted:?}"),
                if listed.is_empty() {
                    "it lists no tools at all: what may this credential use?".to_owned()
                } else {
                    format!("it lists {}", listed.join(", "))
                },
            )
        });
    }
    let harmless = |tool: &&Value| {
        let reads = tool.pointer("/annotations/readOnlyHint") == Some(&Value::Bool(true));
        let required = tool.pointer("/inputSchema/required").and_then(Value::as_array);
        reads && required.is_none_or(Vec::is_empty) && name(tool).is_some()
    };
    tools.iter().find(harmless).ok_or_else(|| {
        Trouble::new(
            format!("of {} tools, none says that it only reads and needs no arguments", tools.len()),
            "name one with --tool, and its --arguments",
        )
    })
}

/// The headers in which a modern client repeats a call: `Mcp-Name`, and `Mcp-Param-*` where the tool's schema asks
/// for them (2026-07-28 "Request Metadata").
pub(super) fn mirrored(tool: &Value, arguments: &Map<String, Value>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(name) = name(tool) {
        headers.insert(HeaderName::from_static("mcp-name"), header_value(name));
    }
    if let Some(properties) = tool.pointer("/inputSchema/properties") {
        mirror(properties, arguments, &mut headers);
    }
    headers
}

fn mirror(properties: &Value, arguments: &Map<String, Value>, headers: &mut HeaderMap) {
    for (key, property) in properties.as_object().into_iter().flatten() {
        let Some(value) = arguments.get(key) else { continue };
        if let Some(header) = property.get("x-mcp-header").and_then(Value::as_str)
            && let Ok(header) = HeaderName::try_from(format!("mcp-param-{header}"))
        {
            match value {
                Value::String(text) => headers.insert(header, header_value(text)),
                Value::Bool(_) | Value::Number(_) => headers.insert(header, header_value(&value.to_string())),
                _ => None,
            };
        }
        if let (Some(inner), Value::Object(value)) = (property.get("properties"), value) {
            mirror(inner, value, headers);
        }
    }
}

/// A text as a header: itself where it can be one, otherwise Base64 between sentinels ("Value Encoding").
fn header_value(text: &str) -> HeaderValue {
    let plain = text.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b))
        && text.trim_matches([' ', '\t']) == text
        && !(text.starts_with("=?base64?") && text.ends_with("?="));
    let encoded = || format!("=?base64?{}?=", BASE64.encode(text.as_bytes()));
    let value = if plain { text.to_owned() } else { encoded() };
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static(""))
}

/// Whether a `tools/call` result is a success.
///
/// # Errors
/// Where the tool says no, asks for something, or answers with no content.
pub(super) fn check(result: &Value) -> Result<(), Trouble> {
    if result.get("isError") == Some(&Value::Bool(true)) {
        let texts = result.get("content").and_then(Value::as_array).into_iter().flatten();
        let texts: Vec<_> = texts.filter_map(|block| block.get("text")?.as_str()).collect();
        return Err(Trouble::new(
            format!("the tool answers with an error: {}", texts.join(" ")),
            "do its --arguments fit, and does what it depends on work?",
        ));
    }
    if let Some(kind) = result.get("resultType").and_then(Value::as_str).filter(|kind| *kind != "complete") {
        let text = format!("the tool answers with {kind:?} instead of a result");
        return Err(Trouble::new(text, "choose one that needs no user with --tool"));
    }
    if result.get("content").is_some_and(Value::is_array) {
        return Ok(());
    }
    Err(Trouble::protocol("the result of the call has no `content`"))
}
