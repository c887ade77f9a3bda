//! Prompts, and suggestions for their arguments.

use std::collections::BTreeMap;

use serde_json::json;
use weir::error::Result;
use weir::mcp::content::{Content, PromptMessage, ResourceContents};
use weir::mcp::result::InputRequired;
use weir::providers::{Call, Completing, Completion, PromptResult, PromptSpec, Reference, Reply, Toolkit};

use crate::samples::PNG;

/// What is suggested for any argument.
const WORDS: [&str; 4] = ["paris", "park", "party", "test"];

type Arguments = BTreeMap<String, String>;

pub(crate) fn add(kit: Toolkit) -> Result<Toolkit> {
    let simple = PromptSpec::new("test_simple_prompt").description("One line of text.");
    let with_arguments = PromptSpec::new("test_prompt_with_arguments")
        .description("Repeats two arguments.")
        .argument("arg1", "First test argument", true)
        .argument("arg2", "Second test argument", true);
    let with_resource = PromptSpec::new("test_prompt_with_embedded_resource")
        .description("Embeds a resource.")
        .argument("resourceUri", "URI of the resource to embed", true);
    let with_image = PromptSpec::new("test_prompt_with_image").description("Embeds a picture.");
    let asking = PromptSpec::new("test_input_required_result_prompt")
        .description("Asks the user for a context before it is made.");
    let kit = kit
        .prompt(simple, |_: Call, _: Arguments| async move {
            Ok(said(vec![Content::text("This is a simple prompt for testing.")]))
        })?
        .prompt(with_arguments, |_: Call, arguments: Arguments| async move {
            let [first, second] = ["arg1", "arg2"].map(|name| arguments.get(name).map_or("", String::as_str));
            Ok(said(vec![Content::text(format!("Prompt with arguments: arg1='{first}', arg2='{second}'"))]))
        })?
        .prompt(with_resource, |_: Call, mut arguments: Arguments| async move {
            let uri = arguments.remove("resourceUri").unwrap_or_default();
            let text = "Embedded resource content for testing.";
            let resource = ResourceContents::text(uri, "text/plain", text);
            Ok(said(vec![
                Content::Resource { resource },
                Content::text("Please process the embedded resource above."),
            ]))
        })?
        .prompt(with_image, |_: Call, _: Arguments| async move {
            let image = Content::Image { data: PNG.to_owned(), mime_type: "image/png".to_owned() };
            Ok(said(vec![image, Content::text("Please analyze the image above.")]))
        })?
        .prompt(asking, |call: Call, _: Arguments| async move {
            let context = call.inputs().accepted("user_context").and_then(|form| form.get("context"));
            Ok(match context.and_then(|context| context.as_str()) {
                Some(context) => said(vec![Content::text(format!("Use this context: {context}"))]),
                None => {
                    let schema = json!({
                        "type": "object",
                        "properties": { "context": { "type": "string" } },
                        "required": ["context"],
                    });
                    let question = "What context should the prompt use?";
                    Reply::ask(InputRequired::new().elicit("user_context", question, &schema))
                }
            })
        })?;
    Ok(kit.completion(|_: Call, (_, typing): (Reference, Completing)| async move {
        let values = WORDS.iter().filter(|word| word.starts_with(&typing.value));
        Ok(Completion { values: values.map(|word| (*word).to_owned()).collect(), ..Completion::default() })
    }))
}

fn said(contents: Vec<Content>) -> Reply<PromptResult> {
    let messages = contents.into_iter().map(PromptMessage::user).collect();
    PromptResult { messages, ..PromptResult::default() }.into()
}
