//! Event streams, as a client reads them (HTML standard, "Server-sent events").

use serde_json::Value;

use super::within;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `event:`.
    pub name: String,
    /// `data:`.
    pub data: String,
    /// `id:`.
    pub id: Option<String>,
    /// `retry:`, in milliseconds.
    pub retry: Option<u64>,
}

impl Event {
    /// What it says, as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).expect("JSON")
    }
}

/// A stream that is being read.
pub struct Events {
    response: reqwest::Response,
    buffer: Vec<u8>,
    /// Comments so far, which are heartbeats.
    pub comments: u32,
}

impl Events {
    /// Reads the body of a response, which must be a stream.
    pub fn of(response: reqwest::Response) -> Self {
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
        assert_eq!((response.status().as_u16(), kind), (200, "text/event-stream"));
        Self { response, buffer: Vec::new(), comments: 0 }
    }

    /// The next event that says something; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let event = self.next_of_any_kind().await?;
            if !event.data.is_empty() {
                return Some(event);
            }
        }
    }

    /// The next event, with those that only prime the client to come back.
    pub async fn next_of_any_kind(&mut self) -> Option<Event> {
        within("an event", self.read()).await.expect("the stream broke")
    }

    /// The same for a stream that may break, and however long it takes.
    pub async fn read(&mut self) -> reqwest::Result<Option<Event>> {
        loop {
            if let Some(block) = self.block() {
                match parse(&block) {
                    Some(event) => return Ok(Some(event)),
                    None => self.comments += 1,
                }
                continue;
            }
            match self.response.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }

    fn block(&mut self) -> Option<String> {
        let end = self.buffer.windows(2).position(|two| two == b"\n\n")?;
        let rest = self.buffer.split_off(end + 2);
        let block = std::mem::replace(&mut self.buffer, rest);
        Some(String::from_utf8(block).expect("UTF-8"))
    }

    /// The JSON-RPC message of the next event.
    pub async fn message(&mut self) -> Value {
        let event = self.next().await.expect("one more event");
        assert_eq!(event.name, "message");
        serde_json::from_str(&event.data).expect("JSON")
    }

    /// Every message until the stream ends.
    pub async fn rest(mut self) -> Vec<Value> {
        let mut messages = Vec::new();
        while let Some(event) = self.next().await {
            messages.push(serde_json::from_str(&event.data).expect("JSON"));
        }
        messages
    }

    /// Waits for the next heartbeat.
    pub async fn heartbeat(&mut self) {
        let before = self.comments;
        within("a heartbeat", async {
            while self.comments == before {
                if let Some(block) = self.block() {
                    assert_eq!(parse(&block), None, "an event instead of a heartbeat");
                    self.comments += 1;
                    continue;
                }
                let chunk = self.response.chunk().await.expect("the stream broke");
                self.buffer.extend_from_slice(&chunk.expect("an open stream"));
            }
        })
        .await;
    }
}

fn parse(block: &str) -> Option<Event> {
    let field = |name: &str| {
        let rest = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(rest.strip_prefix(' ').unwrap_or(rest).to_owned())
    };
    let (data, id) = (field("data"), field("id"));
    let retry = field("retry").map(|text| text.parse().expect("milliseconds"));
    if data.is_none() && id.is_none() && retry.is_none() {
        return None;
    }
    let name = field("event").unwrap_or_else(|| "message".to_owned());
    Some(Event { name, data: data.unwrap_or_default(), id, retry })
}
