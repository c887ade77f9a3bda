//! Streams that break off and are read on: event ids, `Last-Event-ID`, polling (2025-11-25 "Resumability and
//! Redelivery"), and HTTP+SSE clients that come back.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRng, TestRunner};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use weir::clock::{Clock, Timestamp};
use weir::mcp::bus::Changed;

use crate::support::events::Event;
use crate::support::legacy::Old;
use crate::support::tools::{GO, NOTE, SERVER};
use crate::support::{Draft, Events, Gateway, Legacy, eventually, raw};

const ENDED: &str = r#"weir_tool_calls_total{outcome="ok",server="lab",tool="slow_count"}"#;

fn id(event: &Event) -> String {
    event.id.clone().expect("an id")
}

fn json_of(event: &Event) -> Value {
    serde_json::from_str(&event.data).expect("JSON")
}

async fn every(mut events: Events) -> Vec<Event> {
    let mut all = Vec::new();
    while let Some(event) = events.next_of_any_kind().await {
        all.push(event);
    }
    all
}

fn count(session: &Legacy, steps: u32, delay_ms: u32) -> crate::support::Draft {
    session.draft_call("slow_count", &json!({ "steps": steps, "delay_ms": delay_ms })).progress(json!("p"))
}

#[tokio::test]
async fn every_event_of_a_session_has_an_id_of_its_own() {
    let gateway = Gateway::start().await;
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-11-25").await;
    let (one, other) = (count(&session, 3, 5).stream().await, count(&session, 3, 5).stream().await);
    let mut stream = session.stream().await;
    session.call("notify", json!({ "what": "tools" })).await.result();
    let mut events = vec![stream.next_of_any_kind().await.expect("a priming event")];
    events.push(stream.next_of_any_kind().await.expect("a change"));
    events.extend(every(one).await);
    events.extend(every(other).await);
    assert_eq!(events.len(), 2 + 5 + 5);
    assert_eq!(events.iter().map(id).collect::<BTreeSet<_>>().len(), events.len());
}

#[tokio::test]
async fn streams_begin_with_an_event_to_come_back_to_where_the_client_knows_it() {
    let gateway = Gateway::build().set("mcp.retry_ms", 70).start().await;
    let key = gateway.caller().await;
    for (revision, primed) in [("2025-11-25", true), ("2025-06-18", false), ("2025-03-26", false)] {
        let session = Legacy::open(&gateway, &key, revision).await;
        let mut stream = session.stream().await;
        if primed {
            let first = stream.next_of_any_kind().await.expect("an event");
            assert_eq!((first.data.as_str(), first.retry), ("", Some(70)));
        }
        let events = every(count(&session, 1, 1).stream().await).await;
        let first = &events[0];
        assert_eq!(first.data.is_empty() && first.retry == Some(70), primed, "{revision}: {first:?}");
        assert!(events.iter().all(|event| event.id.is_some()), "{revision}");
    }
    let alone = Legacy::open(&gateway, &key, "2025-11-25").await;
    let events = every(count(&alone, 1, 1).without("mcp-session-id").stream().await).await;
    assert!(
        events.iter().all(|event| event.id.is_none()),
        "without a session there is nothing to come back to"
    );
}

#[tokio::test]
async fn what_was_said_while_the_client_was_away_is_there_when_it_comes_back() {
    let gateway = Gateway::start().await;
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-11-25").await;
    let mut events = count(&session, 4, 20).stream().await;
    let priming = events.next_of_any_kind().await.expect("an event");
    let first = events.next().await.expect("progress");
    drop(events);
    eventually("the end of the call", async || gateway.metric(ENDED) == 1.0).await;

    let rest = every(session.draft_resume(&id(&first)).stream().await).await;
    let said: Vec<_> = rest.iter().map(json_of).collect();
    let steps: Vec<_> = said.iter().filter_map(|m| m["params"]["progress"].as_i64()).collect();
    assert_eq!(steps, [2, 3, 4], "neither the first again nor one too few");
    assert_eq!(said.last().expect("an answer")["result"]["content"][0]["text"], "counted to 4");
    let again = every(session.draft_resume(&id(&priming)).stream().await).await;
    assert_eq!(again.len(), 5, "all of it, for whoever got nothing");
    let last = every(session.draft_resume(&id(rest.last().expect("one"))).stream().await).await;
    assert_eq!(last, [], "there is nothing after the answer");
}

#[tokio::test]
async fn a_stream_is_read_on_while_the_call_runs() {
    let gateway = Gateway::start().await;
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-06-18").await;
    let mut events = count(&session, 6, 50).stream().await;
    let first = events.next().await.expect("progress");
    let resumed = session.draft_resume(&id(&first)).stream().await;
    let (older, said) = (every(events).await, every(resumed).await);
    let said: Vec<_> = said.iter().map(json_of).collect();
    assert_eq!(
        said.iter().filter_map(|m| m["params"]["progress"].as_i64()).collect::<Vec<_>>(),
        [2, 3, 4, 5, 6]
    );
    // It may have been told a step before its replica heard of the other one.
    assert!(older.len() < 2, "the newer connection takes over: {older:?}");
}

#[tokio::test]
async fn a_question_asked_into_a_broken_stream_waits_there() {
    let gateway = Gateway::start().await;
    let roots = json!({ "roots": {} });
    let session = Legacy::open_with(&gateway, &gateway.caller().await, "2025-11-25", roots).await;
    let mut events = session.draft_call("asks_when_told", &json!({})).progress(json!(1)).stream().await;
    let first = events.next().await.expect("progress");
    drop(events);
    let open = r#"weir_streams_open{kind="response"}"#;
    eventually("the end of the stream", async || gateway.metric(open) == 0.0).await;
    session.call("notify", json!({ "what": GO })).await.result();
    let asked = r#"weir_tool_calls_total{outcome="input_required",server="lab",tool="asks_when_told"}"#;
    eventually("the question", async || gateway.metric(asked) == 1.0).await;
    let mut resumed = session.draft_resume(&id(&first)).stream().await;
    let question = resumed.message().await;
    assert_eq!(question["method"], "roots/list");
    session.answer(&question, "result", json!({ "roots": [] })).await;
    assert_eq!(resumed.message().await["result"]["content"][0]["text"], "heard");
}

#[tokio::test]
async fn a_tool_can_let_the_connection_go_and_the_client_polls() {
    let gateway = Gateway::build().set("mcp.retry_ms", 30).start().await;
    let key = gateway.caller().await;
    let session = Legacy::open(&gateway, &key, "2025-11-25").await;
    let call =
        |session: &Legacy| session.draft_call("release", &json!({ "delay_ms": 50 })).progress(json!(1));
    let events = every(call(&session).stream().await).await;
    let told: Vec<_> = events.iter().map(|e| (e.data.is_empty(), e.retry)).collect();
    assert_eq!(told, [(true, Some(30)), (false, None), (true, Some(30))], "no answer yet");
    let rest = every(session.draft_resume(&id(&events[1])).stream().await).await;
    let said: Vec<_> = rest.iter().map(json_of).collect();
    assert_eq!((&said[0]["params"]["progress"], said.len()), (&json!(2), 2));
    assert_eq!(said[1]["result"]["content"][0]["text"], "released");

    let older = Legacy::open(&gateway, &key, "2025-06-18").await;
    let reply = call(&older).send().await;
    assert_eq!((reply.tool_text(), reply.messages.len()), ("released", 3), "it would not come back");
}

#[tokio::test]
async fn long_streams_are_let_go_where_that_is_configured() {
    let gateway = Gateway::build().set("mcp.stream_max_ms", 60).set("mcp.retry_ms", 5).start().await;
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-11-25").await;
    let mut stream = every(session.stream().await).await;
    let last = stream.pop().expect("a hint");
    assert_eq!((last.id, last.retry), (None, Some(5)));
    let mut connections = 1;
    let mut events = every(count(&session, 5, 50).stream().await).await;
    while !events.iter().any(|event| event.data.contains("counted to 5")) {
        let last = events.iter().rev().find_map(|event| event.id.clone()).expect("an id");
        events.extend(every(session.draft_resume(&last).stream().await).await);
        connections += 1;
    }
    assert!(connections > 1, "{connections}");
    let steps: Vec<_> = events.iter().filter(|e| !e.data.is_empty()).map(json_of).collect();
    let steps: Vec<_> = steps.iter().filter_map(|m| m["params"]["progress"].as_i64()).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn changes_wait_for_a_stream_that_broke() {
    let gateway = Gateway::start().await;
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-11-25").await;
    session.send("resources/subscribe", json!({ "uri": NOTE })).await.result();
    let mut stream = session.stream().await;
    let changed = async |what: &str| drop(session.call("notify", json!({ "what": what })).await);
    changed("tools").await;
    let heard = stream.next().await.expect("a change");
    drop(stream);
    let open = r#"weir_streams_open{kind="session"}"#;
    eventually("the end of the stream", async || gateway.metric(open) == 0.0).await;
    changed("prompts").await;
    changed(NOTE).await;
    let mut resumed = session.draft_resume(&id(&heard)).stream().await;
    assert_eq!(resumed.message().await["method"], "notifications/prompts/list_changed");
    let last = resumed.next().await.expect("a change");
    assert_eq!(json_of(&last)["params"]["uri"], NOTE);
    // What went to one stream is not told again on another.
    let mut fresh = session.stream().await;
    changed("resources").await;
    assert_eq!(fresh.message().await["method"], "notifications/resources/list_changed");
    drop(fresh);
    eventually("the end of the stream", async || gateway.metric(open) == 1.0).await;
    drop(resumed);
    let mut again = session.draft_resume(&id(&last)).stream().await;
    changed("tools").await;
    assert_eq!(again.message().await["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn ids_that_lead_nowhere_are_refused() {
    let gateway = Gateway::start().await;
    let (key, other) = (gateway.caller().await, gateway.caller().await);
    let session = Legacy::open(&gateway, &key, "2025-11-25").await;
    let mut events = count(&session, 1, 1).stream().await;
    let last = id(&events.next().await.expect("progress"));
    for nonsense in ["0", "r1", "r999-1", "x1-1", "r1-99999999999999999999", "../../etc/passwd", "ses_0-1"] {
        let reply = session.draft_resume(nonsense).send().await;
        assert_eq!(reply.error(), (400, -31008), "{nonsense}: {}", reply.text);
    }
    let mut fresh = session.draft_resume("l999-7").stream().await;
    assert!(fresh.next_of_any_kind().await.expect("an event").id.is_some(), "a new stream for one long gone");
    let told = [fresh.message().await, fresh.message().await, fresh.message().await];
    let everything =
        ["tools", "prompts", "resources"].map(|what| format!("notifications/{what}/list_changed"));
    assert_eq!(told.map(|message| message["method"].as_str().unwrap_or("").to_owned()), everything);
    assert_eq!(session.stolen_by(&other).draft_resume(&last).send().await.status, 404);
    let neighbour = Legacy::open(&gateway, &key, "2025-11-25").await;
    assert_eq!(
        neighbour.draft_resume(&last).send().await.error(),
        (400, -31008),
        "ids are the session's own"
    );
    assert_eq!(session.draft_resume(&last).without("mcp-session-id").send().await.status, 405);
}

#[tokio::test]
async fn an_answer_that_is_no_longer_kept_is_not_waited_for() {
    let gateway = Gateway::build().set("mcp.replay_bytes", 4096).start().await;
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-11-25").await;
    let mut lost = Vec::new();
    // Each replica keeps so much of what was said there.
    let each = gateway.apps().count();
    for number in 0..3 * each {
        let draft = session.draft_call("talks", &json!({ "messages": 8 })).set("/id", json!(number));
        let mut events = draft.stream().await;
        lost.push(id(&events.next_of_any_kind().await.expect("an event")));
        drop(events);
        let open = r#"weir_streams_open{kind="response"}"#;
        eventually("the end of the stream", async || gateway.metric(open) == 0.0).await;
    }
    for app in gateway.apps() {
        assert!(app.sessions.kept_bytes() < 3 * 4096, "{}", app.sessions.kept_bytes());
    }
    let answers = every(session.draft_resume(&lost[0]).stream().await).await;
    let last = json_of(answers.last().expect("an answer"));
    assert_eq!((&last["id"], &last["error"]["code"]), (&json!(0), &json!(-31008)), "{last}");
    let kept = every(session.draft_resume(lost.last().expect("one")).stream().await).await;
    assert_eq!(json_of(kept.last().expect("an answer"))["result"]["content"][0]["text"], "said");
}

#[tokio::test]
async fn what_a_tenant_keeps_is_bounded_and_costs_nobody_else() {
    let gateway =
        Gateway::build().set("mcp.replay_bytes", 4096).set("mcp.replay_tenant_bytes", 100_000).start().await;
    let (key, other) = (gateway.caller().await, gateway.caller().await);
    let neighbour = Legacy::open(&gateway, &other, "2025-11-25").await;
    let theirs = every(count(&neighbour, 1, 1).stream().await).await;
    let open = r#"weir_streams_open{kind="response"}"#;
    let mut left = Vec::new();
    for _ in 0..10 {
        let session = Legacy::open(&gateway, &key, "2025-11-25").await;
        let big =
            session.draft_call("big", &json!({ "bytes": 30_000 })).header("accept", "text/event-stream");
        let mut events = big.stream().await;
        left.push((session, id(&events.next_of_any_kind().await.expect("an event"))));
        drop(events);
        eventually("the end of the stream", async || gateway.metric(open) == 0.0).await;
    }
    let ended = r#"weir_tool_calls_total{outcome="ok",server="lab",tool="big"}"#;
    eventually("all calls", async || gateway.metric(ended) == 10.0).await;
    assert!(gateway.app.sessions.kept_bytes() < 110_000, "{}", gateway.app.sessions.kept_bytes());
    let (session, first) = &left[9];
    let answer = every(session.draft_resume(first).stream().await).await.pop().expect("an answer");
    assert_eq!(json_of(&answer)["result"]["content"][0]["text"].as_str().map(str::len), Some(30_000));
    let (session, first) = &left[0];
    let answer = every(session.draft_resume(first).stream().await).await.pop().expect("an answer");
    assert_eq!(json_of(&answer)["error"]["code"], -31008);
    let again = every(neighbour.draft_resume(&id(&theirs[0])).stream().await).await;
    assert_eq!(again.len(), 2, "another tenant keeps what it kept");
}

#[tokio::test]
async fn a_stream_that_is_not_read_keeps_nothing_from_a_newer_one() {
    // Alone: about the buffers of one process.
    let gateway = Gateway::build()
        .alone()
        .set("limits.key.burst", 1000)
        .set("limits.tenant.burst", 1000)
        .set("mcp.replay_bytes", 4096)
        .start()
        .await;
    let key = gateway.caller().await;
    let session = Legacy::open(&gateway, &key, "2025-11-25").await;
    for number in 0..250 {
        let uri = format!("lab://notes/{number}{}", "x".repeat(1500));
        session.send("resources/subscribe", json!({ "uri": uri })).await.result();
    }
    let open = r#"weir_streams_open{kind="session"}"#;
    let mut stuck = raw::connect(gateway.address).await;
    let head = format!(
        "GET /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {}\r\nmcp-session-id: {}\r\naccept: text/event-stream\r\n\r\n",
        key.secret, session.id
    );
    stuck.write_all(head.as_bytes()).await.expect("sent");
    eventually("the stream", async || gateway.metric(open) == 1.0).await;
    // More changes than the bus holds: the stream is told of everything, until it cannot write it all down. Then far more
    // waits than is kept of what was read.
    eventually("a stuck stream", async || {
        (0..1100).for_each(|_| gateway.app.bus.notifier(SERVER.into()).changed(Changed::Tools));
        gateway.app.sessions.kept_bytes() > 40_000
    })
    .await;
    let mut stream = session.stream().await;
    gateway.app.bus.notifier(SERVER.into()).changed(Changed::Prompts);
    while stream.message().await["method"] != "notifications/prompts/list_changed" {}
}

#[tokio::test]
async fn an_http_and_sse_client_that_breaks_before_its_first_message_comes_back() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let hello = || Old::hello(&gateway, "/sse").bearer(&key.secret);
    let mut events = hello().stream().await;
    let first = events.next().await.expect("the endpoint");
    assert_eq!(first.retry, Some(1000), "browsers wait longer by themselves");
    let endpoint = first.data.clone();
    drop(events);
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let url = format!("{}{endpoint}", gateway.url);
    assert_eq!(Draft::post(&gateway.http, url, ping).send().await.status, 202);
    let mut back = Old::connect(&gateway, hello().header("last-event-id", &id(&first))).await;
    assert_eq!(back.endpoint, endpoint);
    assert_eq!(back.events.message().await["id"], 1);
}

#[tokio::test]
async fn answers_are_kept_for_a_while_only() {
    let gateway = Gateway::build().set("mcp.replay_ms", 1).set("mcp.sse_grace_ms", 100).start().await;
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-11-25").await;
    let events = every(count(&session, 2, 1).stream().await).await;
    eventually("forgetting", async || gateway.app.sessions.kept_bytes() == 0).await;
    let reply = session.draft_resume(&id(&events[0])).send().await;
    assert_eq!(reply.error(), (400, -31008));
}

#[tokio::test]
async fn random_disconnects_neither_lose_nor_repeat_an_event() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let rng = TestRng::from_seed(Config::default().rng_algorithm, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for round in 0..12 {
        let revision = if round % 2 == 0 { "2025-11-25" } else { "2025-06-18" };
        let session = Legacy::open(&gateway, &key, revision).await;
        // How many events to read on each connection before it breaks.
        let plan =
            proptest::collection::vec(0..4_usize, 1..12).new_tree(&mut runner).expect("a plan").current();
        let mut events = count(&session, 20, 3).stream().await;
        let mut seen: Vec<Event> = vec![events.next_of_any_kind().await.expect("an event")];
        for reads in plan {
            for _ in 0..reads {
                seen.extend(events.next_of_any_kind().await);
            }
            let last = id(seen.last().expect("one"));
            events = session.draft_resume(&last).stream().await;
        }
        seen.extend(every(events).await);
        let said: Vec<_> = seen.iter().filter(|event| !event.data.is_empty()).map(json_of).collect();
        let steps: Vec<_> = said.iter().filter_map(|m| m["params"]["progress"].as_i64()).collect();
        assert_eq!(steps, (1..=20).collect::<Vec<_>>());
        assert_eq!(said.iter().filter(|m| m.get("result").is_some()).count(), 1);
    }
}

#[tokio::test]
async fn an_http_and_sse_client_comes_back_to_its_session() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    let hello = || Old::hello(&gateway, "/sse").bearer(&key.secret);
    let mut old = Old::open(&gateway, &key).await;
    let call = json!({ "name": "slow_count", "arguments": { "steps": 3, "delay_ms": 20 },
        "_meta": { "progressToken": 1 } });
    let number = old.start("tools/call", call).await;
    let first = old.events.next().await.expect("progress");
    let endpoint = old.endpoint.clone();
    drop(old);
    eventually("the end of the call", async || gateway.metric(ENDED) == 1.0).await;

    let mut back = Old::connect(&gateway, hello().header("last-event-id", &id(&first))).await;
    assert_eq!(back.endpoint, endpoint, "the same session");
    for step in [2, 3] {
        assert_eq!(back.events.message().await["params"]["progress"], step);
    }
    assert_eq!(back.events.message().await["id"], number);
    assert_eq!(back.send("ping", json!({})).await["result"], json!({}));

    let thief = gateway.caller().await;
    let stolen = Old::hello(&gateway, "/sse").bearer(&thief.secret).header("last-event-id", &id(&first));
    assert_ne!(Old::connect(&gateway, stolen).await.endpoint, endpoint, "a session of its own");
    let unknown = Old::connect(&gateway, hello().header("last-event-id", "7")).await;
    assert_ne!(unknown.endpoint, endpoint);
}

#[tokio::test]
async fn an_http_and_sse_session_waits_for_its_client_only_so_long() {
    let gateway = Gateway::build().set("mcp.sse_grace_ms", 100).start().await;
    let key = gateway.caller().await;
    let old = Old::open(&gateway, &key).await;
    drop(old);
    eventually("the end of the session", async || gateway.app.sessions.is_empty()).await;
    let closed = r#"weir_sessions_closed_total{reason="disconnected"}"#;
    eventually("the end to be counted", async || gateway.metric(closed) == 1.0).await;
}

#[tokio::test]
async fn sessions_that_were_never_used_end_early_and_go_first() {
    let clock = Clock::manual(Timestamp::from_micros(1_790_000_000_000_000));
    // Alone: the hand that moves this clock does not move that of Redis.
    let gateway = Gateway::build().alone().clock(&clock).set("limits.tenant.sessions", 3).start().await;
    let key = gateway.caller().await;
    let used = Legacy::open(&gateway, &key, "2025-11-25").await;
    for _ in 0..20 {
        clock.advance(Duration::from_secs(4));
        assert_eq!(Legacy::hello(&gateway, &key, "2025-11-25").send().await.status, 200);
    }
    assert_eq!(gateway.app.sessions.len(), 3);
    assert_eq!(used.send("ping", json!({})).await.status, 200, "it survived the storm");

    // One that has just been opened stays, where another was quiet for most of its time.
    let full = Gateway::build().alone().clock(&clock).set("limits.tenant.sessions", 2).start().await;
    let key = full.caller().await;
    let old = Legacy::open(&full, &key, "2025-11-25").await;
    clock.advance(Duration::from_secs(1700));
    let young = Legacy::hello(&full, &key, "2025-11-25").send().await;
    Legacy::hello(&full, &key, "2025-11-25").send().await.result();
    let young_id = young.header("mcp-session-id").expect("an id");
    assert_eq!(old.send("ping", json!({})).await.status, 404);
    let ping = old.draft("ping", &json!({})).header("mcp-session-id", young_id);
    assert_eq!(ping.send().await.status, 200);

    let hasty = Gateway::build().alone().set("mcp.session_unused_ms", 100).start().await;
    let key = hasty.caller().await;
    let used = Legacy::open(&hasty, &key, "2025-11-25").await;
    Legacy::hello(&hasty, &key, "2025-11-25").send().await.result();
    assert_eq!(hasty.app.sessions.len(), 2);
    eventually("the end of the other", async || hasty.app.sessions.len() == 1).await;
    assert_eq!(used.send("ping", json!({})).await.status, 200);
}
