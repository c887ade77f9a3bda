//! What comes back over a connection, and whether it is an answer that Weir may give.

use serde_json::Value;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{raw, within};

/// An answer; of an event stream as much as its first event.
#[derive(Debug, Default)]
pub struct Answer {
    /// The status; 0 where the connection ended without one.
    pub status: u16,
    head: String,
    body: Vec<u8>,
    /// It answers HEAD: what its head says of a body is not there.
    is_head: bool,
}

impl Answer {
    /// Sends a request and reads the answer.
    pub async fn to(address: std::net::SocketAddr, request: &[u8], is_head: bool) -> Self {
        let mut stream = raw::connect(address).await;
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(request).await;
        let mut answer = within("an answer", Self::read(&mut stream, is_head)).await;
        // A head that was cut in two by damage is two requests, and gets two answers.
        if let Some(Ok(length)) = answer.header("content-length").map(str::parse) {
            answer.body.truncate(length);
        }
        Self { is_head, ..answer }
    }

    async fn read(stream: &mut TcpStream, is_head: bool) -> Self {
        let mut bytes = Vec::new();
        loop {
            let parsed = Self::parse(&bytes);
            if let Some(answer) = &parsed
                && (is_head || answer.is_whole())
            {
                return parsed.unwrap_or_default();
            }
            // A reset after the answer is an end like any other.
            if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                return parsed.unwrap_or_default();
            }
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let status = head.get(9..12)?.parse().ok()?;
        if status < 200 {
            return Self::parse(&bytes[end..]);
        }
        Some(Self { status, head, body: bytes[end..].to_vec(), is_head: false })
    }

    /// A header, in lower case as everything in the head.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    fn is_whole(&self) -> bool {
        match self.header("content-length").map(str::parse::<usize>) {
            Some(length) => self.body.len() >= length.expect("a length"),
            None if self.is_stream() => self.body.windows(2).any(|two| two == b"\n\n"),
            None => self.status == 204,
        }
    }

    fn is_stream(&self) -> bool {
        self.header("content-type").is_some_and(|kind| kind == "text/event-stream")
    }

    /// Whether Weir itself answered, and not the HTTP library for it.
    pub fn is_weirs(&self) -> bool {
        self.header("x-request-id").is_some()
    }

    /// All of it, but for the header that may name the caller's own session.
    pub fn shown(&self) -> String {
        let head = self.head.lines().filter(|line| !line.starts_with("mcp-session-id:"));
        head.chain([String::from_utf8_lossy(&self.body).as_ref()]).collect::<Vec<_>>().join("\n")
    }

    /// Whether this is something that Weir may say to a request with this body.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, asked: &[u8]) -> Result<(), String> {
        if self.status >= 500 {
            return Err(format!("HTTP {}", self.status));
        }
        if !self.is_weirs() {
            // What is no HTTP is refused before Weir sees it, or hung up on.
            return if matches!(self.status, 0 | 400 | 414 | 431) {
                Ok(())
            } else {
                Err("not Weir's".to_owned())
            };
        }
        if self.is_head {
            return if self.body.is_empty() { Ok(()) } else { Err("a body after HEAD".to_owned()) };
        }
        let kind = self.header("content-type").unwrap_or("").split(';').next().unwrap_or("").trim();
        match kind {
            "" if self.body.is_empty() && self.status < 400 => Ok(()),
            "text/event-stream" => self.check_events(),
            "application/json" => check_json(&self.body, asked),
            "application/problem+json" => check_problem(&self.body, self.status),
            other => Err(format!("a body of the type {other:?}")),
        }
    }

    /// Every whole event that carries a message carries a good one. The sizes of chunks stand between events.
    fn check_events(&self) -> Result<(), String> {
        let text = std::str::from_utf8(&self.body).map_err(|e| e.to_string())?;
        let (whole, _) = text.rsplit_once("\n\n").unwrap_or_default();
        whole.split("\n\n").filter(|event| event.contains("event: message\n")).try_for_each(|event| {
            let data = event.lines().find_map(|line| line.strip_prefix("data: "));
            check_message(data.unwrap_or(""), b"")
        })
    }
}

fn check_json(body: &[u8], asked: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(body).map_err(|e| e.to_string())?;
    if let Ok(batch) = serde_json::from_str::<Vec<&RawValue>>(text) {
        return batch.iter().try_for_each(|message| check_message(message.get(), b""));
    }
    let value: Value = serde_json::from_str(text).map_err(|e| format!("{e}: {text}"))?;
    if value.get("jsonrpc").is_some() { check_message(text, asked) } else { Ok(()) }
}

/// A response with either a result or an error, for the id that was asked with or for none.
fn check_message(text: &str, asked: &[u8]) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what}: {text}"));
    let value: Value = serde_json::from_str(text).map_err(|e| format!("{e}: {text}"))?;
    if value["jsonrpc"] != "2.0" {
        return wrong("no JSON-RPC 2.0");
    }
    if value.get("method").is_some() {
        return Ok(());
    }
    match (value.get("result"), value.get("error")) {
        (Some(result), None) if result.is_object() => {}
        (None, Some(error)) if error["code"].is_i64() && error["message"].is_string() => {}
        _ => return wrong("neither a result nor an error"),
    }
    let (answered, asked) = (id_of(text.as_bytes()), id_of(asked));
    if answered.as_deref().is_some_and(|id| id != "null") && asked.is_some() && answered != asked {
        return wrong("the id of nobody's request");
    }
    Ok(())
}

/// The id of a message, exactly as it is written.
fn id_of(text: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct WithId<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
    }
    let text = std::str::from_utf8(text).ok()?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_json::from_str::<WithId<'_>>(text).ok()?.id.map(|raw| raw.get().to_owned())
}

fn check_problem(body: &[u8], status: u16) -> Result<(), String> {
    let problem: Value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let good = problem["status"] == status && problem["code"].is_string() && problem["detail"].is_string();
    if good { Ok(()) } else { Err(format!("no problem details: {problem}")) }
}
