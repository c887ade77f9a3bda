//! Requests of every era, damaged, at a running gateway: each gets an answer that is one, none breaks anything, and none
//! is told a secret.

mod answer;
mod corpus;
#[path = "../../../src/fuzz.rs"]
mod damage;
mod secrets;

use std::sync::atomic::Ordering;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use crate::support::panics::count_panics;
use crate::support::{Gateway, Legacy, Modern};
use answer::Answer;
use corpus::{Corpus, People, Sample, corpus};
use damage::{Damage, config, damaged, damages};

/// Requests in one run.
const CASES: u32 = 4000;
/// Requests until sessions, cursors and states are made anew.
const FRESH: usize = 100;

const METHODS: [&str; 10] =
    ["GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH", "TRACE", "CONNECT", "post"];

/// Headers that decide something.
const HEADERS: [(&str, &str); 26] = [
    ("accept", "application/json"),
    ("accept", "text/event-stream"),
    ("accept", "*/*;q=0"),
    ("accept", ""),
    ("content-type", "text/plain"),
    ("content-type", "application/json; charset=utf-16"),
    ("content-encoding", "gzip"),
    ("transfer-encoding", "chunked"),
    ("expect", "100-continue"),
    ("upgrade", "h2c"),
    ("host", "evil.example.com"),
    ("origin", "https://evil.example.com"),
    ("mcp-protocol-version", "2024-11-05"),
    ("mcp-protocol-version", "2025-03-26"),
    ("mcp-protocol-version", "2025-11-25"),
    ("mcp-protocol-version", "2026-07-28"),
    ("mcp-protocol-version", "1999-01-01"),
    ("mcp-session-id", "stale"),
    ("mcp-method", "tools/call"),
    ("mcp-name", "=?base64?ZWNobw==?="),
    ("mcp-param-region", "=?base64?!?="),
    ("last-event-id", "r1-0"),
    ("last-event-id", "l18446744073709551615-18446744073709551615"),
    ("last-event-id", "ses_00000000000000000000000000-0"),
    ("authorization", "Basic d2Vpcjp3ZWly"),
    ("traceparent", "00-00000000000000000000000000000000-0000000000000000-ff"),
];

/// One change to a head.
#[derive(Debug, Clone)]
enum Change {
    Method(&'static str),
    Target(Vec<Damage>),
    Drop(Index),
    Twice(Index),
    Name(Index, Vec<Damage>),
    Value(Index, Vec<Damage>),
    Add((&'static str, &'static str)),
}

/// One change to a body.
#[derive(Debug, Clone)]
enum Rewrite {
    Bytes(Vec<Damage>),
    /// Another value in the place of the one of this number.
    Json(Index, Value),
    /// The body of another sample.
    Of(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<Index>;
    prop_oneof![
        1 => select(&METHODS[..]).prop_map(Change::Method),
        2 => damages(2).prop_map(Change::Target),
        2 => place().prop_map(Change::Drop),
        1 => place().prop_map(Change::Twice),
        1 => (place(), damages(1)).prop_map(|(at, damages)| Change::Name(at, damages)),
        3 => (place(), damages(2)).prop_map(|(at, damages)| Change::Value(at, damages)),
        3 => select(&HEADERS[..]).prop_map(Change::Add),
    ]
}

fn nasty_json() -> impl Strategy<Value = Value> {
    let deep = (0..70).fold(Value::Null, |inner, _| Value::from(vec![inner]));
    prop_oneof![
        select(vec![
            Value::Null,
            true.into(),
            0.into(),
            (-1).into(),
            1.5.into(),
            u64::MAX.into(),
            "".into(),
            "\0\u{1b}[2J\u{202e}".into(),
            "../../etc/passwd".into(),
            "%s%n' or 1=1 --".into(),
            Value::Array(Vec::new()),
            serde_json::json!({}),
            serde_json::json!({ "__proto__": { "a": 1 } }),
            deep,
        ]),
        "[a-z/_-]{0,12}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        (1_usize..3000).prop_map(|length| "x".repeat(length).into()),
    ]
}

fn rewrite() -> impl Strategy<Value = Rewrite> {
    prop_oneof![
        4 => damages(3).prop_map(Rewrite::Bytes),
        5 => (any::<Index>(), nasty_json()).prop_map(|(at, value)| Rewrite::Json(at, value)),
        1 => any::<Index>().prop_map(Rewrite::Of),
    ]
}

/// Values of a document, itself among them, counted in order.
fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(nodes).sum(),
        Value::Object(fields) => fields.values().map(nodes).sum(),
        _ => 0,
    }
}

/// The value of this number, to be replaced.
fn node<'a>(value: &'a mut Value, number: &mut usize) -> Option<&'a mut Value> {
    if *number == 0 {
        return Some(value);
    }
    *number -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| node(item, number)),
        Value::Object(fields) => fields.values_mut().find_map(|field| node(field, number)),
        _ => None,
    }
}

fn rewritten(body: &[u8], rewrite: &Rewrite, samples: &[Sample]) -> Vec<u8> {
    match rewrite {
        Rewrite::Bytes(damages) => damaged(body, damages),
        Rewrite::Of(index) => samples[index.index(samples.len())].body.clone(),
        Rewrite::Json(at, new) => {
            let Ok(mut document) = serde_json::from_slice::<Value>(body) else { return body.to_vec() };
            let mut number = at.index(nodes(&document));
            if let Some(place) = node(&mut document, &mut number) {
                *place = new.clone();
            }
            document.to_string().into_bytes()
        }
    }
}

fn apply(sample: &mut Sample, change: &Change) {
    let headers = &mut sample.headers;
    match change {
        Change::Method(method) => sample.method = method.as_bytes().to_vec(),
        Change::Target(damages) => sample.target = damaged(&sample.target, damages),
        Change::Add((name, value)) => {
            headers.retain(|(other, _)| other != name.as_bytes());
            headers.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
        _ if headers.is_empty() => {}
        Change::Drop(at) => {
            headers.remove(at.index(headers.len()));
        }
        Change::Twice(at) => headers.push(headers[at.index(headers.len())].clone()),
        Change::Name(at, damages) => {
            let at = at.index(headers.len());
            headers[at].0 = damaged(&headers[at].0, damages);
        }
        Change::Value(at, damages) => {
            let at = at.index(headers.len());
            headers[at].1 = damaged(&headers[at].1, damages);
        }
    }
}

/// A sample and what is to be done to it.
type Case = (Index, Vec<Change>, Option<Rewrite>);

fn case() -> impl Strategy<Value = Case> {
    (any::<Index>(), vec(change(), 0..3), proptest::option::weighted(0.7, rewrite()))
}

async fn start() -> Gateway {
    let mut builder = Gateway::build()
        .set("mcp.page_size", 5)
        // Streams that say nothing are heard of soon, and nobody answers questions.
        .set("mcp.heartbeat_ms", 20)
        .set("mcp.input_timeout_ms", 50)
        .set("server.body_read_timeout_ms", 100)
        .set("server.header_read_timeout_ms", 1000);
    for rate in ["tenant.per_second", "tenant.burst", "key.per_second", "key.burst", "tenant.concurrency"] {
        builder = builder.set(&format!("limits.{rate}"), "100000");
    }
    for places in ["sessions", "streams"] {
        builder = builder.set(&format!("limits.tenant.{places}"), "100000");
    }
    builder.start().await
}

/// A piece in the middle of each secret, which no error has any reason to hold.
fn pieces(corpus: &Corpus) -> Vec<String> {
    corpus.secrets.iter().map(|secret| secret[8..32].to_lowercase()).collect()
}

#[tokio::test]
async fn damaged_requests_are_answered_and_break_nothing() {
    let gateway = start().await;
    let people = People::of(&gateway).await;
    let panics = count_panics();
    let mut runner = TestRunner::new(config(CASES));
    let (cases, mut statuses) = (case(), std::collections::BTreeMap::new());
    let mut corpus = corpus(&gateway, &people).await;
    let mut secrets = pieces(&corpus);
    for number in 0..runner.config().cases as usize {
        if number % FRESH == FRESH - 1 {
            corpus = self::corpus(&gateway, &people).await;
            secrets = pieces(&corpus);
        }
        let (index, changes, rewrite) = cases.new_tree(&mut runner).expect("a case").current();
        let mut sample = corpus.samples[index.index(corpus.samples.len())].clone();
        changes.iter().for_each(|change| apply(&mut sample, change));
        if let Some(rewrite) = &rewrite {
            sample.body = rewritten(&sample.body, rewrite, &corpus.samples);
        }
        let request = sample.bytes();
        let answer = Answer::to(gateway.address, &request, sample.method == b"HEAD").await;
        let told = secrets.iter().find(|piece| answer.shown().contains(*piece));
        let wrong = match told {
            Some(piece) => Err(format!("{piece} was told")),
            None => answer.check(&sample.body),
        };
        let shown = || String::from_utf8_lossy(&request).into_owned();
        assert_eq!(wrong, Ok(()), "case {number}\n{}\n--- was answered with\n{}", shown(), answer.shown());
        assert_eq!(panics.load(Ordering::Relaxed), 0, "case {number} panicked\n{}", shown());
        *statuses.entry(answer.status).or_insert(0_u32) += 1;
    }
    eprintln!("{statuses:?}");
    // Nothing is shown by requests that all fail at the door.
    let of = |status: u16| statuses.get(&status).copied().unwrap_or(0);
    assert!(of(200) * 4 > runner.config().cases, "too few went through: {statuses:?}");
    assert!([202, 400, 401, 404, 405, 406, 415].iter().all(|status| of(*status) > 0), "{statuses:?}");
    let client = Modern::new(&gateway, people.key());
    assert_eq!(client.call("echo", serde_json::json!({ "text": "well" })).await.tool_text(), "well");
    let session = Legacy::open(&gateway, people.key(), "2025-11-25").await;
    assert_eq!(session.send("ping", serde_json::json!({})).await.status, 200);
}
