//! Event streams: the parser of the HTML standard, "Server-sent events", as much of it as MCP uses, under a bound.

use std::time::Duration;

use reqwest::Response;

use super::message::{Incoming, MAX_BODY};
use super::trouble::Trouble;

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// Its type; empty is `message`.
    pub(super) name: String,
    /// Its data, lines joined by line feeds.
    pub(super) data: String,
}

/// Bytes in, events out.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    after_return: bool,
    started: bool,
    has_data: bool,
    event: Event,
    ready: std::collections::VecDeque<Event>,
}

impl Parser {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' if self.after_return => {}
                b'\n' | b'\r' => self.end_line(),
                _ => self.line.push(*byte),
            }
            self.after_return = *byte == b'\r';
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let line = if self.started { &line } else { line.trim_start_matches('\u{feff}') };
        self.started = true;
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                self.ready.push_back(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            _ => {}
        }
    }

    pub(super) fn next(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }
}

/// A response that is an event stream.
pub(super) struct EventStream {
    response: Response,
    parser: Parser,
    left: usize,
    limit: Duration,
}

impl EventStream {
    /// `limit` is the time of the run, for the text of an error.
    pub(super) fn new(response: Response, limit: Duration) -> Self {
        Self { response, parser: Parser::default(), left: MAX_BODY, limit }
    }

    /// The next event; none where the stream ended.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Trouble> {
        loop {
            if let Some(event) = self.parser.next() {
                return Ok(Some(event));
            }
            let chunk = self.response.chunk().await.map_err(|e| Trouble::transport(e, self.limit))?;
            let Some(chunk) = chunk else { return Ok(None) };
            self.left = self.left.checked_sub(chunk.len()).ok_or_else(super::message::too_large)?;
            self.parser.feed(&chunk);
        }
    }

    /// The answer to the request of this id, past everything else on the stream.
    pub(super) async fn answer(&mut self, id: u64) -> Result<Incoming, Trouble> {
        self.left = MAX_BODY;
        while let Some(event) = self.next().await? {
            if !matches!(event.name.as_str(), "" | "message") {
                continue;
            }
            let message = serde_json::from_str(&event.data)
                .map_err(|_| Trouble::protocol("an event of the stream is not JSON"))?;
            if let Some(answer) = Incoming::to(id, message) {
                return Ok(answer);
            }
        }
        Err(Trouble::new("the event stream ended before the answer", "does a proxy cut streams?"))
    }
}
