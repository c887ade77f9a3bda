//! HTTP/1.1 by hand: requests as bytes made once, and no more reading of answers than their length needs.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Largest answer that is understood, in bytes.
const BUFFER: usize = 256 * 1024;

/// A request of this method to `/mcp` or another path, with the headers that an MCP client sends.
pub fn request(method: &str, path: &str, key: &str, extra: &str, body: &str) -> Bytes {
    let length = body.len();
    Bytes::from(format!(
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: front_door\r\nauthorization: Bearer {key}\r\n\
         accept: application/json, text/event-stream\r\ncontent-type: application/json\r\n{extra}\
         content-length: {length}\r\n\r\n{body}"
    ))
}

/// A `tools/call` as 2026-07-28 writes it.
pub fn call(key: &str, tool: &str, arguments: &str, meta: &str) -> Bytes {
    let extra = format!("mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: {tool}\r\n");
    let body = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"{tool}\",\
         \"arguments\":{arguments},\"_meta\":{{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\
         \"io.modelcontextprotocol/clientInfo\":{{\"name\":\"front_door\",\"version\":\"1\"}},\
         \"io.modelcontextprotocol/clientCapabilities\":{{}}{meta}}}}}}}"
    );
    request("POST", "/mcp", key, &extra, &body)
}

/// A connection and what was read from it.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    /// Length of the head of the last answer.
    head: usize,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; BUFFER], filled: 0, head: 0 })
    }

    /// Sends a request and reads its answer: the status, and where in the buffer the body is.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, &[u8])> {
        self.filled = 0;
        self.stream.write_all(request).await?;
        let head = loop {
            self.fill().await?;
            if let Some(end) = find(&self.buffer[..self.filled], b"\r\n\r\n") {
                break end + 4;
            }
        };
        let (status, length) = understand(&self.buffer[..head]).ok_or(io::ErrorKind::InvalidData)?;
        while self.filled < head + length {
            self.fill().await?;
        }
        self.head = head;
        Ok((status, &self.buffer[head..head + length]))
    }

    /// A header of the last answer, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let head = std::str::from_utf8(&self.buffer[..self.head]).ok()?;
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// Sends a request and reads until the answer holds `text`. What was read is dropped, the stream stays open.
    pub async fn until(mut self, request: &[u8], text: &[u8]) -> io::Result<TcpStream> {
        self.filled = 0;
        self.stream.write_all(request).await?;
        while find(&self.buffer[..self.filled], text).is_none() {
            self.fill().await?;
        }
        Ok(self.stream)
    }

    async fn fill(&mut self) -> io::Result<()> {
        let room = self.buffer.get_mut(self.filled..).filter(|room| !room.is_empty());
        let read = self.stream.read(room.ok_or(io::ErrorKind::FileTooLarge)?).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.filled += read;
        Ok(())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// The status and `content-length` of a head; both servers write header names in lower case.
fn understand(head: &[u8]) -> Option<(u16, usize)> {
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.trim().parse().ok();
    let status: usize = number(head.get(9..12)?)?;
    let rest = &head[find(head, b"content-length:")? + 15..];
    let length = number(&rest[..find(rest, b"\r\n")?])?;
    Some((u16::try_from(status).ok()?, length))
}
