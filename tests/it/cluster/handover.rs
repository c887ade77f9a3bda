//! A replica that stops hands its clients over to the others: their sessions go on, and nothing that they wait for is lost.

use std::time::Duration;

use serde_json::json;

use crate::support::legacy::Old;
use crate::support::recorder::Recorder;
use crate::support::services::{Deployment, needed};
use crate::support::{Gateway, Legacy, Modern};

/// Within which time clients of 2025-11-25 are told to come to another replica, in milliseconds.
const SOON: u64 = 250;

/// Two replicas, of which the first is to stop.
async fn two(recorder: &Recorder) -> (Gateway, Gateway) {
    needed("WEIR_TEST_POSTGRES");
    let deployment = Deployment::replicated(needed("WEIR_TEST_REDIS_URL")).await;
    let build = Gateway::build().on(deployment).hook(recorder.clone()).set("mcp.sse_grace_ms", 0);
    let first = build.start().await;
    let second = first.replica().hook(recorder.clone()).start().await;
    (first, second)
}

#[tokio::test]
async fn streams_end_with_the_time_to_come_back_and_sessions_go_on() {
    let recorder = Recorder::default();
    let (mut first, second) = two(&recorder).await;
    let key = first.caller().await;
    let newest = Legacy::open(&first, &key, "2025-11-25").await;
    let older = Legacy::open(&first, &key, "2025-06-18").await;
    let mut old = Old::open(&first, &key).await;
    let (mut listener, _) = Modern::new(&first, &key).listen(json!({ "toolsListChanged": true })).await;
    let count = json!({ "steps": 4, "delay_ms": 200 });
    let mut call = newest.draft_call("slow_count", &count).progress(json!(1)).stream().await;
    call.message().await;
    let mut streams = [newest.stream().await, older.stream().await];
    let primed = streams[0].next_of_any_kind().await.expect("the priming event");

    first.begin_stop();
    let [newest_stream, older_stream] = &mut streams;
    let retry = newest_stream.next_of_any_kind().await.expect("a last word").retry.expect("when to come");
    assert!(retry < SOON, "{retry}");
    for stream in [newest_stream, older_stream, &mut old.events] {
        assert_eq!(stream.next_of_any_kind().await, None);
    }
    assert_eq!(listener.message().await["result"]["resultType"], "complete");
    assert_eq!(listener.next().await, None);

    // While the first still works, the session is served by the second.
    let newest = newest.at(&second);
    let mut resumed = newest.draft_resume(&primed.id.expect("an id")).stream().await;
    assert_eq!(newest.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    second.app.bus.notifier("lab".into()).changed(weir::mcp::bus::Changed::Tools);
    assert_eq!(resumed.message().await["method"], "notifications/tools/list_changed");

    // What runs at the first is answered there.
    let last = call.rest().await.pop().expect("an answer");
    assert_eq!(last["result"]["content"][0]["text"], "counted to 4");
    first.stopped().await;
    assert_eq!(older.at(&second).call("echo", json!({ "text": "y" })).await.tool_text(), "y");
    let lines = recorder.lines();
    assert!(!lines.iter().any(|line| line.starts_with("closed")), "{lines:?}");
}

#[tokio::test]
async fn a_stream_of_http_and_sse_stays_until_what_runs_in_it_is_answered() {
    let recorder = Recorder::default();
    let (mut first, second) = two(&recorder).await;
    let key = first.caller().await;
    let mut old = Old::open(&first, &key).await;
    let count = json!({ "name": "slow_count", "arguments": { "steps": 3, "delay_ms": 200 },
        "_meta": { "progressToken": 1 } });
    let id = old.start("tools/call", count).await;
    let progress = old.events.next().await.expect("progress");
    first.begin_stop();
    let last = old.events.rest().await.pop().expect("an answer");
    assert_eq!((&last["id"], &last["result"]["content"][0]["text"]), (&json!(id), &json!("counted to 3")));
    first.stopped().await;

    let back = Old::hello(&second, "/sse").bearer(&key.secret);
    let mut back = Old::connect(&second, back.header("last-event-id", &progress.id.expect("an id"))).await;
    let again = loop {
        let message = back.events.message().await;
        if message.get("id").is_some() {
            break message;
        }
    };
    assert_eq!(again["result"], last["result"], "it is there for who did not read it");
    let lines = recorder.lines();
    assert!(!lines.iter().any(|line| line.starts_with("closed")), "{lines:?}");
}

#[tokio::test]
async fn who_waits_here_for_an_answer_from_elsewhere_goes_on_elsewhere() {
    let (mut first, second) = two(&Recorder::default()).await;
    let key = first.caller().await;
    // The call runs at the second; its stream breaks, and the client comes back to the first.
    let session = Legacy::open(&second, &key, "2025-11-25").await;
    let count = json!({ "steps": 15, "delay_ms": 200 });
    let mut call = session.draft_call("slow_count", &count).progress(json!(1)).stream().await;
    let mut event = call.next().await.expect("progress");
    drop(call);
    let id = event.id.take().expect("an id");
    let mut waiting = session.at(&first).draft_resume(&id).stream().await;
    let mut last = waiting.next().await.expect("progress").id.expect("an id");

    let stopping = std::time::Instant::now();
    first.begin_stop();
    let retry = loop {
        let event = waiting.next_of_any_kind().await.expect("a last word");
        match event.retry {
            Some(retry) => break retry,
            None => last = event.id.expect("an id"),
        }
    };
    assert!(retry < SOON, "{retry}");
    assert_eq!(waiting.next_of_any_kind().await, None);
    first.stopped().await;
    assert!(stopping.elapsed() < Duration::from_secs(2), "{:?}", stopping.elapsed());
    let answer = session.draft_resume(&last).stream().await.rest().await.pop().expect("an answer");
    assert_eq!(answer["result"]["content"][0]["text"], "counted to 15");
}
