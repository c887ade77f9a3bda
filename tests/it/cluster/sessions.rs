//! Legacy sessions: any message of any session at any replica.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{GONE, LOST};
use crate::support::cluster::Cluster;
use crate::support::door::Door;
use crate::support::events::Event;
use crate::support::legacy::Old;
use crate::support::tools::NOTE;
use crate::support::{Draft, Events, Key, Legacy, eventually};

/// What one replica may take to act on what another was told.
const PROMPT: Duration = Duration::from_millis(100);
/// How often that is measured. What counts is the median: a busy machine is no slow cluster.
const ROUNDS: usize = 7;

/// Times by what took them.
#[derive(Default)]
struct Took(std::collections::BTreeMap<&'static str, Vec<Duration>>);

impl Took {
    fn note(&mut self, what: &'static str, since: Instant) {
        self.0.entry(what).or_default().push(since.elapsed());
    }

    fn was_prompt(mut self) {
        for (what, times) in &mut self.0 {
            times.sort();
            assert!(times[times.len() / 2] <= PROMPT, "{what} took {times:?}");
        }
    }
}

/// A client that can be asked, in a session opened at this replica.
async fn able(door: &Door, key: &Key) -> Legacy {
    let able = json!({ "elicitation": { "form": {} }, "roots": {} });
    Legacy::open_with(door, key, "2025-11-25", able).await
}

/// A count that reports its progress and, at this pace, does not end by itself.
fn endless(session: &Legacy, id: &Value) -> Draft {
    let count = session.draft_call("slow_count", &json!({ "steps": 1000, "delay_ms": 1000 }));
    count.progress(json!("p")).set("/id", id.clone())
}

fn count(session: &Legacy, steps: u32, delay_ms: u32) -> Draft {
    session.draft_call("slow_count", &json!({ "steps": steps, "delay_ms": delay_ms })).progress(json!("p"))
}

fn id(event: &Event) -> String {
    event.id.clone().expect("an id")
}

/// The messages of a stream until it ends.
async fn every(events: Events) -> Vec<Value> {
    events.rest().await
}

fn steps(said: &[Value]) -> Vec<i64> {
    said.iter().filter_map(|message| message["params"]["progress"].as_i64()).collect()
}

/// The text of an answer's result, or the code of its error.
fn answer(message: &Value) -> Result<&str, i64> {
    match message["error"]["code"].as_i64() {
        Some(code) => Err(code),
        None => Ok(message["result"]["content"][0]["text"].as_str().unwrap_or("")),
    }
}

async fn is_gone_everywhere(cluster: &Cluster, session: &Legacy) {
    for door in cluster.doors() {
        assert_eq!(session.at(&door).send("ping", json!({})).await.error(), GONE, "{door:?}");
    }
}

#[tokio::test]
async fn every_message_may_go_to_another_replica() {
    let cluster = Cluster::build().replicas(5).start().await;
    let [a, b, c, d, e] = cluster.doors().try_into().expect("five replicas");
    let key = cluster.caller().await;
    let mut took = Took::default();
    for round in 1..=ROUNDS {
        let session = able(&a, &key).await;
        let mut stream = session.at(&b).stream().await;
        stream.next_of_any_kind().await.expect("an event to come back to");

        let mut asking = session.draft_call("asks", &json!({ "topic": "tea" })).stream().await;
        let question = asking.message().await;
        assert_eq!(question["method"], "elicitation/create");
        let (since, given) =
            (Instant::now(), json!({ "action": "accept", "content": { "opinion": "warm" } }));
        assert_eq!(session.at(&c).answer(&question, "result", given).await.status, 202);
        let last = asking.message().await;
        took.note("an answer to a question", since);
        assert!(answer(&last).expect("a result").contains("warm"), "{last}");

        let number = json!(format!("count {round}"));
        let mut counting = endless(&session, &number).stream().await;
        counting.message().await;
        let (since, cancel) = (Instant::now(), json!({ "requestId": number }));
        let noted = session.at(&d).notify("notifications/cancelled", cancel).await;
        assert_eq!(noted.status, 202);
        assert_eq!(counting.next().await, None, "a cancelled call has no answer");
        took.note("a cancellation", since);
        let cancelled = session.call("slow_count_cancelled", json!({ "at_least": round })).await;
        assert_eq!(cancelled.tool_text(), round.to_string());

        let since = Instant::now();
        session.at(&c).call("notify", json!({ "what": "tools" })).await.result();
        assert_eq!(stream.message().await["method"], "notifications/tools/list_changed");
        took.note("a change", since);

        let since = Instant::now();
        assert_eq!(session.at(&e).draft_delete().send().await.status, 204);
        assert_eq!(stream.next().await, None);
        took.note("an end", since);
        is_gone_everywhere(&cluster, &session).await;
    }
    took.was_prompt();
}

#[tokio::test]
async fn what_a_session_settles_at_one_replica_holds_at_the_next() {
    let cluster = Cluster::start().await;
    let [a, b, c] = cluster.doors().try_into().expect("three replicas");
    let key = cluster.caller().await;
    let session = Legacy::open(&a, &key, "2025-11-25").await;
    let heard = async |at: &Door| {
        let said = session.at(at).call("talks", json!({ "messages": 1 })).await;
        said.messages.len() - 1
    };
    for (level, set, told, messages) in
        [("emergency", &a, &b, 0), ("debug", &b, &c, 4), ("error", &c, &a, 1), ("info", &a, &c, 3)]
    {
        session.at(set).send("logging/setLevel", json!({ "level": level })).await.result();
        assert_eq!(heard(told).await, messages, "{level}");
    }

    let mut stream = session.at(&b).stream().await;
    let note = json!({ "uri": NOTE });
    session.at(&c).send("resources/subscribe", note.clone()).await.result();
    session.at(&a).call("notify", json!({ "what": NOTE })).await.result();
    assert_eq!(stream.message().await["params"]["uri"], NOTE);
    session.at(&a).send("resources/unsubscribe", note).await.result();
    for what in [NOTE, "tools"] {
        session.at(&c).call("notify", json!({ "what": what })).await.result();
    }
    assert_eq!(stream.message().await["method"], "notifications/tools/list_changed");

    let again = Legacy::hello(&b, &key, "2025-03-26").header("mcp-session-id", &session.id).send().await;
    assert_eq!(again.header("mcp-session-id"), Some(session.id.as_str()));
    let batch = json!([{ "jsonrpc": "2.0", "id": 1, "method": "ping" }]);
    let batch = session.at(&c).message(batch).without("mcp-protocol-version").send().await;
    assert_eq!(batch.json()[0]["result"], json!({}), "the older revision, which has batches, was agreed on");
}

#[tokio::test]
async fn a_stream_is_read_on_at_another_replica() {
    let cluster = Cluster::start().await;
    let [a, b, c] = cluster.doors().try_into().expect("three replicas");
    let session = Legacy::open(&a, &cluster.caller().await, "2025-11-25").await;

    // After the call has ended.
    let mut events = count(&session, 4, 20).stream().await;
    let priming = events.next_of_any_kind().await.expect("an event");
    let first = events.next().await.expect("progress");
    drop(events);
    let ended = r#"weir_tool_calls_total{outcome="ok",server="lab",tool="slow_count"}"#;
    eventually("the end of the call", async || cluster.metric(0, ended).await == 1.0).await;
    let rest = every(session.at(&b).draft_resume(&id(&first)).stream().await).await;
    assert_eq!((steps(&rest), answer(&rest[3])), (vec![2, 3, 4], Ok("counted to 4")));
    let again = every(session.at(&c).draft_resume(&id(&priming)).stream().await).await;
    assert_eq!(steps(&again), [1, 2, 3, 4], "all of it, for whoever got nothing");

    // While it runs on the first; the newest connection is served.
    let mut events = count(&session, 8, 50).stream().await;
    let first = events.next().await.expect("progress");
    let mut second = session.at(&b).draft_resume(&id(&first)).stream().await;
    assert_eq!(second.message().await["params"]["progress"], 2);
    let mut last = second.next().await.expect("progress");
    let third = session.at(&c).draft_resume(&id(&last)).stream().await;
    let rest = every(third).await;
    assert_eq!((steps(&rest), answer(&rest[5])), (vec![4, 5, 6, 7, 8], Ok("counted to 8")));
    // What the older ones were told before they ended is a beginning of the same.
    let mut seen = 3;
    while let Some(event) = second.next().await {
        seen += 1;
        last = event;
        assert_eq!(last.json()["params"]["progress"], seen, "an older connection that is told on");
    }
}

#[tokio::test]
async fn a_question_that_nobody_read_is_read_and_answered_elsewhere() {
    let cluster = Cluster::start().await;
    let [a, b, c] = cluster.doors().try_into().expect("three replicas");
    let session = able(&a, &cluster.caller().await).await;
    let mut events = session.draft_call("asks_when_told", &json!({})).progress(json!(1)).stream().await;
    let first = events.next().await.expect("progress");
    drop(events);
    let open = r#"weir_streams_open{kind="response"}"#;
    eventually("the end of the stream", async || cluster.metric(0, open).await == 0.0).await;
    session.call("notify", json!({ "what": crate::support::tools::GO })).await.result();
    let mut resumed = session.at(&b).draft_resume(&id(&first)).stream().await;
    let question = resumed.message().await;
    assert_eq!(question["method"], "roots/list");
    session.at(&c).answer(&question, "result", json!({ "roots": [] })).await;
    assert_eq!(answer(&resumed.message().await), Ok("heard"));
}

#[tokio::test]
async fn what_a_replica_said_before_it_was_killed_is_kept() {
    let mut cluster = Cluster::start().await;
    let [a, b, c] = cluster.doors().try_into().expect("three replicas");
    let key = cluster.caller().await;
    let (left, moved) =
        (Legacy::open(&a, &key, "2025-11-25").await, Legacy::open(&b, &key, "2025-11-25").await);

    // One call is left by its client, another is read on elsewhere when its replica dies.
    let mut events = count(&left, 1000, 50).set("/id", json!("left")).stream().await;
    let priming = events.next_of_any_kind().await.expect("an event");
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(events.next().await.expect("progress"));
    }
    let mut beginning = count(&moved.at(&a), 1000, 50).set("/id", json!("moved")).stream().await;
    let first = beginning.next().await.expect("progress");
    let mut rest = moved.at(&b).draft_resume(&id(&first)).stream().await;
    assert_eq!(rest.message().await["params"]["progress"], 2);
    drop((events, beginning));
    cluster.kill(0).await;

    let said = every(left.at(&c).draft_resume(&id(&priming)).stream().await).await;
    let (last, progress) = said.split_last().expect("an answer");
    assert_eq!((&last["id"], answer(last)), (&json!("left"), Err(LOST)), "{last}");
    assert_eq!(steps(progress)[..3], [1, 2, 3]);
    assert_eq!(steps(progress), (1..=progress.len() as i64).collect::<Vec<_>>());
    let said = every(left.at(&b).draft_resume(&id(&seen[2])).stream().await).await;
    assert_eq!((steps(&said).first(), said.len()), (progress.get(3).map(|_| &4), progress.len() - 2));

    let last = rest.rest().await.pop().expect("an answer");
    assert_eq!((&last["id"], answer(&last)), (&json!("moved"), Err(LOST)), "{last}");
    // The sessions themselves lost nothing.
    for session in [&left, &moved] {
        assert_eq!(session.at(&c).call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    }
}

#[tokio::test]
async fn http_and_sse_messages_may_go_to_any_replica() {
    let cluster = Cluster::start().await;
    let [a, b, c] = cluster.doors().try_into().expect("three replicas");
    let key = cluster.caller().await;
    let mut old = Old::open(&a, &key).await;
    let mut took = Took::default();
    for number in 100..100 + ROUNDS {
        for door in [&b, &c] {
            let since = Instant::now();
            let ping = json!({ "jsonrpc": "2.0", "id": number, "method": "ping" });
            assert_eq!(old.post_at(door, ping).send().await.status, 202);
            assert_eq!(old.events.message().await["id"], number);
            took.note("an answer on the stream that another replica holds", since);
        }
    }
    let call = json!({ "jsonrpc": "2.0", "id": "count", "method": "tools/call", "params": {
        "name": "slow_count", "arguments": { "steps": 1000, "delay_ms": 1000 }, "_meta": { "progressToken": 1 } } });
    assert_eq!(old.post_at(&b, call).send().await.status, 202);
    assert_eq!(old.events.message().await["params"]["progress"], 1);
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": { "requestId": "count" } });
    assert_eq!(old.post_at(&c, cancel).send().await.status, 202);
    let asked = json!({ "jsonrpc": "2.0", "id": "asked", "method": "tools/call", "params": {
        "name": "slow_count_cancelled", "arguments": { "at_least": 1 } } });
    assert_eq!(old.post_at(&b, asked).send().await.status, 202);
    let last = old.events.message().await;
    assert_eq!((&last["id"], answer(&last)), (&json!("asked"), Ok("1")));
    took.was_prompt();
}

#[tokio::test]
async fn an_http_and_sse_client_goes_on_when_the_replica_of_its_stream_dies() {
    let mut cluster = Cluster::start().await;
    let [a, b, c] = cluster.doors().try_into().expect("three replicas");
    let key = cluster.caller().await;
    let mut old = Old::open(&a, &key).await;
    let call = |id: &str, steps: u32, delay_ms: u32| {
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": "slow_count",
            "arguments": { "steps": steps, "delay_ms": delay_ms }, "_meta": { "progressToken": id } } })
    };
    // One call runs where the stream is, another elsewhere.
    assert_eq!(old.post_at(&a, call("dies", 1000, 60_000)).send().await.status, 202);
    let event = old.events.next().await.expect("progress");
    assert_eq!(event.json()["params"]["progressToken"], "dies");
    assert_eq!(old.post_at(&b, call("lives", 40, 50)).send().await.status, 202);
    let last = old.events.next().await.expect("progress");
    assert_eq!(last.json()["params"]["progressToken"], "lives");
    let endpoint = old.endpoint.clone();
    cluster.kill(0).await;

    let hello = Old::hello(&c, "/sse").bearer(&key.secret).header("last-event-id", &id(&last));
    let mut back = Old::connect(&c, hello).await;
    assert_eq!(back.endpoint, endpoint, "the same session");
    let (mut progress, mut answers) = (Vec::new(), std::collections::BTreeMap::new());
    while answers.len() < 2 {
        let message = back.events.message().await;
        match message["id"].as_str() {
            Some(id) => drop(answers.insert(id.to_owned(), answer(&message).map(str::to_owned))),
            None => progress.push(message),
        }
    }
    assert_eq!(answers["lives"], Ok("counted to 40".to_owned()));
    assert_eq!(answers["dies"], Err(LOST));
    // What the dead one had told, and could not say that it had, is told again.
    let mut told = steps(&progress);
    told.dedup();
    assert_eq!(told.strip_prefix(&[1]).unwrap_or(&told), (2..=40).collect::<Vec<_>>(), "nothing is missing");
    let ping = json!({ "jsonrpc": "2.0", "id": "ping", "method": "ping" });
    assert_eq!(back.post_at(&b, ping).send().await.status, 202);
    assert_eq!(back.events.message().await["id"], "ping");
}

#[tokio::test]
async fn a_change_is_told_once_on_the_newest_stream_wherever_it_is() {
    let mut cluster = Cluster::start().await;
    let [a, b, c] = cluster.doors().try_into().expect("three replicas");
    let session = Legacy::open(&a, &cluster.caller().await, "2025-11-25").await;
    let mut first = session.stream().await;
    first.next_of_any_kind().await.expect("an event");
    let mut second = session.at(&b).stream().await;
    second.next_of_any_kind().await.expect("an event");
    let methods = ["tools", "prompts", "resources"];
    let told = async |events: &mut Events| {
        for what in methods {
            let method = format!("notifications/{what}/list_changed");
            assert_eq!(events.message().await["method"], method);
        }
    };
    let change = async |at: &Door, what: &str| {
        session.at(at).call("notify", json!({ "what": what })).await.result();
    };
    for (what, at) in methods.iter().zip([&a, &b, &c]) {
        change(at, what).await;
    }
    told(&mut second).await;
    // When it ends, the one before it is the newest.
    drop(second);
    let open = r#"weir_streams_open{kind="session"}"#;
    eventually("the end of the stream", async || cluster.metric(1, open).await == 0.0).await;
    for what in methods {
        change(&c, what).await;
    }
    told(&mut first).await;
    drop(first);
    eventually("the end of the stream", async || cluster.metric(0, open).await == 0.0).await;
    // What nobody reads waits for the next stream, also when the replica of the last one has died.
    let mut third = session.at(&b).stream().await;
    third.next_of_any_kind().await.expect("an event");
    change(&c, "tools").await;
    let last = third.next().await.expect("a change");
    drop(third);
    cluster.kill(1).await;
    change(&c, "prompts").await;
    let mut fourth = session.at(&c).draft_resume(&id(&last)).stream().await;
    // Nobody knows any more what the dead one told; so it may be told that other things have changed, too.
    let mut told = Vec::new();
    while !told.iter().any(|method| method == "notifications/prompts/list_changed") {
        let method = fourth.message().await["method"].as_str().expect("a method").to_owned();
        assert!(method.ends_with("/list_changed"), "{method}");
        told.push(method);
    }
    session.at(&c).draft_delete().send().await;
    for method in fourth.rest().await {
        told.push(method["method"].to_string());
    }
    assert!(told.len() <= 3, "{told:?}");
}

#[tokio::test]
async fn a_session_is_its_openers_at_every_replica() {
    let cluster = Cluster::start().await;
    let owner = cluster.caller().await;
    let others = [cluster.caller().await, cluster.key(&owner).await];
    let [a, b, _] = cluster.doors().try_into().expect("three replicas");
    let session = Legacy::open(&a, &owner, "2025-11-25").await;
    let mut events = count(&session, 1, 1).stream().await;
    let last = id(&events.next().await.expect("progress"));
    let mut old = Old::open(&b, &owner).await;
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    assert_eq!(old.post(ping.clone()).send().await.status, 202);
    let told = id(&old.events.next().await.expect("an answer"));
    for (door, other) in cluster.doors().iter().flat_map(|door| others.iter().map(move |o| (door, o))) {
        let stolen = session.stolen_by(other).at(door);
        let cancel = json!({ "requestId": 1 });
        let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": {} });
        for reply in [
            stolen.send("ping", json!({})).await,
            stolen.notify("notifications/cancelled", cancel).await,
            stolen.message(answer).send().await,
            stolen.draft_get().send().await,
            stolen.draft_resume(&last).send().await,
            stolen.draft_delete().send().await,
            old.post_at(door, ping.clone()).bearer(&other.secret).send().await,
        ] {
            assert_eq!(reply.error(), GONE, "{}", reply.text);
        }
        let hello = Old::hello(door, "/sse").bearer(&other.secret).header("last-event-id", &told);
        assert_ne!(Old::connect(door, hello).await.endpoint, old.endpoint, "a session of its own");
    }
    for door in cluster.doors() {
        assert_eq!(session.at(&door).send("ping", json!({})).await.status, 200, "it is still there");
        assert_eq!(old.post_at(&door, ping.clone()).send().await.status, 202);
        assert_eq!(old.events.message().await["id"], 1);
    }
}
