//! HTTP by hand, for what no client library would send.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

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

    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let head = self.text.split_once("\r\n\r\n").map_or(self.text.as_str(), |(head, _)| head);
        let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim)
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

/// Whether nobody listens there.
pub async fn refused(address: SocketAddr) -> bool {
    within("a connection or none", TcpStream::connect(address)).await.is_err()
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

/// Whether anybody answers there: a balancer takes a connection before it knows.
pub async fn is_served(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    let request = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut answer = Vec::new();
    let exchange = async {
        stream.write_all(request).await?;
        stream.read_to_end(&mut answer).await
    };
    let _ = within("an answer or the end", exchange).await;
    !answer.is_empty()
}

/// A POST with this head (without the lines that frame it) and this body.
pub fn post(path: &str, head: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\n{head}content-length: {length}\r\nconnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Bytes that a [`Line::narrow`] lets the server send ahead; the kernel doubles and bounds it as it likes.
const NARROW: u32 = 4096;

/// A connection that is kept, and that can be broken off at any moment.
pub struct Line {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Line {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Self {
        Self { stream: connect(address).await, read: Vec::new() }
    }

    /// Connects with so little room for what comes that a server whose client does not read is soon stuck.
    pub async fn narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(NARROW).expect("a small buffer");
        let stream = within("a connection", socket.connect(address)).await.expect("a connection");
        Self { stream, read: Vec::new() }
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        within("room to write", self.stream.write_all(bytes)).await.expect("sent");
    }

    async fn more(&mut self) {
        let read =
            within("more bytes", self.stream.read_buf(&mut self.read)).await.expect("an open connection");
        assert_ne!(read, 0, "the connection ended after {:?}", String::from_utf8_lossy(&self.read));
    }

    /// Reads up to and including `text`.
    pub async fn until(&mut self, text: &str) -> String {
        loop {
            let found = self.read.windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(at) = found {
                let rest = self.read.split_off(at + text.len());
                return String::from_utf8(std::mem::replace(&mut self.read, rest)).expect("UTF-8");
            }
            self.more().await;
        }
    }

    /// Reads one answer that says how long it is.
    pub async fn answer(&mut self) -> RawReply {
        let mut bytes = self.until("\r\n\r\n").await.into_bytes();
        let reply = RawReply::parse(&bytes);
        let length: usize = reply.header("content-length").unwrap_or("0").parse().expect("a length");
        while self.read.len() < length {
            self.more().await;
        }
        bytes.extend(self.read.drain(..length));
        RawReply::parse(&bytes)
    }

    /// Reads until the server closes the connection, which must not break. What came before that.
    pub async fn rest(mut self) -> String {
        let read = within("the end of a connection", self.stream.read_to_end(&mut self.read)).await;
        read.expect("an end, and no reset");
        String::from_utf8(self.read).expect("UTF-8")
    }

    /// Reads so many bytes.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            self.more().await;
        }
        self.read.drain(..count).collect()
    }

    /// Ends the connection with a reset, as the death of a process that has not read everything does.
    pub fn break_off(self) {
        self.stream.set_zero_linger().expect("an option");
    }
}
