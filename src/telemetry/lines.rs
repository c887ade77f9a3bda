//! Log lines as JSON objects, written straight into the line.
//!
//! The formatter of `tracing-subscriber` keeps the fields of a span as JSON text, and parses and writes that text again
//! for every event inside the span and every field that is added later. Here it is copied. The lines have the same
//! members in the same order: `timestamp`, `level`, the event's fields, `target`, and `spans` from the root inwards.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber, span};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes an event as one line.
#[derive(Debug)]
pub(super) struct Lines;

/// Writes the fields of a span as members of a JSON object, without its braces.
#[derive(Debug)]
pub(super) struct Members;

impl<S> FormatEvent<S, Members> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, Members>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        out.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut out)?;
        out.write_str("\",\"level\":\"")?;
        out.write_str(metadata.level().as_str())?;
        out.write_char('"')?;
        let mut fields = Object { out: out.by_ref(), is_first: false, outcome: Ok(()) };
        event.record(&mut fields);
        fields.outcome?;
        out.write_str(",\"target\":")?;
        string(&mut out, metadata.target())?;
        if let Some(scope) = context.event_scope() {
            out.write_str(",\"spans\":[")?;
            for (place, span) in scope.from_root().enumerate() {
                out.write_str(if place == 0 { "{" } else { ",{" })?;
                if let Some(fields) = span.extensions().get::<FormattedFields<Members>>()
                    && !fields.is_empty()
                {
                    out.write_str(fields)?;
                    out.write_char(',')?;
                }
                out.write_str("\"name\":")?;
                string(&mut out, span.name())?;
                out.write_char('}')?;
            }
            out.write_char(']')?;
        }
        out.write_str("}\n")
    }
}

impl<'w> FormatFields<'w> for Members {
    fn format_fields<R: RecordFields>(&self, out: Writer<'w>, fields: R) -> fmt::Result {
        let mut object = Object { out, is_first: true, outcome: Ok(()) };
        fields.record(&mut object);
        object.outcome
    }

    fn add_fields(&self, current: &'w mut FormattedFields<Self>, fields: &span::Record<'_>) -> fmt::Result {
        let is_first = current.fields.is_empty();
        let mut object = Object { out: current.as_writer(), is_first, outcome: Ok(()) };
        fields.record(&mut object);
        object.outcome
    }
}

/// The members of an object, on their way out.
struct Object<'w> {
    out: Writer<'w>,
    is_first: bool,
    outcome: fmt::Result,
}

impl Object<'_> {
    fn member(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        let separator = if std::mem::replace(&mut self.is_first, false) { "" } else { "," };
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        let written = self
            .out
            .write_str(separator)
            .and_then(|()| string(&mut self.out, name))
            .and_then(|()| self.out.write_char(':'))
            .and_then(|()| value(&mut self.out));
        self.outcome = self.outcome.and(written);
    }
}

impl Visit for Object<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.member(
            field,
            |out| if value.is_finite() { write!(out, "{value}") } else { out.write_str("null") },
        );
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, |out| write!(out, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |out| write!(out, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, |out| out.write_str(if value { "true" } else { "false" }));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, |out| string(out, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field, |out| {
            out.write_char('"')?;
            write!(Escaped(&mut *out), "{value:?}")?;
            out.write_char('"')
        });
    }
}

/// A text as a JSON string.
fn string(out: &mut Writer<'_>, text: &str) -> fmt::Result {
    out.write_char('"')?;
    Escaped(&mut *out).write_str(text)?;
    out.write_char('"')
}

/// The inside of a JSON string (RFC 8259 section 7).
struct Escaped<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|b| b < b' ' || b == b'"' || b == b'\\') {
            self.0.write_str(&rest[..at])?;
            match rest.as_bytes()[at] {
                b'"' => self.0.write_str("\\\"")?,
                b'\\' => self.0.write_str("\\\\")?,
                b'\n' => self.0.write_str("\\n")?,
                control => write!(self.0, "\\u{control:04x}")?,
            }
            rest = &rest[at + 1..];
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::json;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(log: impl FnOnce()) -> String {
        let lines = Written::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer()
            .fmt_fields(Members)
            .event_format(Lines)
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let bytes = lines.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn a_line_is_one_object_whatever_it_holds() {
        let hostile = "a \"b\"\\ \n\r\u{1}\u{7f} é 世";
        let text = written(|| {
            let span = tracing::info_span!("outer", hostile, late = tracing::field::Empty, r#type = 1_u64);
            span.record("late", tracing::field::display(hostile));
            let _outer = span.entered();
            let _inner = tracing::info_span!("inner").entered();
            tracing::warn!(target: "a::b", whole = -7, float = 0.5, none = f64::NAN, yes = true, %hostile, "said \"{hostile}\"");
        });
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let mut line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let when = line["timestamp"].take();
        assert!(when.as_str().is_some_and(|when| when.ends_with('Z')), "{when}");
        assert_eq!(
            line,
            json!({
                "timestamp": null, "level": "WARN", "target": "a::b",
                "message": format!("said \"{hostile}\""), "hostile": hostile,
                "whole": -7, "float": 0.5, "none": null, "yes": true,
                "spans": [
                    { "name": "outer", "hostile": hostile, "late": hostile, "type": 1 },
                    { "name": "inner" },
                ],
            })
        );
    }

    #[test]
    fn lines_outside_of_spans_and_spans_without_fields_are_whole() {
        let text = written(|| {
            tracing::info!("first");
            let span = tracing::info_span!("bare", late = tracing::field::Empty);
            let _bare = span.enter();
            tracing::info!("second");
            span.record("late", 1);
            tracing::info!("third");
        });
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines[0].get("spans"), None);
        assert_eq!(lines[1]["spans"], json!([{ "name": "bare" }]));
        assert_eq!(lines[2]["spans"], json!([{ "name": "bare", "late": 1 }]));
    }
}
