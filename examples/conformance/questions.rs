//! Tools that ask the client something before they can answer.
//!
//! A tool is called again with the answers (and with what it asked to remember); it never waits. What it asks for
//! anew is what it still lacks, so an answer under a wrong key or of a wrong shape only leads to the same question.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use weir::error::Result;
use weir::mcp::content::ToolResult;
use weir::mcp::result::InputRequired;
use weir::providers::{Call, Failure, NoArguments, Reply, Toolkit};

use crate::tools::spec;

type Answer = std::result::Result<Reply<ToolResult>, Failure>;

fn done(text: impl Into<String>) -> Answer {
    Ok(ToolResult::text(text).into())
}

fn ask(input: InputRequired) -> Answer {
    Ok(Reply::ask(input))
}

/// A form with one field that must be filled in.
fn form(field: &str, kind: &str) -> Value {
    json!({ "type": "object", "properties": { field: { "type": kind } }, "required": [field] })
}

fn question(text: &str, max_tokens: u32) -> Value {
    json!({
        "messages": [{ "role": "user", "content": { "type": "text", "text": text } }],
        "maxTokens": max_tokens,
    })
}

fn field<'a>(call: &'a Call, key: &str, name: &str) -> Option<&'a Value> {
    call.inputs().accepted(key)?.get(name)
}

/// What the client's model said.
fn sampled<'a>(call: &'a Call, key: &str) -> Option<&'a str> {
    call.inputs().get(key)?.get("content")?.get("text")?.as_str()
}

fn roots<'a>(call: &'a Call, key: &str) -> Option<&'a Vec<Value>> {
    call.inputs().get(key)?.get("roots")?.as_array()
}

pub(crate) fn add(kit: Toolkit) -> Result<Toolkit> {
    let kit = single(kit)?;
    let kit = remembering(kit)?;
    let kit = several(kit)?;
    let kit = with_arguments(kit)?;
    forms(kit)
}

fn single(kit: Toolkit) -> Result<Toolkit> {
    kit.tool(
        spec("test_input_required_result_elicitation", "Asks the user for a name."),
        |call: Call, NoArguments {}| async move {
            match field(&call, "user_name", "name").and_then(Value::as_str) {
                Some(name) => done(format!("Hello, {name}!")),
                None => ask(InputRequired::new().elicit(
                    "user_name",
                    "What is your name?",
                    &form("name", "string"),
                )),
            }
        },
    )?
    .tool(
        spec("test_input_required_result_sampling", "Asks the client's model for a capital."),
        |call: Call, NoArguments {}| async move {
            match sampled(&call, "capital_question") {
                Some(text) => done(text),
                None => ask(InputRequired::new()
                    .sample("capital_question", question("What is the capital of France?", 100))),
            }
        },
    )?
    .tool(
        spec("test_input_required_result_list_roots", "Asks for the client's roots."),
        |call: Call, NoArguments {}| async move {
            match roots(&call, "client_roots") {
                Some(roots) => done(format!("{} roots: {}", roots.len(), json!(roots))),
                None => ask(InputRequired::new().list_roots("client_roots")),
            }
        },
    )?
    .tool(
        spec("test_streaming_elicitation", "Asks the user to confirm."),
        |call: Call, NoArguments {}| async move {
            match field(&call, "confirm", "ok") {
                Some(ok) => done(format!("confirmed: {ok}")),
                None => ask(InputRequired::new().elicit("confirm", "Go on?", &form("ok", "boolean"))),
            }
        },
    )
}

fn remembering(kit: Toolkit) -> Result<Toolkit> {
    let confirm = || {
        InputRequired::new()
            .elicit("confirm", "Please confirm", &form("ok", "boolean"))
            .remember(json!("asked"))
    };
    let confirmed = move |call: &Call| match (call.state(), field(call, "confirm", "ok")) {
        (Some(state), Some(_)) if *state == json!("asked") => done("state-ok"),
        _ => ask(confirm()),
    };
    kit.tool(
        spec("test_input_required_result_request_state", "Remembers that it asked the user to confirm."),
        move |call: Call, NoArguments {}| async move { confirmed(&call) },
    )?
    .tool(
        spec("test_input_required_result_tampered_state", "Remembers so that nobody can forge it."),
        move |call: Call, NoArguments {}| async move { confirmed(&call) },
    )?
    .tool(
        spec("test_input_required_result_multi_round", "Asks for a name, then for a colour."),
        |call: Call, NoArguments {}| async move {
            let known = call.state().and_then(|state| state.get("name")).and_then(Value::as_str);
            if let Some(name) = known {
                return match field(&call, "step2", "color").and_then(Value::as_str) {
                    Some(color) => done(format!("{name} likes {color}.")),
                    None => ask(colour(name)),
                };
            }
            match field(&call, "step1", "name").and_then(Value::as_str) {
                Some(name) => ask(colour(name)),
                None => ask(InputRequired::new()
                    .elicit("step1", "Step 1: What is your name?", &form("name", "string"))
                    .remember(json!({}))),
            }
        },
    )
}

fn colour(name: &str) -> InputRequired {
    InputRequired::new()
        .elicit("step2", "Step 2: What is your favorite color?", &form("color", "string"))
        .remember(json!({ "name": name }))
}

fn several(kit: Toolkit) -> Result<Toolkit> {
    kit.tool(
        spec("test_input_required_result_multiple_inputs", "Asks for three things at once."),
        |call: Call, NoArguments {}| async move {
            let name = field(&call, "user_name", "name").and_then(Value::as_str);
            if let (Some(name), Some(greeting), Some(roots)) =
                (name, sampled(&call, "greeting"), roots(&call, "client_roots"))
            {
                return done(format!("{greeting} {name} has {} roots.", roots.len()));
            }
            ask(InputRequired::new()
                .elicit("user_name", "What is your name?", &form("name", "string"))
                .sample("greeting", question("Generate a greeting", 50))
                .list_roots("client_roots")
                .remember(json!({ "asked": 3 })))
        },
    )?
    .tool(
        spec("test_input_required_result_capabilities", "Asks only for what the client can answer."),
        |call: Call, NoArguments {}| async move {
            let can = call.capabilities();
            let mut input = InputRequired::new();
            if can.elicitation_form {
                input = input.elicit("user_name", "What is your name?", &form("name", "string"));
            }
            if can.sampling {
                input = input.sample("greeting", question("Generate a greeting", 50));
            }
            if input.requests.is_empty() || !call.inputs().is_empty() {
                return done("There is nothing more to ask.");
            }
            ask(input)
        },
    )
}

/// What to ask the client's model.
#[derive(Deserialize, JsonSchema)]
struct Prompt {
    /// The prompt to send to the model
    prompt: String,
}

/// What to ask the user.
#[derive(Deserialize, JsonSchema)]
struct Message {
    /// The message to show the user
    message: String,
}

fn with_arguments(kit: Toolkit) -> Result<Toolkit> {
    kit.tool(spec("test_sampling", "Asks the client's model."), |call: Call, Prompt { prompt }| async move {
        match sampled(&call, "answer") {
            Some(text) => done(format!("LLM response: {text}")),
            None => ask(InputRequired::new().sample("answer", question(&prompt, 100))),
        }
    })?
    .tool(
        spec("test_elicitation", "Asks the user for a name and an address."),
        |call: Call, Message { message }| async move {
            let schema = json!({
                "type": "object",
                "properties": {
                    "username": { "type": "string", "description": "User's response" },
                    "email": { "type": "string", "description": "User's email address" },
                },
                "required": ["username", "email"],
            });
            answered(&call, "User response", &message, &schema)
        },
    )
}

/// Asks for the form, then says what the user did with it.
fn answered(call: &Call, label: &str, message: &str, schema: &Value) -> Answer {
    let Some(answer) = call.inputs().get("form") else {
        return ask(InputRequired::new().elicit("form", message, schema));
    };
    let action = answer.get("action").and_then(Value::as_str).unwrap_or("cancel");
    let content = answer.get("content").cloned().unwrap_or_else(|| Value::from(Map::new()));
    done(format!("{label}: action={action}, content={content}"))
}

fn forms(kit: Toolkit) -> Result<Toolkit> {
    kit.tool(
        spec("test_elicitation_sep1034_defaults", "Asks with a default for every kind of field."),
        |call: Call, NoArguments {}| async move {
            let schema = json!({
                "type": "object",
                "properties": {
                    "name": { "type": "string", "default": "John Doe" },
                    "age": { "type": "integer", "default": 30 },
                    "score": { "type": "number", "default": 95.5 },
                    "status": { "type": "string", "enum": ["active", "inactive", "pending"], "default": "active" },
                    "verified": { "type": "boolean", "default": true },
                },
                "required": [],
            });
            answered(&call, "Elicitation completed", "Please check these values", &schema)
        },
    )?
    .tool(
        spec("test_elicitation_sep1330_enums", "Asks with every kind of choice."),
        |call: Call, NoArguments {}| async move {
            let named = |noun: &str| {
                let names = ["First", "Second", "Third"];
                let one = |(at, name): (usize, &str)| {
                    json!({ "const": format!("value{}", at + 1), "title": format!("{name} {noun}") })
                };
                Value::from_iter(names.into_iter().enumerate().map(one))
            };
            let plain = json!(["option1", "option2", "option3"]);
            let schema = json!({
                "type": "object",
                "properties": {
                    "untitledSingle": { "type": "string", "enum": plain },
                    "titledSingle": { "type": "string", "oneOf": named("Option") },
                    "legacyEnum": {
                        "type": "string",
                        "enum": ["opt1", "opt2", "opt3"],
                        "enumNames": ["Option One", "Option Two", "Option Three"],
                    },
                    "untitledMulti": { "type": "array", "items": { "type": "string", "enum": plain } },
                    "titledMulti": { "type": "array", "items": { "anyOf": named("Choice") } },
                },
                "required": [],
            });
            answered(&call, "Elicitation completed", "Please choose", &schema)
        },
    )
}
