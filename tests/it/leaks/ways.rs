//! The impolite ways of leaving. Each opens at least one session (but for the two that do not come so far), and none
//! sends a DELETE.

use futures_util::future::BoxFuture;

use super::world::World;
use crate::support::raw::Line;

/// A way, by its name.
pub type Way = (&'static str, for<'a> fn(&'a World) -> BoxFuture<'a, ()>);

/// All of them.
pub const WAYS: [Way; 14] = [
    ("forgets its session", |w| Box::pin(forgets(w))),
    ("initializes before every call", |w| Box::pin(storms(w))),
    ("dies in its GET stream", |w| Box::pin(dies_listening(w))),
    ("dies in three GET streams", |w| Box::pin(dies_listening_thrice(w))),
    ("never reads its GET stream", |w| Box::pin(never_listens(w))),
    ("dies in the stream of a call", |w| Box::pin(dies_in_a_stream(w))),
    ("dies in a call", |w| Box::pin(dies_in_a_call(w))),
    ("never reads an answer", |w| Box::pin(never_reads(w))),
    ("dies in a body", |w| Box::pin(dies_in_a_body(w))),
    ("dies in a head", |w| Box::pin(dies_in_a_head(w))),
    ("dies in initialize", |w| Box::pin(dies_in_initialize(w))),
    ("says nothing", |w| Box::pin(says_nothing(w))),
    ("dies over HTTP+SSE", |w| Box::pin(dies_over_sse(w))),
    ("dies in a call over HTTP+SSE", |w| Box::pin(dies_in_a_call_over_sse(w))),
];

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25",
"capabilities":{"roots":{},"sampling":{},"elicitation":{}},"clientInfo":{"name":"rude","version":"1"}}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

fn call(tool: &str, arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
    )
}

/// A call that waits, and reports that it does where it is asked to.
fn wait(ticket: u64, progress: bool) -> String {
    let meta = if progress { r#","_meta":{"progressToken":1}"# } else { "" };
    let arguments = format!(r#"{{"ticket":{ticket}}}{meta}"#);
    call("waits", &arguments)
}

/// Sends a message to `/mcp` and reads its answer.
async fn say(world: &World, line: &mut Line, session: Option<&str>, body: &str) -> String {
    line.send(&world.request("POST /mcp", session, "", body)).await;
    let reply = line.answer().await;
    assert!(matches!(reply.status, 200 | 202), "{body}: {}", reply.text);
    reply.text
}

/// Opens a session and says its id.
async fn open(world: &World, line: &mut Line) -> String {
    line.send(&world.request("POST /mcp", None, "", INITIALIZE)).await;
    let reply = line.answer().await;
    reply.header("mcp-session-id").unwrap_or_else(|| panic!("no session: {}", reply.text)).to_owned()
}

/// Opens a GET stream and reads its head.
async fn listen(world: &World, mut line: Line, session: &str) -> Line {
    line.send(&world.request("GET /mcp", Some(session), "", "")).await;
    let head = line.until("\r\n\r\n").await;
    assert!(head.contains("text/event-stream"), "{head}");
    line
}

async fn forgets(world: &World) {
    let mut line = world.line().await;
    let session = open(world, &mut line).await;
    say(world, &mut line, Some(&session), INITIALIZED).await;
    say(world, &mut line, Some(&session), PING).await;
}

async fn storms(world: &World) {
    let mut line = world.line().await;
    for _ in 0..3 {
        open(world, &mut line).await;
        say(world, &mut line, None, &call("echo", r#"{"text":"x"}"#)).await;
    }
    line.break_off();
}

async fn dies_listening(world: &World) {
    let mut line = world.line().await;
    let session = open(world, &mut line).await;
    listen(world, line, &session).await.break_off();
}

async fn dies_listening_thrice(world: &World) {
    let mut line = world.line().await;
    let session = open(world, &mut line).await;
    let mut open = vec![listen(world, line, &session).await];
    for _ in 0..2 {
        open.push(listen(world, world.line().await, &session).await);
    }
    open.into_iter().for_each(Line::break_off);
}

/// What it does not read comes from its like, too: all subscribe to the same long URI, and soon the server is stuck.
async fn never_listens(world: &World) {
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

async fn dies_in_a_stream(world: &World) {
    let mut line = world.line().await;
    let session = open(world, &mut line).await;
    let (ticket, _told) = world.gate.ticket();
    line.send(&world.request("POST /mcp", Some(&session), "", &wait(ticket, true))).await;
    line.until("notifications/progress").await;
    line.break_off();
}

async fn dies_in_a_call(world: &World) {
    let mut line = world.line().await;
    let session = open(world, &mut line).await;
    let (ticket, told) = world.gate.ticket();
    line.send(&world.request("POST /mcp", Some(&session), "", &wait(ticket, false))).await;
    told.await.expect("the call runs");
    line.break_off();
}

async fn never_reads(world: &World) {
    let mut line = Line::narrow(world.gateway.address).await;
    let session = open(world, &mut line).await;
    line.send(&world.request("POST /mcp", Some(&session), "", &call("big", r#"{"bytes":50000}"#))).await;
    line.until("xxx").await;
    drop(line);
}

async fn dies_in_a_body(world: &World) {
    let mut line = world.line().await;
    let session = open(world, &mut line).await;
    let request = world.request("POST /mcp", Some(&session), "", &call("echo", r#"{"text":"never told"}"#));
    line.send(&request[..request.len() - 20]).await;
    line.break_off();
}

async fn dies_in_a_head(world: &World) {
    let mut line = world.line().await;
    let session = open(world, &mut line).await;
    let request = world.request("POST /mcp", Some(&session), "", PING);
    line.send(&request[..request.len() / 2]).await;
    drop(line);
}

async fn dies_in_initialize(world: &World) {
    let mut line = world.line().await;
    let request = world.request("POST /mcp", None, "", INITIALIZE);
    line.send(&request[..request.len() - 1]).await;
    line.break_off();
}

async fn says_nothing(world: &World) {
    world.line().await.break_off();
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

async fn dies_over_sse(world: &World) {
    let (stream, line, _) = connect(world).await;
    stream.break_off();
    line.break_off();
}

async fn dies_in_a_call_over_sse(world: &World) {
    let (stream, mut line, endpoint) = connect(world).await;
    let (ticket, told) = world.gate.ticket();
    post(world, &mut line, &endpoint, &wait(ticket, true)).await;
    told.await.expect("the call runs");
    stream.break_off();
    line.break_off();
}
