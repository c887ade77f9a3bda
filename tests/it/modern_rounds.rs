//! 2026-07-28: calls that ask something back (Multi Round-Trip Requests).

use serde_json::{Value, json};

use std::time::Duration;

use weir::clock::{Clock, Timestamp};

use crate::support::{Draft, Gateway, Modern};

fn retry(client: &Modern, topic: &str, state: &Value) -> Draft {
    let draft = client.draft_call("asks", &json!({ "topic": topic }));
    draft
        .set(
            "/params/inputResponses",
            json!({ "opinion": { "action": "accept", "content": { "opinion": "good" } } }),
        )
        .set("/params/requestState", state.clone())
}

async fn first_round(client: &Modern, topic: &str) -> Value {
    let reply = client.call("asks", json!({ "topic": topic })).await;
    assert_eq!(reply.result()["resultType"], "input_required", "{}", reply.text);
    reply.result()["requestState"].clone()
}

#[tokio::test]
async fn a_question_goes_out_and_its_answer_comes_back_with_the_state() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let reply = client.call("asks", json!({ "topic": "tea" })).await;
    let result = reply.result();
    let question = &result["inputRequests"]["opinion"];
    assert_eq!(question["method"], "elicitation/create");
    assert_eq!(question["params"]["mode"], "form");
    assert_eq!(question["params"]["message"], "What do you think of tea?");
    assert!(result.get("content").is_none());
    let state = &result["requestState"];
    assert!(!state.as_str().expect("a text").contains("tea"), "the state is sealed");

    let done = retry(&client, "tea", state).send().await;
    assert_eq!(done.result()["resultType"], "complete");
    let said: Value = serde_json::from_str(done.tool_text()).expect("JSON");
    assert_eq!(said["answer"]["content"]["opinion"], "good");
    assert_eq!(said["state"], json!({ "topic": "tea", "round": 1 }));
}

#[tokio::test]
async fn an_answer_must_be_an_object() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let state = first_round(&client, "tea").await;
    for answer in [json!("yes"), json!([]), json!(null)] {
        let bent = retry(&client, "tea", &state).set("/params/inputResponses/opinion", answer);
        assert_eq!(bent.send().await.error(), (200, -32602));
    }
}

#[tokio::test]
async fn answers_without_a_state_reach_the_tool() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let done = retry(&client, "tea", &json!("")).unset("/params/requestState").send().await;
    let said: Value = serde_json::from_str(done.tool_text()).expect("JSON");
    assert_eq!(said["state"], Value::Null);
}

#[tokio::test]
async fn a_state_is_good_for_its_own_request_only() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let client = Modern::new(&gateway, &key);
    let state = first_round(&client, "tea").await;
    let text = state.as_str().expect("a text");
    let turned = if text.starts_with('A') { "B" } else { "A" };
    let same_tenant = Modern::new(&gateway, &gateway.key(key.tenant).await);
    let stranger = Modern::new(&gateway, &gateway.caller().await);
    for (what, draft) in [
        ("changed", retry(&client, "tea", &json!(format!("{turned}{}", &text[1..])))),
        ("cut", retry(&client, "tea", &json!(&text[..text.len() - 4]))),
        ("made up", retry(&client, "tea", &json!("AAAA"))),
        ("of another tenant", retry(&stranger, "tea", &state)),
        ("of another key", retry(&same_tenant, "tea", &state)),
        ("for other arguments", retry(&client, "coffee", &state)),
        (
            "for another tool",
            client.draft_call("echo", &json!({ "topic": "tea" })).set("/params/requestState", state.clone()),
        ),
        (
            "for another method",
            client
                .draft("prompts/get", json!({ "name": "greet", "arguments": { "name": "a" } }))
                .set("/params/requestState", state.clone()),
        ),
    ] {
        let reply = draft.send().await;
        assert_eq!(reply.error(), (200, -32602), "{what}: {}", reply.text);
    }
    let done = retry(&client, "tea", &state).send().await;
    assert_eq!(done.result()["isError"], false, "it is still good where it belongs");
}

#[tokio::test]
async fn a_cursor_is_no_state() {
    let gateway = Gateway::build().set("mcp.page_size", 1).start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let list = client.send("tools/list", json!({})).await;
    let reply = retry(&client, "tea", &list.result()["nextCursor"]).send().await;
    assert_eq!(reply.error(), (200, -32602));
}

#[tokio::test]
async fn a_state_ends_after_ten_minutes() {
    let clock = Clock::manual(Timestamp::from_micros(1_790_000_000_000_000));
    let gateway = Gateway::build().clock(&clock).start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let state = first_round(&client, "tea").await;
    clock.advance(Duration::from_secs(599));
    assert_eq!(retry(&client, "tea", &state).send().await.result()["isError"], false);
    clock.advance(Duration::from_secs(1));
    assert_eq!(retry(&client, "tea", &state).send().await.error(), (200, -32602));
}

#[tokio::test]
async fn another_replica_goes_on_with_the_round() {
    let gateway = Gateway::start().await;
    let replica = gateway.replica().start().await;
    let key = gateway.caller().await;
    let state = first_round(&Modern::new(&gateway, &key), "tea").await;
    let done = retry(&Modern::new(&replica, &key), "tea", &state).send().await;
    assert_eq!(done.result()["isError"], false);
}

#[tokio::test]
async fn a_client_that_cannot_be_asked_is_told_what_it_lacks() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    for capabilities in [json!({}), json!({ "elicitation": { "url": {} } })] {
        let client = Modern::new(&gateway, &key).with_capabilities(capabilities);
        let reply = client.call("asks", json!({ "topic": "tea" })).await;
        assert_eq!(reply.error(), (400, -32021), "{}", reply.text);
        assert!(reply.message().contains("\"elicitation\""), "agents show nothing else: {}", reply.text);
        assert_eq!(
            reply.json()["error"]["data"]["requiredCapabilities"],
            json!({ "elicitation": { "form": {} } })
        );
    }
    let client = Modern::new(&gateway, &key).with_capabilities(json!({ "elicitation": {} }));
    first_round(&client, "tea").await;
}

#[tokio::test]
async fn input_of_a_wrong_type_is_refused() {
    let gateway = Gateway::start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    for (field, value) in [("inputResponses", json!([])), ("requestState", json!({}))] {
        let draft = client.draft_call("asks", &json!({ "topic": "tea" }));
        let reply = draft.set(&format!("/params/{field}"), value).send().await;
        assert_eq!(reply.error(), (200, -32602), "{field}");
    }
}
