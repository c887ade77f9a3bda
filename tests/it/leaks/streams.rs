//! The ways in which a stream breaks: in the middle, unread, left for good, and after coming back.

use super::ways::{INITIALIZE, call, open, say, wait};
use super::world::World;
use crate::support::raw::Line;

/// Opens a GET stream and reads its head.
async fn listen(world: &World, line: Line, session: &str) -> Line {
    read_on(world, line, session, "").await
}

/// Reads a stream on after the event of this id.
async fn read_on(world: &World, mut line: Line, session: &str, last: &str) -> Line {
    let last = if last.is_empty() { String::new() } else { format!("last-event-id: {last}\r\n") };
    line.send(&world.request("GET /mcp", Some(session), &last, "")).await;
    let head = line.until("\r\n\r\n").await;
    assert!(head.contains("text/event-stream"), "{head}");
    line
}

pub async fn dies_listening(world: &World) {
    let mut line = world.line().await;
    let session = open(world, &mut line).await;
    listen(world, line, &session).await.break_off();
}

pub async fn dies_listening_thrice(world: &World) {
    let mut line = world.line().await;
    let session = open(world, &mut line).await;
    let mut open = vec![listen(world, line, &session).await];
    for _ in 0..2 {
        open.push(listen(world, world.line().await, &session).await);
    }
    open.into_iter().for_each(Line::break_off);
}

/// What it does not read comes from its like, too: all subscribe to the same long URI, and soon the server is stuck.
pub async fn never_listens(world: &World) {
    let mut line = world.line().await;
    let session = open(world, &mut line).await;
    let uri = format!("lab://notes/{}", "n".repeat(1500));
    let subscribe =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{{"uri":"{uri}"}}}}"#);
    say(world, &mut line, Some(&session), &subscribe).await;
    let stream = listen(world, Line::narrow(world.gateway.address).await, &session).await;
    let notify = call("notify", &format!(r#"{{"what":"{uri}","mine":true}}"#));
    say(world, &mut line, Some(&session), &notify).await;
    drop(stream);
    line.break_off();
}

/// The id of the next event.
async fn event_id(stream: &mut Line) -> String {
    stream.until("\nid: ").await;
    stream.until("\n").await.trim_end().to_owned()
}

pub async fn is_told_while_away(world: &World) {
    let mut line = world.line().await;
    let session = open(world, &mut line).await;
    let mut stream = listen(world, world.line().await, &session).await;
    let last = event_id(&mut stream).await;
    stream.break_off();
    say(world, &mut line, Some(&session), &call("notify", r#"{"what":"tools","mine":true}"#)).await;
    let mut stream = read_on(world, world.line().await, &session, &last).await;
    stream.until("list_changed").await;
    stream.break_off();
    say(world, &mut line, Some(&session), &call("notify", r#"{"what":"prompts","mine":true}"#)).await;
}

pub async fn dies_in_a_stream(world: &World) {
    let mut line = world.line().await;
    let session = open(world, &mut line).await;
    let (ticket, _told) = world.gate.ticket();
    line.send(&world.request("POST /mcp", Some(&session), "", &wait(ticket, true))).await;
    line.until("notifications/progress").await;
    line.break_off();
}

pub async fn dies_reading_on(world: &World) {
    let mut line = world.line().await;
    let session = open(world, &mut line).await;
    let (ticket, _told) = world.gate.ticket();
    line.send(&world.request("POST /mcp", Some(&session), "", &wait(ticket, true))).await;
    let last = event_id(&mut line).await;
    line.until("notifications/progress").await;
    line.break_off();
    for _ in 0..2 {
        let mut line = read_on(world, world.line().await, &session, &last).await;
        line.until("notifications/progress").await;
        line.break_off();
    }
}

/// More is said than the session may keep.
pub async fn leaves_a_full_log(world: &World) {
    let mut line = world.line().await;
    let session = open(world, &mut line).await;
    line.send(&world.request("POST /mcp", Some(&session), "", &call("talks", r#"{"messages":150}"#))).await;
    line.until("notifications/message").await;
    line.break_off();
}

pub async fn never_answers(world: &World) {
    let mut line = world.line().await;
    let session = open(world, &mut line).await;
    line.send(&world.request("POST /mcp", Some(&session), "", &call("asks", r#"{"topic":"tea"}"#))).await;
    line.until("elicitation/create").await;
    line.break_off();
}

/// Opens an HTTP+SSE stream, initializes and reads the answer. Says where messages go.
async fn connect(world: &World) -> (Line, Line, String) {
    let (mut stream, mut line) = (world.line().await, world.line().await);
    stream.send(&world.request("GET /sse", None, "", "")).await;
    stream.until("event: endpoint\ndata: ").await;
    let endpoint = stream.until("\n").await.trim_end().to_owned();
    post(world, &mut line, &endpoint, INITIALIZE).await;
    stream.until("protocolVersion").await;
    (stream, line, endpoint)
}

async fn post(world: &World, line: &mut Line, endpoint: &str, body: &str) {
    line.send(&world.request(&format!("POST {endpoint}"), None, "", body)).await;
    let reply = line.answer().await;
    assert_eq!(reply.status, 202, "{}", reply.text);
}

pub async fn dies_over_sse(world: &World) {
    let (stream, line, _) = connect(world).await;
    stream.break_off();
    line.break_off();
}

pub async fn dies_in_a_call_over_sse(world: &World) {
    let (stream, mut line, endpoint) = connect(world).await;
    let (ticket, told) = world.gate.ticket();
    post(world, &mut line, &endpoint, &wait(ticket, true)).await;
    told.await.expect("the call runs");
    stream.break_off();
    line.break_off();
}

pub async fn dies_again_over_sse(world: &World) {
    let (mut stream, mut line, endpoint) = connect(world).await;
    post(world, &mut line, &endpoint, &call("echo", r#"{"text":"x"}"#)).await;
    let last = event_id(&mut stream).await;
    stream.break_off();
    let mut again = world.line().await;
    again.send(&world.request("GET /sse", None, &format!("last-event-id: {last}\r\n"), "")).await;
    again.until("text/event-stream").await;
    again.break_off();
    line.break_off();
}

pub async fn never_answers_over_sse(world: &World) {
    let (mut stream, mut line, endpoint) = connect(world).await;
    post(world, &mut line, &endpoint, &call("asks", r#"{"topic":"tea"}"#)).await;
    stream.until("elicitation/create").await;
    stream.break_off();
    line.break_off();
}
