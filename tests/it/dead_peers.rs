//! Peers that are gone without a word, or that stay and take nothing. What the kernel does with a peer that vanished
//! needs a network that loses packets; here peers only stop reading.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::support::modern::VERSION;
use crate::support::{Gateway, Key, Modern, eventually, raw, within};

/// More than all buffers between a server and a client that does not read.
const MUCH: usize = 32 * 1024 * 1024;

async fn gateway() -> Gateway {
    // The least that can be configured.
    Gateway::build().set("server.dead_peer_timeout_ms", 1000).set("mcp.heartbeat_ms", 300).start().await
}

fn big(key: &Key) -> Vec<u8> {
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {
            "name": "big",
            "arguments": { "bytes": MUCH },
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": VERSION,
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    });
    let head = format!(
        "host: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         mcp-protocol-version: {VERSION}\r\nmcp-method: tools/call\r\nmcp-name: big\r\n",
        key.secret
    );
    raw::post("/mcp", &head, body.to_string().as_bytes())
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_cut_off() {
    let gateway = gateway().await;
    let key = gateway.caller().await;
    let before = gateway.app.tasks.running();
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = within("a connection", socket.connect(gateway.address)).await.expect("a connection");
    stream.write_all(&big(&key)).await.expect("a request");
    let running = || gateway.app.tasks.running();
    eventually("the connection", async || running() > before).await;
    eventually("the end of the connection", async || running() == before).await;
    drop(stream);
}

fn http2(gateway: &mut Gateway) {
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge();
    gateway.http = client.build().expect("a client");
}

#[tokio::test]
async fn an_http2_response_that_the_peer_lets_wait_ends_and_no_other_on_its_connection() {
    let mut gateway = gateway().await;
    http2(&mut gateway);
    let key = gateway.caller().await;
    let client = Modern::new(&gateway, &key);
    let (mut events, _) = client.listen(json!({ "toolsListChanged": true })).await;
    let connections = gateway.app.tasks.running();
    let response = client.draft_call("big", &json!({ "bytes": MUCH })).open().await;
    assert_eq!(response.version(), http::Version::HTTP_2);
    // The client answers pings meanwhile; only this response is not read.
    assert_eq!(gateway.app.tasks.running(), connections + 1);
    eventually("the end of the stream", async || gateway.app.tasks.running() == connections).await;
    assert!(within("an error", response.bytes()).await.is_err(), "the response is not whole");
    events.heartbeat().await;
    assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    eventually("the end of its stream", async || gateway.app.tasks.running() == connections).await;
}

#[tokio::test]
async fn a_stream_on_which_nothing_happens_stays() {
    for is_http2 in [false, true] {
        let mut gateway = gateway().await;
        if is_http2 {
            http2(&mut gateway);
        }
        let key = gateway.caller().await;
        let client = Modern::new(&gateway, &key);
        let (mut events, _) = client.listen(json!({ "toolsListChanged": true })).await;
        // More time than a dead peer has.
        for _ in 0..6 {
            events.heartbeat().await;
        }
        gateway.app.bus.notifier("lab".into()).changed(weir::mcp::bus::Changed::Tools);
        assert_eq!(events.message().await["method"], Value::from("notifications/tools/list_changed"));
    }
}
