//! A stop of one process: no request is lost, and every client is sent elsewhere in the words of its protocol.
//!
//! Each gateway is alone: what a balancer would make of connections that end is not the matter here.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpStream;
use weir::tasks::Tasks;

use crate::support::raw::{self, Line};
use crate::support::{Gateway, Legacy, Modern, PATIENCE, eventually};

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";

async fn draining(gateway: &Gateway) {
    gateway.begin_stop();
    eventually("draining", async || gateway.app.is_draining()).await;
}

#[tokio::test]
async fn http1_clients_are_asked_to_connect_anew_and_lose_nothing() {
    let mut gateway = Gateway::build().alone().set("server.drain_delay_ms", 500).start().await;
    let mut kept = Line::open(gateway.address).await;
    let mut streaming = Line::open(gateway.address).await;
    for line in [&mut kept, &mut streaming] {
        line.send(HEALTH).await;
        let before = line.answer().await;
        assert_eq!((before.status, before.header("connection")), (200, None));
    }
    let session = Legacy::open(&gateway, &gateway.caller().await, "2025-11-25").await;
    streaming.send(session.raw_get().as_bytes()).await;
    streaming.until("retry: 1000").await;

    draining(&gateway).await;
    kept.send(HEALTH).await;
    let last = kept.answer().await;
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert_eq!(kept.rest().await, "");
    let mut new = Line::open(gateway.address).await;
    // The second request of a pipeline is not served, as HTTP has it, and does not destroy the answer to the first.
    new.send(&[HEALTH, HEALTH].concat()).await;
    let answers = new.rest().await;
    assert_eq!(
        (answers.matches("HTTP/1.1 200").count(), answers.matches("connection: close").count()),
        (1, 1)
    );

    // The head of this answer said nothing of an end; what is sent behind it is served.
    streaming.until("\r\n0\r\n\r\n").await;
    assert!(TcpStream::connect(gateway.address).await.is_err(), "listeners close before streams end");
    streaming.send(HEALTH).await;
    let last = streaming.answer().await;
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert_eq!(streaming.rest().await, "");
    gateway.stopped().await;
}

#[tokio::test]
async fn a_request_in_the_moment_of_the_stop_is_answered() {
    let mut gateway = Gateway::build().alone().start().await;
    let mut lines = Vec::new();
    for _ in 0..50 {
        let mut line = Line::open(gateway.address).await;
        line.send(HEALTH).await;
        assert_eq!(line.answer().await.status, 200);
        lines.push(line);
    }
    let silent = Line::open(gateway.address).await;
    gateway.begin_stop();
    for (number, line) in lines.iter_mut().enumerate() {
        if number == 25 {
            eventually("draining", async || gateway.app.tasks.stopping().is_cancelled()).await;
        }
        line.send(HEALTH).await;
    }
    for mut line in lines {
        assert_eq!(line.answer().await.status, 200);
        assert_eq!(line.rest().await, "");
    }
    assert_eq!(silent.rest().await, "");
    gateway.stopped().await;
}

#[tokio::test]
async fn whoever_waits_in_the_queue_is_served() {
    let mut gateway = Gateway::build().alone().set("server.max_connections", 1).start().await;
    let mut first = Line::open(gateway.address).await;
    first.send(HEALTH).await;
    assert_eq!(first.answer().await.status, 200);
    let mut queued = Vec::new();
    for _ in 0..3 {
        let mut line = Line::open(gateway.address).await;
        line.send(HEALTH).await;
        queued.push(line);
    }
    gateway.begin_stop();
    for mut line in queued {
        assert_eq!(line.answer().await.status, 200);
    }
    gateway.stopped().await;
}

/// Comes again and again, each time with a connection and a request of its own, until it is refused. How often it was
/// answered.
fn visit(address: SocketAddr) -> u32 {
    let mut answered = 0;
    // A thread of its own and not a task: it is not to wait for the gateway's turn to run.
    while let Ok(mut stream) = std::net::TcpStream::connect(address) {
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        stream.write_all(HEALTH).expect("sent");
        let mut status = [0; 12];
        stream.read_exact(&mut status).expect("whoever is let in is answered");
        assert_eq!(&status, b"HTTP/1.1 200");
        answered += 1;
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_while_it_stops_is_answered_or_refused() {
    for _ in 0..3 {
        let mut gateway = Gateway::build().alone().start().await;
        let address = gateway.address;
        let visitors: Vec<_> = (0..16).map(|_| tokio::task::spawn_blocking(move || visit(address))).collect();
        let answered = r#"weir_http_requests_total{method="GET",route="/health",status="2xx"}"#;
        eventually("visitors", async || gateway.metric(answered) > 200.0).await;
        gateway.begin_stop();
        let mut visits = 0;
        for visitor in visitors {
            visits += visitor.await.expect("no request is lost");
        }
        gateway.stopped().await;
        assert_eq!(gateway.metric(answered), f64::from(visits));
    }
}

/// Frames of HTTP/2 by hand (RFC 9113 section 4).
mod frames {
    pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    pub const HEADERS: u8 = 1;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const ACK: u8 = 1;
    /// `END_STREAM` and `END_HEADERS`.
    pub const WHOLE: u8 = 5;

    pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// A request for `/health`, in HPACK without a table of its own (RFC 7541 section 6).
    pub fn health(stream: u32) -> Vec<u8> {
        let path: &[u8] = b"\x04\x07/health";
        let authority: &[u8] = b"\x01\x09localhost";
        frame(HEADERS, WHOLE, stream, &[b"\x82\x86", path, authority].concat())
    }
}

/// An HTTP/2 client that does what it is told, when it is told.
struct H2(Line);

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl H2 {
    async fn open(gateway: &Gateway) -> Self {
        let mut line = Line::open(gateway.address).await;
        line.send(&[frames::PREFACE, &frames::frame(frames::SETTINGS, 0, 0, &[])].concat()).await;
        Self(line)
    }

    async fn frame(&mut self) -> Frame {
        let head = self.0.bytes(9).await;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Frame { kind: head[3], flags: head[4], stream, payload: self.0.bytes(length).await }
    }

    /// The next frame of this kind that is no acknowledgement.
    async fn next(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.frame().await;
            let is_ack = matches!(kind, frames::SETTINGS | frames::PING) && frame.flags & frames::ACK != 0;
            if frame.kind == kind && !is_ack {
                return frame;
            }
        }
    }

    async fn get(&mut self, stream: u32) {
        self.0.send(&frames::health(stream)).await;
        assert_eq!(self.next(frames::HEADERS).await.stream, stream);
    }

    /// The last stream that GOAWAY names.
    async fn go_away(&mut self) -> u32 {
        let payload = self.next(frames::GOAWAY).await.payload;
        assert_eq!(payload[4..8], [0; 4], "NO_ERROR");
        u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]])
    }
}

#[tokio::test]
async fn http2_clients_are_sent_away_in_two_steps() {
    let mut gateway = Gateway::build().alone().set("server.drain_delay_ms", 500).start().await;
    let mut client = H2::open(&gateway).await;
    client.get(1).await;
    draining(&gateway).await;
    assert_eq!(client.go_away().await, u32::MAX >> 1, "first a warning");
    let ping = client.next(frames::PING).await;
    // The warning may not have arrived when this was sent.
    client.get(3).await;
    client.0.send(&frames::frame(frames::PING, frames::ACK, 0, &ping.payload)).await;
    assert_eq!(client.go_away().await, 3, "then the end, after what was served");
    client.0.rest().await;

    // Whoever comes now may ask once before it is sent on.
    let mut late = H2::open(&gateway).await;
    late.next(frames::SETTINGS).await;
    late.get(1).await;
    assert_eq!(late.go_away().await, u32::MAX >> 1);
    let ping = late.next(frames::PING).await;
    late.0.send(&frames::frame(frames::PING, frames::ACK, 0, &ping.payload)).await;
    assert_eq!(late.go_away().await, 1);
    late.0.rest().await;

    let mut silent = H2::open(&gateway).await;
    assert_eq!(silent.go_away().await, u32::MAX >> 1);
    drop(silent);
    gateway.stopped().await;
}

#[tokio::test]
async fn modern_clients_lose_no_request_over_http2() {
    let build = Gateway::build().alone().set("server.drain_delay_ms", 300);
    let build = build.set("limits.key.burst", 1_000_000).set("limits.tenant.burst", 1_000_000);
    let mut gateway = build.start().await;
    gateway.http = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().expect("a client");
    let key = gateway.caller().await;
    let called = r#"weir_tool_calls_total{outcome="ok",server="lab",tool="echo"}"#;
    let client = Modern::new(&gateway, &key);
    let tasks = Tasks::new();
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let draft = client.draft_call("echo", &json!({ "text": "x" }));
            tasks.spawn(async move {
                let mut answered = 0;
                while let Some(reply) = draft.clone().unless_refused().await {
                    assert_eq!(reply.tool_text(), "x");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    eventually("calls", async || gateway.metric(called) > 10.0).await;
    gateway.begin_stop();
    let mut answered = 0;
    for caller in callers {
        answered += caller.await.expect("every call that was not refused is answered");
    }
    gateway.stopped().await;
    assert_eq!(gateway.metric(called), f64::from(answered), "none was made twice");
}

#[tokio::test]
async fn a_second_signal_cuts() {
    for delay in [0, 60_000] {
        let mut gateway = Gateway::build().alone().set("server.drain_delay_ms", delay).start().await;
        let client = Modern::new(&gateway, &gateway.caller().await);
        let endless = client.draft_call("hangs", &json!({}));
        let _waiting = gateway.app.tasks.spawn(endless.header("accept", "application/json").open());
        let started = r#"weir_mcp_requests_total{era="modern",method="tools/call"}"#;
        eventually("the call", async || gateway.metric(started) == 1.0).await;
        let stopping = Instant::now();
        draining(&gateway).await;
        gateway.cut();
        gateway.stopped().await;
        assert!(stopping.elapsed() < Duration::from_secs(3), "{:?}", stopping.elapsed());
        assert!(gateway.app.sessions.is_empty());
        assert!(raw::refused(gateway.address).await);
    }
}
