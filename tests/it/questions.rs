//! Questions of tools to clients of 2024-11-05 to 2025-11-25: as requests on the stream of the call, with answers that
//! come as messages of their own.

use serde_json::{Value, json};
use weir::telemetry::labels::SessionEnd;

use crate::support::legacy::{Old, initialize};
use crate::support::tools::GO;
use crate::support::{Draft, Events, Gateway, Legacy, eventually};

fn everything() -> Value {
    json!({ "elicitation": { "form": {}, "url": {} }, "sampling": {}, "roots": { "listChanged": true } })
}

fn inquiry(rounds: &Value) -> Value {
    json!({ "rounds": rounds })
}

async fn able(gateway: &Gateway) -> Legacy {
    Legacy::open_with(gateway, &gateway.caller().await, "2025-11-25", everything()).await
}

/// Starts a call that asks, and returns its stream and the first question.
async fn asked(draft: Draft) -> (Events, Value) {
    let mut events = draft.stream().await;
    let question = events.message().await;
    (events, question)
}

fn text(message: &Value) -> &str {
    message["result"]["content"][0]["text"].as_str().unwrap_or("")
}

/// The last message of a stream is a business error with this text.
async fn ends_in_error(events: Events, part: &str) {
    let last = events.rest().await.pop().expect("an answer");
    assert_eq!(last["result"]["isError"], true, "{last}");
    assert!(text(&last).contains(part), "{last}");
}

#[tokio::test]
async fn every_kind_of_question_goes_out_and_its_answer_resumes_the_call() {
    let gateway = Gateway::start().await;
    let session = able(&gateway).await;
    let rounds = inquiry(&json!([["form"], ["url"], ["model", "roots"]]));
    let (mut events, form) = asked(session.draft_call("inquire", &rounds)).await;
    assert_eq!((&form["jsonrpc"], &form["method"]), (&json!("2.0"), &json!("elicitation/create")));
    assert_eq!((&form["params"]["mode"], &form["params"]["message"]), (&json!("form"), &json!("How old?")));
    assert_eq!(form["params"]["requestedSchema"]["properties"]["age"]["type"], "integer");
    let filled = json!({ "action": "accept", "content": { "age": 7 } });
    let taken = session.answer(&form, "result", filled.clone()).await;
    assert_eq!((taken.status, taken.text.as_str()), (202, ""));

    let url = events.message().await;
    assert_eq!(
        (&url["params"]["mode"], &url["params"]["url"]),
        (&json!("url"), &json!("https://login.test/"))
    );
    assert!(url["params"]["elicitationId"].is_string(), "2025-11-25 wants one: {url}");
    assert_ne!(url["id"], form["id"]);
    session.answer(&url, "result", json!({ "action": "accept" })).await;

    let (one, other) = (events.message().await, events.message().await);
    assert_eq!((&one["method"], &other["method"]), (&json!("sampling/createMessage"), &json!("roots/list")));
    let said = json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": "hm" } });
    let roots = json!({ "roots": [{ "uri": "file:///home", "name": "home" }] });
    session.answer(&other, "result", roots.clone()).await;
    session.answer(&one, "result", said.clone()).await;
    let last = events.message().await;
    let heard: Value = serde_json::from_str(text(&last)).expect("JSON");
    assert_eq!(
        heard,
        json!([{ "form": filled }, { "url": { "action": "accept" } }, { "model": said, "roots": roots }])
    );
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn declined_and_cancelled_forms_reach_the_tool() {
    let gateway = Gateway::start().await;
    let session = able(&gateway).await;
    for action in ["decline", "cancel"] {
        let (events, form) = asked(session.draft_call("inquire", &inquiry(&json!([["form"]])))).await;
        session.answer(&form, "result", json!({ "action": action })).await;
        let last = events.rest().await.pop().expect("an answer");
        let heard: Value = serde_json::from_str(text(&last)).expect("JSON");
        assert_eq!(heard, json!([{ "form": { "action": action } }]));
    }
}

#[tokio::test]
async fn answers_that_cannot_be_used_end_the_call_with_the_reason() {
    let gateway = Gateway::start().await;
    let session = able(&gateway).await;
    let refusal = json!({ "code": -1, "message": "User rejected sampling request" });
    for (what, kind, value, reason) in [
        ("form", "result", json!({ "action": "maybe" }), "`action` must be accept, decline or cancel"),
        ("form", "result", json!({ "action": "accept", "content": { "age": "old" } }), "/age"),
        ("form", "result", json!("yes"), "elicitation/create cannot be used"),
        ("model", "result", json!({ "role": "assistant" }), "`role`, `content` and `model`"),
        ("model", "error", refusal, "refused sampling/createMessage: User rejected sampling request (-1)"),
        ("roots", "result", json!({ "roots": "/" }), "`roots` must be a list"),
        ("roots", "error", json!([]), "refused roots/list"),
    ] {
        let (events, question) = asked(session.draft_call("inquire", &inquiry(&json!([[what]])))).await;
        assert_eq!(session.answer(&question, kind, value).await.status, 202);
        ends_in_error(events, reason).await;
    }
    for (outcome, count) in [("malformed", 5.0), ("refused", 2.0), ("answered", 0.0)] {
        let series = format!("weir_questions_total{{outcome=\"{outcome}\"}}");
        assert_eq!(gateway.metric(&series), count, "{outcome}");
    }
}

#[tokio::test]
async fn the_other_questions_are_withdrawn_when_one_answer_ends_the_call() {
    let gateway = Gateway::start().await;
    let session = able(&gateway).await;
    let (mut events, form) =
        asked(session.draft_call("inquire", &inquiry(&json!([["form", "roots"]])))).await;
    let roots = events.message().await;
    session.answer(&form, "result", json!(7)).await;
    let withdrawn = events.message().await;
    assert_eq!(
        (&withdrawn["method"], &withdrawn["params"]["requestId"]),
        (&json!("notifications/cancelled"), &roots["id"])
    );
    ends_in_error(events, "cannot be used").await;
    assert_eq!(
        session.answer(&roots, "result", json!({ "roots": [] })).await.status,
        202,
        "too late, and ignored"
    );
}

#[tokio::test]
async fn a_client_that_does_not_answer_in_time_is_told_so() {
    let gateway = Gateway::build().set("mcp.input_timeout_ms", 50).start().await;
    let session = able(&gateway).await;
    let (mut events, form) = asked(session.draft_call("inquire", &inquiry(&json!([["form"]])))).await;
    let withdrawn = events.message().await;
    assert_eq!(withdrawn["params"]["requestId"], form["id"]);
    ends_in_error(events, "did not answer within 0.05 s").await;
}

#[tokio::test]
async fn a_missing_capability_is_a_business_error_that_names_it() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    for (declared, what, missing) in [
        (json!({}), "form", r#"{"elicitation":{"form":{}}}"#),
        (json!({ "elicitation": {} }), "url", r#"{"elicitation":{"url":{}}}"#),
        (json!({ "elicitation": { "url": {} } }), "form", r#"{"elicitation":{"form":{}}}"#),
        (json!({ "elicitation": {} }), "model", r#"{"sampling":{}}"#),
        (json!({ "sampling": {} }), "roots", r#"{"roots":{}}"#),
        (json!({}), "form url model", r#"{"elicitation":{"form":{},"url":{}},"sampling":{}}"#),
    ] {
        let session = Legacy::open_with(&gateway, &key, "2025-11-25", declared).await;
        let what: Vec<_> = what.split(' ').collect();
        let reply = session.call("inquire", inquiry(&json!([what]))).await;
        assert!(!reply.is_stream());
        assert_eq!(reply.result()["isError"], true);
        assert!(reply.tool_text().contains(missing), "{}", reply.tool_text());
    }
}

#[tokio::test]
async fn a_form_for_2025_06_18_has_no_mode() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let session = Legacy::open_with(&gateway, &key, "2025-06-18", json!({ "elicitation": {} })).await;
    let (_, form) = asked(session.draft_call("inquire", &inquiry(&json!([["form"]])))).await;
    assert_eq!(form["params"].get("mode"), None);

    let refused = session.call("inquire", inquiry(&json!([["choices"]]))).await;
    assert!(refused.tool_text().contains("a list of choices"), "{}", refused.tool_text());
    let newer = Legacy::open_with(&gateway, &key, "2025-11-25", json!({ "elicitation": {} })).await;
    let (_, form) = asked(newer.draft_call("inquire", &inquiry(&json!([["choices"]])))).await;
    assert_eq!(form["params"]["requestedSchema"]["properties"]["all"]["type"], "array");
}

#[tokio::test]
async fn where_nothing_can_be_asked_the_call_says_so() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let session = Legacy::open_with(&gateway, &key, "2025-03-26", everything()).await;
    let arguments = inquiry(&json!([["roots"]]));
    let plain = session.draft_call("inquire", &arguments).header("accept", "application/json").send().await;
    assert!(plain.tool_text().contains("roots/list"), "{}", plain.tool_text());
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "inquire", "arguments": arguments } });
    let batch = session.message(json!([call])).send().await;
    assert_eq!(batch.messages[0][0]["result"]["isError"], true, "{}", batch.text);
    let alone = session.draft_call("inquire", &arguments).without("mcp-session-id").send().await;
    assert!(alone.tool_text().contains(r#"{"roots":{}}"#), "{}", alone.tool_text());
}

#[tokio::test]
async fn nobody_else_can_answer() {
    let gateway = Gateway::start().await;
    let (key, thief) = (gateway.caller().await, gateway.caller().await);
    let session = Legacy::open_with(&gateway, &key, "2025-11-25", everything()).await;
    let (events, form) = asked(session.draft_call("inquire", &inquiry(&json!([["form"]])))).await;
    let good = json!({ "action": "accept", "content": { "age": 1 } });
    assert_eq!(session.stolen_by(&thief).answer(&form, "result", good.clone()).await.status, 404);
    let own = Legacy::open_with(&gateway, &key, "2025-11-25", everything()).await;
    assert_eq!(own.answer(&form, "result", good).await.status, 202, "unknown there, and ignored");
    session.answer(&form, "result", json!({ "action": "decline" })).await;
    let last = events.rest().await.pop().expect("an answer");
    assert!(text(&last).contains("decline"), "{last}");
}

#[tokio::test]
async fn an_answer_is_taken_in_a_batch_and_only_once() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let session = Legacy::open_with(&gateway, &key, "2025-03-26", everything()).await;
    let (events, roots) = asked(session.draft_call("inquire", &inquiry(&json!([["roots"]])))).await;
    let answer =
        |uri: &str| json!({ "jsonrpc": "2.0", "id": roots["id"], "result": { "roots": [{ "uri": uri }] } });
    let batch = session.message(json!([answer("file:///one"), answer("file:///two")])).send().await;
    assert_eq!((batch.status, batch.text.as_str()), (202, ""));
    let last = events.rest().await.pop().expect("an answer");
    assert!(text(&last).contains("file:///one"), "{last}");
}

#[tokio::test]
async fn cancelling_the_call_withdraws_its_question() {
    let gateway = Gateway::start().await;
    let session = able(&gateway).await;
    let draft = session.draft_call("inquire", &inquiry(&json!([["form"]]))).set("/id", json!("the call"));
    let (mut events, form) = asked(draft).await;
    session.notify("notifications/cancelled", json!({ "requestId": "the call" })).await;
    assert_eq!(events.message().await["params"]["requestId"], form["id"]);
    assert_eq!(events.next().await, None, "a cancelled call has no answer");
}

#[tokio::test]
async fn a_session_that_ends_ends_its_questions() {
    let gateway = Gateway::build().set("limits.tenant.questions", 1).start().await;
    let key = gateway.caller().await;
    let session = Legacy::open_with(&gateway, &key, "2025-11-25", everything()).await;
    let draft = |session: &Legacy| session.draft_call("inquire", &inquiry(&json!([["form"]])));
    let (events, _) = asked(draft(&session)).await;
    assert_eq!(session.draft_delete().send().await.status, 204);
    let rest = events.rest().await;
    assert!(rest.iter().all(|message| message.get("result").is_none()), "{rest:?}");
    let given_up = r#"weir_questions_total{outcome="abandoned"}"#;
    eventually("the end of the question", async || gateway.metric(given_up) == 1.0).await;
    let other = Legacy::open_with(&gateway, &key, "2025-11-25", everything()).await;
    asked(draft(&other)).await;
}

#[tokio::test]
async fn a_refusal_is_noticed_while_another_question_waits() {
    let gateway = Gateway::start().await;
    let session = able(&gateway).await;
    let (mut events, form) =
        asked(session.draft_call("inquire", &inquiry(&json!([["form", "roots"]])))).await;
    let roots = events.message().await;
    session.answer(&roots, "error", json!({ "code": -32601, "message": "no roots" })).await;
    let withdrawn = events.message().await;
    assert_eq!(withdrawn["params"]["requestId"], form["id"], "only the one that is open: {withdrawn}");
    ends_in_error(events, "refused roots/list: no roots").await;
}

#[tokio::test]
async fn a_question_that_cannot_be_sent_withdraws_those_before_it() {
    // Alone: a process bounds the questions that wait there.
    let gateway = Gateway::build().alone().start().await;
    let session = able(&gateway).await;
    let mut waiting = Vec::new();
    for _ in 0..31 {
        waiting.push(asked(session.draft_call("inquire", &inquiry(&json!([["form", "roots"]])))).await);
    }
    waiting.push(asked(session.draft_call("inquire", &inquiry(&json!([["form"]])))).await);
    let (mut events, form) =
        asked(session.draft_call("inquire", &inquiry(&json!([["form", "roots"]])))).await;
    assert_eq!(
        events.message().await["params"]["requestId"],
        form["id"],
        "the 65th question was one too many"
    );
    ends_in_error(events, "at most 64 questions").await;
}

#[tokio::test]
async fn a_revoked_caller_is_not_asked_on() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let session = Legacy::open_with(&gateway, &key, "2025-11-25", everything()).await;
    let (events, _) = asked(session.draft_call("inquire", &inquiry(&json!([["form"], ["form"]])))).await;
    let operator = gateway.operator().await;
    operator.delete(&format!("/admin/v1/tenants/{}/keys/{}", key.tenant, key.id)).await;
    let rest = events.rest().await;
    assert!(rest.iter().all(|message| message.get("result").is_none()), "{rest:?}");
}

#[tokio::test]
async fn a_question_holds_no_place_of_the_tenant() {
    let gateway = Gateway::build().set("limits.tenant.concurrency", 1).start().await;
    let session = able(&gateway).await;
    let (events, form) = asked(session.draft_call("inquire", &inquiry(&json!([["form"]])))).await;
    // Another replica is given the place a moment later.
    eventually("a place", async || session.call("echo", json!({ "text": "x" })).await.error().1 == 0).await;
    session.answer(&form, "result", json!({ "action": "decline" })).await;
    let last = events.rest().await.pop().expect("an answer");
    assert!(text(&last).contains("decline"), "{last}");
}

#[tokio::test]
async fn a_tool_that_asks_for_ever_is_stopped() {
    let gateway = Gateway::start().await;
    let session = able(&gateway).await;
    let (mut events, mut question) =
        asked(session.draft_call("inquire", &inquiry(&json!(vec![["roots"]; 20])))).await;
    let mut asked = 0;
    while question["method"] == "roots/list" {
        asked += 1;
        session.answer(&question, "result", json!({ "roots": [] })).await;
        question = events.message().await;
    }
    assert_eq!(asked, 16);
    assert!(text(&question).contains("asked 16 times"), "{question}");
}

#[tokio::test]
async fn stopping_ends_a_call_that_waits_for_an_answer() {
    let mut gateway = Gateway::start().await;
    let session = able(&gateway).await;
    let (events, _) = asked(session.draft_call("inquire", &inquiry(&json!([["form"]])))).await;
    gateway.begin_stop();
    ends_in_error(events, "restarting").await;
    gateway.stopped().await;
}

#[tokio::test]
async fn http_and_sse_clients_are_asked_on_their_stream() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let mut old = Old::connect(&gateway, Old::hello(&gateway, "/sse").bearer(&key.secret)).await;
    let mut hello = initialize("2024-11-05");
    hello["params"]["capabilities"] = everything();
    old.post(hello).send().await;
    old.events.message().await;
    let call = json!({ "name": "inquire", "arguments": inquiry(&json!([["model"], ["form"]])) });
    let id = old.start("tools/call", call).await;
    let model = old.events.message().await;
    assert_eq!(model["method"], "sampling/createMessage");
    let said = json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": "hm" } });
    let answer =
        |question: &Value, result: Value| json!({ "jsonrpc": "2.0", "id": question["id"], "result": result });
    assert_eq!(old.post(answer(&model, said)).send().await.status, 202);
    let form = old.events.message().await;
    assert_eq!(form["method"], "elicitation/create");
    old.post(answer(&form, json!({ "action": "decline" }))).send().await;
    let last = old.events.message().await;
    assert_eq!(last["id"], id);
    assert!(text(&last).contains("decline") && text(&last).contains("hm"), "{last}");
}

#[tokio::test]
async fn an_answer_after_the_session_ended_finds_nobody() {
    let gateway = Gateway::start().await;
    let session = able(&gateway).await;
    let (_events, form) = asked(session.draft_call("inquire", &inquiry(&json!([["form"]])))).await;
    for open in gateway.app.sessions.select(|_| true) {
        gateway.app.sessions.close(&open, SessionEnd::Idle);
    }
    assert_eq!(session.answer(&form, "result", json!({ "action": "decline" })).await.status, 404);
}

#[tokio::test]
async fn calls_that_wait_for_answers_have_places_too() {
    let gateway = Gateway::build().set("limits.tenant.questions", 1).start().await;
    let session = able(&gateway).await;
    let draft = || session.draft_call("inquire", &inquiry(&json!([["form"]])));
    let (events, form) = asked(draft()).await;
    let refused = draft().send().await;
    assert_eq!(refused.error(), (200, -31001));
    assert_eq!(refused.json()["error"]["data"]["limit"], "questions");
    session.answer(&form, "result", json!({ "action": "decline" })).await;
    events.rest().await;
    asked(draft()).await;
}

#[tokio::test]
async fn a_client_that_left_before_it_had_a_stream_is_not_asked() {
    let gateway = Gateway::start().await;
    let session = able(&gateway).await;
    let draft = session.draft_call("asks_when_told", &json!({}));
    let waiting = gateway.app.last_tasks.spawn(draft.send());
    let started = r#"weir_mcp_requests_total{era="legacy",method="tools/call"}"#;
    eventually("the call", async || gateway.metric(started) == 1.0).await;
    waiting.abort();
    eventually("the end of the request", async || gateway.metric("weir_http_requests_in_flight") == 0.0)
        .await;
    session.call("notify", json!({ "what": GO })).await.result();
    let given_up = r#"weir_questions_total{outcome="abandoned"}"#;
    eventually("the end of the call", async || gateway.metric(given_up) == 1.0).await;
}
