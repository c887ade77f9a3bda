//! Descriptors and results carry what Weir does not know, in every era, and a catalogue that breaks the rules of names
//! does not register.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use weir::mcp::bus::Bus;
use weir::mcp::content::ToolResult;
use weir::providers::{
    Call, PromptResult, PromptSpec, Provider, Registry, ResourceSpec, TemplateSpec, ToolSpec, Toolkit,
};

use super::{LEGACY, press};
use crate::support::{Legacy, Modern};

/// What every era gets of the same question.
async fn in_each_era(method: &str, params: Value) -> Vec<(String, Value)> {
    let gateway = press::gateway().await;
    let key = gateway.caller().await;
    let modern = Modern::new(&gateway, &key).send(method, params.clone()).await;
    let mut all = vec![("2026-07-28".to_owned(), modern.result().clone())];
    for revision in LEGACY {
        let legacy = Legacy::open(&gateway, &key, revision).await;
        all.push((revision.to_owned(), legacy.send(method, params.clone()).await.result().clone()));
    }
    all
}

fn one<'a>(list: &'a Value, key: &str, value: &str) -> &'a Value {
    let found = list.as_array().and_then(|all| all.iter().find(|one| one[key] == value));
    found.unwrap_or_else(|| panic!("no {value} in {list}"))
}

#[tokio::test]
async fn a_tool_is_listed_with_everything_that_its_provider_says_of_it() {
    for (revision, result) in in_each_era("tools/list", json!({})).await {
        let tool = one(&result["tools"], "name", "adorned");
        for (name, value) in press::adorned().as_object().expect("an object") {
            assert_eq!(&tool[name], value, "{revision}");
        }
        assert_eq!(tool["annotations"], json!({ "readOnlyHint": true, "x-mood": "calm" }), "{revision}");
    }
}

#[tokio::test]
async fn a_result_keeps_blocks_and_metadata_that_nobody_here_knows() {
    for (revision, result) in in_each_era("tools/call", json!({ "name": "adorned", "arguments": {} })).await {
        assert_eq!(result["content"], press::odd_blocks(), "{revision}");
        assert_eq!(result["_meta"]["com.example/trace"], json!({ "span": 7 }), "{revision}");
    }
}

/// Sound came with 2025-03-26, links with 2025-06-18; a client that does not know a block refuses the whole result.
#[tokio::test]
async fn younger_blocks_are_told_to_older_clients_in_their_own_words() {
    let young = press::young_blocks();
    let (sound, link) = (&young[0], &young[1]);
    let attached = json!({
        "type": "resource",
        "resource": { "uri": "attachment:audio", "mimeType": "audio/wav", "blob": "AAEC" },
    });
    let written = json!({ "type": "text", "text": "s: press://static" });
    for (revision, result) in in_each_era("tools/call", json!({ "name": "young", "arguments": {} })).await {
        let sound = if revision == "2024-11-05" { &attached } else { sound };
        let link = if revision.as_str() < "2025-06-18" { &written } else { link };
        assert_eq!(result["content"], json!([sound, link, sound]), "{revision}");
    }
}

#[tokio::test]
async fn resources_templates_and_prompts_keep_their_metadata() {
    let meta = json!({ "com.example/key": [true] });
    for (revision, result) in in_each_era("resources/list", json!({})).await {
        let resource = one(&result["resources"], "uri", "press://static");
        assert_eq!((&resource["title"], &resource["size"]), (&json!("Static"), &json!(7)), "{revision}");
        assert_eq!(resource["annotations"]["lastModified"], "2025-01-12T15:00:58Z", "{revision}");
        assert_eq!(
            (&resource["icons"][0]["src"], &resource["_meta"]),
            (&json!("data:image/png;base64,AA=="), &meta)
        );
    }
    for (revision, result) in in_each_era("resources/templates/list", json!({})).await {
        assert_eq!(
            one(&result["resourceTemplates"], "uriTemplate", "press://page/{id}")["_meta"],
            meta,
            "{revision}"
        );
    }
    for (revision, result) in in_each_era("resources/read", json!({ "uri": "press://static" })).await {
        assert_eq!(result["contents"][0]["_meta"], meta, "{revision}");
    }
    for (revision, result) in in_each_era("prompts/list", json!({})).await {
        let prompt = one(&result["prompts"], "name", "ask");
        assert_eq!(
            (&prompt["icons"][0]["src"], &prompt["_meta"]),
            (&json!("https://example.com/p.svg"), &meta),
            "{revision}"
        );
    }
    let get = json!({ "name": "ask", "arguments": { "topic": "t" } });
    for (revision, result) in in_each_era("prompts/get", get).await {
        assert_eq!(result["messages"][0]["content"], press::odd_blocks()[0], "{revision}");
    }
}

fn with_tool(kit: Toolkit, spec: ToolSpec) -> weir::error::Result<Toolkit> {
    kit.tool(spec, |_: Call, _: Map<String, Value>| async move { Ok(ToolResult::default()) })
}

fn registered(provider: Arc<dyn Provider>) -> Result<(), String> {
    Registry::new(vec![provider], &Bus::new()).map(|_| ()).map_err(|e| e.to_string())
}

#[test]
fn a_tool_that_breaks_a_rule_is_refused_with_the_rule() {
    let schema = |schema: Value| ToolSpec::new("t").input_schema(schema);
    let object = |property: Value| schema(json!({ "type": "object", "properties": { "a": property } }));
    let output = |schema: Value| ToolSpec::new("t").output_schema(schema);
    for (spec, rule) in [
        (ToolSpec::new(""), "A-Z a-z 0-9 _ - ."),
        (ToolSpec::new("get weather"), "A-Z a-z 0-9 _ - ."),
        (ToolSpec::new(&"x".repeat(129)), "1 to 128"),
        (schema(json!({ "type": "array" })), "type object"),
        (schema(json!(null)), "type object"),
        (object(json!({ "$ref": "https://example.com/a.json" })), "ever fetched"),
        (object(json!({ "$ref": "file:///etc/passwd" })), "ever fetched"),
        (object(json!({ "type": "strin" })), "not a valid JSON Schema"),
        (schema(json!({ "$schema": "https://example.com/mine", "type": "object" })), "is not supported"),
        (object(json!({ "type": "number", "x-mcp-header": "A" })), "x-mcp-header"),
        (
            object(json!({ "type": "array", "items": { "type": "string", "x-mcp-header": "A" } })),
            "x-mcp-header",
        ),
        (output(json!({ "$ref": "https://example.com/a.json" })), "outputSchema"),
        (output(json!({ "type": 7 })), "outputSchema"),
        (output(json!(true)), "outputSchema"),
    ] {
        let text = match with_tool(Toolkit::new("s"), spec) {
            Ok(_) => panic!("registered in spite of: {rule}"),
            Err(error) => error.to_string(),
        };
        assert!(text.contains(rule), "{rule}: {text}");
    }
}

#[test]
fn a_description_cannot_give_a_thing_another_name() {
    let spec = ToolSpec::new("t").field("name", json!("other"));
    let catalog = with_tool(Toolkit::new("s"), spec).expect("a tool").build().catalog();
    let descriptor: Value = serde_json::from_str(catalog.tools[0].descriptor.get()).expect("JSON");
    assert_eq!((&*catalog.tools[0].name, &descriptor["name"]), ("t", &json!("t")));
}

#[test]
fn a_name_stands_for_one_thing() {
    let kit = with_tool(Toolkit::new("s"), ToolSpec::new("t")).expect("a tool");
    assert_eq!(registered(kit.build()), Ok(()));
    let kit = with_tool(Toolkit::new("s"), ToolSpec::new("t")).expect("a tool");
    let twice = with_tool(kit, ToolSpec::new("t")).expect("a tool").build();
    assert!(registered(twice).expect_err("refused").contains("tool \"t\" is there twice"));
    let both = with_tool(Toolkit::new("s"), ToolSpec::new("t")).expect("a tool");
    let both = with_tool(both, ToolSpec::new("T")).expect("a tool").build();
    assert_eq!(registered(both), Ok(()), "names are case-sensitive");

    let prompt = |kit: Toolkit, name: &str| {
        kit.prompt(PromptSpec::new(name), |_: Call, _: BTreeMap<String, String>| async move {
            Ok(PromptResult::default().into())
        })
        .expect("a prompt")
    };
    let resource = |kit: Toolkit, uri: &str| {
        kit.resource(
            &ResourceSpec::new(uri, "r", "text/plain"),
            |_: Call| async move { Ok(Vec::new().into()) },
        )
        .expect("a resource")
    };
    let template = |kit: Toolkit, uri: &str| {
        let spec = TemplateSpec::new(uri, "r", "text/plain");
        kit.template(&spec, |_: Call, _| async move { Ok(Vec::new().into()) }).expect("a template")
    };
    let kit = || Toolkit::new("s");
    for (provider, problem) in [
        (prompt(prompt(kit(), "p"), "p").build(), "prompt \"p\" is there twice"),
        (prompt(kit(), "two\nlines").build(), "on one line"),
        (resource(resource(kit(), "a://b"), "a://b").build(), "resource \"a://b\" is there twice"),
        (resource(kit(), "no scheme").build(), "begins with a scheme"),
        (resource(kit(), "a://b c").build(), "percent-encoded"),
        (
            template(template(kit(), "a://{b}"), "a://{b}").build(),
            "resource template \"a://{b}\" is there twice",
        ),
    ] {
        let text = registered(provider).expect_err(problem);
        assert!(text.contains(problem), "{problem}: {text}");
    }
}
