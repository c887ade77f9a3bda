//! The impolite ways of leaving. Each opens at least one session (but for the two that do not come so far), and none
//! sends a DELETE. Those in which a stream breaks stand in `streams`.

use futures_util::future::BoxFuture;

use super::streams;
use super::world::World;
use crate::support::raw::Line;

/// A way: its name, how many clients go it in one round, and how.
pub type Way = (&'static str, usize, for<'a> fn(&'a World) -> BoxFuture<'a, ()>);

/// Clients of most ways.
const MANY: usize = 100;
/// Clients of the ways that make much to do.
const FEW: usize = 50;

/// All of them.
pub const WAYS: [Way; 20] = [
    ("forgets its session", MANY, |w| Box::pin(forgets(w))),
    ("initializes before every call", MANY, |w| Box::pin(storms(w))),
    ("dies in a call", MANY, |w| Box::pin(dies_in_a_call(w))),
    ("never reads an answer", FEW, |w| Box::pin(never_reads(w))),
    ("dies in a body", MANY, |w| Box::pin(dies_in_a_body(w))),
    ("dies in a head", MANY, |w| Box::pin(dies_in_a_head(w))),
    ("dies in initialize", MANY, |w| Box::pin(dies_in_initialize(w))),
    ("says nothing", MANY, |w| Box::pin(says_nothing(w))),
    ("dies in its GET stream", MANY, |w| Box::pin(streams::dies_listening(w))),
    ("dies in three GET streams", MANY, |w| Box::pin(streams::dies_listening_thrice(w))),
    ("never reads its GET stream", FEW, |w| Box::pin(streams::never_listens(w))),
    ("is told things while it is away", MANY, |w| Box::pin(streams::is_told_while_away(w))),
    ("dies in the stream of a call", MANY, |w| Box::pin(streams::dies_in_a_stream(w))),
    ("dies again where it reads on", MANY, |w| Box::pin(streams::dies_reading_on(w))),
    ("leaves when much was said", FEW, |w| Box::pin(streams::leaves_a_full_log(w))),
    ("never answers a question", MANY, |w| Box::pin(streams::never_answers(w))),
    ("dies over HTTP+SSE", MANY, |w| Box::pin(streams::dies_over_sse(w))),
    ("dies in a call over HTTP+SSE", MANY, |w| Box::pin(streams::dies_in_a_call_over_sse(w))),
    ("dies again over HTTP+SSE", MANY, |w| Box::pin(streams::dies_again_over_sse(w))),
    ("never answers a question over HTTP+SSE", MANY, |w| Box::pin(streams::never_answers_over_sse(w))),
];

/// `initialize` of a client that can be asked anything.
pub const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25",
"capabilities":{"roots":{},"sampling":{},"elicitation":{}},"clientInfo":{"name":"rude","version":"1"}}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

/// A tool call.
pub fn call(tool: &str, arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
    )
}

/// A call that waits, and reports that it does where it is asked to.
pub fn wait(ticket: u64, progress: bool) -> String {
    let meta = if progress { r#","_meta":{"progressToken":1}"# } else { "" };
    let arguments = format!(r#"{{"ticket":{ticket}}}{meta}"#);
    call("waits", &arguments)
}

/// Sends a message to `/mcp` and reads its answer.
pub async fn say(world: &World, line: &mut Line, session: Option<&str>, body: &str) -> String {
    line.send(&world.request("POST /mcp", session, "", body)).await;
    let reply = line.answer().await;
    assert!(matches!(reply.status, 200 | 202), "{body}: {}", reply.text);
    reply.text
}

/// Opens a session and says its id.
pub async fn open(world: &World, line: &mut Line) -> String {
    line.send(&world.request("POST /mcp", None, "", INITIALIZE)).await;
    let reply = line.answer().await;
    reply.header("mcp-session-id").unwrap_or_else(|| panic!("no session: {}", reply.text)).to_owned()
}

async fn forgets(world: &World) {
    let mut line = world.line().await;
    let session = open(world, &mut line).await;
    say(world, &mut line, Some(&session), INITIALIZED).await;
    say(world, &mut line, Some(&session), PING).await;
}

async fn storms(world: &World) {
    let mut line = world.line().await;
    for _ in 0..6 {
        open(world, &mut line).await;
        say(world, &mut line, None, &call("echo", r#"{"text":"x"}"#)).await;
    }
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
