//! Texts that open something, damaged: none but the exact text does.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use weir::mcp::feed::EventId;

use super::answer::Answer;
use super::damage::{config, damaged, damages};
use super::start;
use crate::support::legacy::Old;
use crate::support::{Gateway, Key, Legacy, Modern};

/// Damaged texts of each kind.
const CASES: u32 = 300;

/// Texts that differ from this one.
fn others(text: &str) -> Vec<Vec<u8>> {
    let mut runner = TestRunner::new(config(CASES));
    let damages = damages(3);
    (0..runner.config().cases)
        .map(|_| damaged(text.as_bytes(), &damages.new_tree(&mut runner).expect("a case").current()))
        .filter(|damaged| damaged != text.as_bytes())
        .collect()
}

/// The same, as far as they are text.
fn other_texts(text: &str) -> Vec<String> {
    others(text).into_iter().filter_map(|bytes| String::from_utf8(bytes).ok()).collect()
}

/// Those that stand in one header line as they are.
fn other_values(text: &str) -> Vec<Vec<u8>> {
    let fits = |bytes: &Vec<u8>| !bytes.iter().any(|b| b.is_ascii_control());
    others(text).into_iter().filter(fits).filter(|bytes| bytes.trim_ascii() != text.as_bytes()).collect()
}

/// Sends a head of these lines with a ping, and says what came back.
async fn ping(gateway: &Gateway, target: &[u8], lines: &[&[u8]]) -> Answer {
    let body = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let framing = format!(
        "host: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let mut request = [b"POST ", target, b" HTTP/1.1\r\n"].concat();
    for line in lines {
        request.extend_from_slice(&[line, &b"\r\n"[..]].concat());
    }
    request.extend_from_slice(&[framing.as_bytes(), body].concat());
    Answer::to(gateway.address, &request, false).await
}

fn bearer(key: &Key) -> Vec<u8> {
    format!("authorization: Bearer {}", key.secret).into_bytes()
}

#[tokio::test]
async fn a_damaged_cursor_or_state_is_refused() {
    let gateway = start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let page = client.send("tools/list", json!({})).await;
    let cursor = page.result()["nextCursor"].as_str().expect("a second page").to_owned();
    for text in other_texts(&cursor) {
        let reply = client.send("tools/list", json!({ "cursor": text })).await;
        assert_eq!(reply.error(), (200, -32602), "{text:?} opened {}", reply.text);
    }
    let asked = client.call("asks", json!({ "topic": "tea" })).await;
    let state = asked.result()["requestState"].as_str().expect("a state").to_owned();
    let retry = |state: &str| {
        let draft = client.draft_call("asks", &json!({ "topic": "tea" }));
        draft.set("/params/requestState", json!(state))
    };
    for text in other_texts(&state) {
        let reply = retry(&text).send().await;
        assert_eq!(reply.error(), (200, -32602), "{text:?} opened {}", reply.text);
    }
    let good = retry(&state).send().await;
    assert_eq!(good.status, 200);
    assert_eq!(client.send("tools/list", json!({ "cursor": cursor })).await.status, 200);
}

#[tokio::test]
async fn a_state_opens_for_its_own_arguments_only() {
    let gateway = start().await;
    let client = Modern::new(&gateway, &gateway.caller().await);
    let asked = client.call("asks", json!({ "topic": "tea" })).await;
    let state = asked.result()["requestState"].clone();
    let answer = json!({ "opinion": { "action": "accept", "content": { "opinion": "good" } } });
    let retry = async |topic: &str| {
        let draft = client.draft_call("asks", &json!({ "topic": topic }));
        let draft = draft.set("/params/requestState", state.clone());
        draft.set("/params/inputResponses", answer.clone()).send().await
    };
    for topic in other_texts("tea") {
        let reply = retry(&topic).await;
        assert_eq!(reply.error(), (200, -32602), "{topic:?}: {}", reply.text);
    }
    let said: Value = serde_json::from_str(retry("tea").await.tool_text()).expect("JSON");
    assert_eq!(said["state"], json!({ "topic": "tea", "round": 1 }));
}

#[tokio::test]
async fn a_damaged_session_id_is_no_session() {
    let gateway = start().await;
    let key = gateway.caller().await;
    let session = Legacy::open(&gateway, &key, "2025-11-25").await;
    let old = Old::open(&gateway, &key).await;
    let authority = bearer(&key);
    let named = |id: &[u8]| [b"mcp-session-id: ", id].concat();
    for id in other_values(&session.id) {
        let answer = ping(&gateway, b"/mcp", &[&authority, &named(&id)]).await;
        assert!(matches!(answer.status, 400 | 404), "{}: {answer:?}", String::from_utf8_lossy(&id));
    }
    assert_eq!(ping(&gateway, b"/mcp", &[&authority, &named(session.id.as_bytes())]).await.status, 200);
    let post = async |id: &[u8]| ping(&gateway, &[b"/messages?sessionId=", id].concat(), &[]).await.status;
    for id in other_values(old.id()) {
        // A fragment is not sent, and further parameters are not looked at.
        let id: Vec<u8> =
            id.into_iter().map(|b| if matches!(b, b'#' | b'&' | b' ') { b'!' } else { b }).collect();
        let status = post(&id).await;
        assert!(matches!(status, 400 | 404), "{status} for {}", String::from_utf8_lossy(&id));
    }
    assert_eq!(post(old.id().as_bytes()).await, 202);
}

#[tokio::test]
async fn a_damaged_token_is_nobody() {
    let gateway = start().await;
    let key = gateway.caller().await;
    let token = gateway.url_token(key.tenant).await;
    for secret in other_values(&key.secret) {
        let line = [b"authorization: Bearer ", &secret[..]].concat();
        let answer = ping(&gateway, b"/mcp", &[&line]).await;
        assert_eq!(answer.status, 401, "{}", String::from_utf8_lossy(&secret));
    }
    for secret in other_values(&token.secret) {
        let secret: Vec<u8> =
            secret.into_iter().map(|b| if matches!(b, b'#' | b'&' | b' ') { b'!' } else { b }).collect();
        let answer = ping(&gateway, &[b"/mcp?token=", &secret[..]].concat(), &[]).await;
        assert!(matches!(answer.status, 400 | 401), "{}", String::from_utf8_lossy(&secret));
    }
    // An API key is not for URLs, and what stands twice is not looked at.
    let query = |text: String| text.into_bytes();
    for (target, status) in [
        (query(format!("/mcp?token={}", key.secret)), 401),
        (query(format!("/mcp?token={0}&token={0}", token.secret)), 401),
        (query(format!("/mcp?TOKEN={}", token.secret)), 401),
        (query(format!("/mcp?%74oken={}", token.secret)), 401),
        (query(format!("/mcp?a;token={}", token.secret)), 401),
        (query(format!("/mcp?a=b&token={}&", token.secret.replace('_', "%5f"))), 200),
    ] {
        assert_eq!(ping(&gateway, &target, &[]).await.status, status, "{}", String::from_utf8_lossy(&target));
    }
}

#[tokio::test]
async fn a_damaged_event_id_is_read_as_it_stands_or_refused() {
    let gateway = start().await;
    let key = gateway.caller().await;
    let session = Legacy::open(&gateway, &key, "2025-11-25").await;
    for good in ["r1-0", "l18446744073709551615-18446744073709551615", "ses_01k9999999e0r8fzzzzzzzzzzz-7"] {
        let id = good.parse::<EventId>().expect("an id of ours");
        assert_eq!(id.to_string(), good);
        for text in other_texts(good) {
            // Whatever is read at all is written the same, so no other text names the same event.
            let read = text.parse::<EventId>().map(|id| id.to_string());
            assert!(read.is_err() || read.as_deref() == Ok(&*text), "{text:?}");
        }
    }
    for id in other_values("r1-0") {
        let line = [b"last-event-id: ", &id[..]].concat();
        let lines = [bearer(&key), line, format!("mcp-session-id: {}", session.id).into_bytes()];
        let request = [
            b"GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\nconnection: close\r\n",
            &lines.join(&b"\r\n"[..])[..],
            b"\r\n\r\n",
        ];
        let answer = Answer::to(gateway.address, &request.concat(), false).await;
        let text = std::str::from_utf8(&id).unwrap_or("\u{e9}").trim();
        // A stream is opened for no id at all, and for that of a listening stream which is no longer kept.
        let opens = text.is_empty() || text.parse::<EventId>().is_ok() && text.starts_with('l');
        assert_eq!(answer.status == 200, opens, "{text:?}: {answer:?}");
        assert!(matches!(answer.status, 200 | 400), "{text:?}: {answer:?}");
    }
}
