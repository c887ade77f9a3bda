//! Events on the wire, and the ids that a client can name one by (HTML standard, "Server-sent events").

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::id::SessionRowId;

/// A stream, within its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamId {
    /// The answer to one POST.
    Reply(u64),
    /// A GET stream.
    Listen(u64),
    /// The one stream of an HTTP+SSE session. Names the session, because the GET that comes back does not.
    Session(SessionRowId),
}

/// An event: the stream that it belongs to and its number there, from 1 on; 0 is before the first.
///
/// The text is `r7-3`, `l7-3` or `ses_…-3`. Ids are no secret and no authority: a stream is looked up in the session that
/// the request may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId {
    /// The stream.
    pub stream: StreamId,
    /// The number.
    pub seq: u64,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(number) => write!(f, "r{number}"),
            Self::Listen(number) => write!(f, "l{number}"),
            Self::Session(row) => write!(f, "{row}"),
        }
    }
}

impl FromStr for StreamId {
    type Err = NotAnEvent;

    fn from_str(text: &str) -> Result<Self, NotAnEvent> {
        if let Ok(row) = text.parse() {
            return Ok(Self::Session(row));
        }
        if let Some(reply) = text.strip_prefix('r') {
            return number(reply).map(Self::Reply);
        }
        number(text.strip_prefix('l').ok_or(NotAnEvent)?).map(Self::Listen)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.stream, self.seq)
    }
}

/// The text is not an event id of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnEvent;

/// A number as we write it: without sign or leading zeros.
fn number(text: &str) -> Result<u64, NotAnEvent> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if !canonical {
        return Err(NotAnEvent);
    }
    text.parse().map_err(|_| NotAnEvent)
}

impl FromStr for EventId {
    type Err = NotAnEvent;

    fn from_str(text: &str) -> Result<Self, NotAnEvent> {
        let (stream, seq) = text.rsplit_once('-').ok_or(NotAnEvent)?;
        let stream = stream.parse()?;
        Ok(Self { stream, seq: number(seq)? })
    }
}

/// One message as an event. JSON holds no raw line breaks inside of strings, so any that stand between its tokens can
/// become spaces.
#[must_use]
pub fn frame(id: Option<EventId>, json: &str) -> Bytes {
    let mut out = String::with_capacity(json.len() + 80);
    if let Some(id) = id {
        out.push_str(&format!("id: {id}\n"));
    }
    push_event(&mut out, "message", json);
    Bytes::from(out)
}

/// What an HTTP+SSE stream begins with: where messages go (2024-11-05 "HTTP with SSE"), an id to come back with, and after
/// how many milliseconds.
#[must_use]
pub fn endpoint(id: EventId, retry_ms: u64, path: &str) -> Bytes {
    let mut out = format!("id: {id}\nretry: {retry_ms}\n");
    push_event(&mut out, "endpoint", path);
    Bytes::from(out)
}

fn push_event(out: &mut String, name: &str, data: &str) {
    out.push_str("event: ");
    out.push_str(name);
    out.push_str("\ndata: ");
    if data.contains(['\n', '\r']) {
        out.push_str(&data.replace(['\n', '\r'], " "));
    } else {
        out.push_str(data);
    }
    out.push_str("\n\n");
}

/// What a stream begins with where its client knows it (2025-11-25 "Sending Messages to the Server", item 6): an id to
/// come back with, and after how many milliseconds.
#[must_use]
pub fn priming(stream: StreamId, retry_ms: u64) -> Bytes {
    let id = EventId { stream, seq: 0 };
    Bytes::from(format!("id: {id}\nretry: {retry_ms}\ndata: \n\n"))
}

/// Tells the client after how many milliseconds to come back; dispatches nothing.
#[must_use]
pub fn retry(retry_ms: u64) -> Bytes {
    Bytes::from(format!("retry: {retry_ms}\n\n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn streams() -> impl Strategy<Value = StreamId> {
        prop_oneof![
            any::<u64>().prop_map(StreamId::Reply),
            any::<u64>().prop_map(StreamId::Listen),
            Just(()).prop_map(|()| StreamId::Session(SessionRowId::new())),
        ]
    }

    proptest! {
        #![proptest_config(crate::fuzz::config(256))]

        #[test]
        fn an_id_reads_back_as_itself(stream in streams(), seq in any::<u64>()) {
            let id = EventId { stream, seq };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn whatever_is_read_is_written_the_same(text in "(r|l|ses_[0-9a-z]{26})?[-+0-9]{0,24}-?[0-9 ]{0,24}|.{0,60}") {
            if let Ok(id) = text.parse::<EventId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn texts_that_are_no_ids() {
        for text in [
            "",
            "-",
            "r-",
            "r1",
            "r1-",
            "r01-1",
            "r1-01",
            "r+1-1",
            "x1-1",
            "r1-18446744073709551616",
            "r1-1 ",
        ] {
            assert_eq!(text.parse::<EventId>(), Err(NotAnEvent), "{text}");
        }
    }

    #[test]
    fn line_breaks_between_tokens_do_not_break_the_event() {
        let id = EventId { stream: StreamId::Reply(1), seq: 2 };
        assert_eq!(&*frame(Some(id), "{\n\"a\":\r1}"), b"id: r1-2\nevent: message\ndata: { \"a\": 1}\n\n");
    }
}
