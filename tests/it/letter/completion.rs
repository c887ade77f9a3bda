//! Completion (all revisions "Completion"): at most 100 values, how many there are, and what is known already.

use serde_json::{Value, json};

use super::{LEGACY, press};
use crate::support::{Legacy, Modern};

fn asks(reference: &Value, name: &str) -> Value {
    json!({
        "ref": reference,
        "argument": { "name": name, "value": "v" },
        "context": { "arguments": { "owner": "ada", "topic": "x" } },
    })
}

#[tokio::test]
async fn prompts_and_templates_are_completed_within_the_bounds() {
    let gateway = press::gateway().await;
    let key = gateway.caller().await;
    let references = [
        (json!({ "type": "ref/prompt", "name": "ask" }), "Prompt(\"ask\")"),
        (json!({ "type": "ref/resource", "uri": "press://page/{id}" }), "Template(\"press://page/{id}\")"),
    ];
    for (reference, name) in references {
        let modern = Modern::new(&gateway, &key);
        let mut results = vec![modern.send("completion/complete", asks(&reference, "many")).await];
        let mut echoes = vec![modern.send("completion/complete", asks(&reference, "echo")).await];
        for revision in LEGACY {
            let legacy = Legacy::open(&gateway, &key, revision).await;
            results.push(legacy.send("completion/complete", asks(&reference, "many")).await);
            echoes.push(legacy.send("completion/complete", asks(&reference, "echo")).await);
        }
        for reply in results {
            let completion = &reply.result()["completion"];
            assert_eq!(completion["values"].as_array().map(Vec::len), Some(100));
            assert_eq!((&completion["total"], &completion["hasMore"]), (&json!(200), &json!(true)));
            assert_eq!(completion["values"][99], "v99");
        }
        for reply in echoes {
            let known = json!([format!("{name} owner=ada"), format!("{name} topic=x")]);
            assert_eq!(reply.result()["completion"]["values"], known);
        }
    }
}
