//! HTTP by hand, for what no client library would send.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

/// What came back.
pub struct RawReply {
    /// The status; 0 where the connection was closed without an answer.
    pub status: u16,
    /// All of it.
    pub text: String,
}

impl RawReply {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, text }
    }

    /// What stands after the head, where it is JSON.
    pub fn json(&self) -> serde_json::Value {
        let body = self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or(serde_json::Value::Null)
    }
}

/// A connection.
pub async fn connect(address: SocketAddr) -> TcpStream {
    within("a connection", TcpStream::connect(address)).await.expect("a connection")
}

/// Reads until the server closes the connection.
pub async fn read_to_end(stream: &mut TcpStream) -> RawReply {
    let mut bytes = Vec::new();
    let read = within("the end of a connection", stream.read_to_end(&mut bytes)).await;
    // A reset after the answer is an end like any other: the server need not read what it refused.
    assert!(read.is_ok() || !bytes.is_empty(), "the connection broke: {read:?}");
    RawReply::parse(&bytes)
}

/// Sends bytes as they are and reads until the connection is closed; `bytes` should ask for that.
pub async fn send(address: SocketAddr, bytes: &[u8]) -> RawReply {
    let mut stream = connect(address).await;
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(bytes).await;
    read_to_end(&mut stream).await
}

/// A POST with this head (without the lines that frame it) and this body.
pub fn post(path: &str, head: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\n{head}content-length: {length}\r\nconnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}
