//! Logs: one line per event, for humans or as JSON.

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use super::TelemetryError;
use super::lines::{Lines, Members};

/// The layer that writes log lines. Each carries the fields of its spans, and so the request's id.
pub(super) fn layer<S, W>(
    filter: &str,
    json: bool,
    colours: bool,
    writer: W,
) -> Result<Box<dyn Layer<S> + Send + Sync>, TelemetryError>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse(filter)?;
    Ok(if json {
        let lines = fmt::layer().fmt_fields(Members).event_format(Lines);
        lines.with_writer(writer).with_filter(filter).boxed()
    } else {
        fmt::layer().with_ansi(colours).with_writer(writer).with_filter(filter).boxed()
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use crate::config::{Layers, LogFormat};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, filter: &str, terminal: bool) -> String {
        let mut config = Layers::default().load().expect("the defaults are good");
        config.log.format = format;
        config.log.filter = filter.to_owned();
        let lines = Lines::default();
        let writer = {
            let lines = lines.clone();
            move || lines.clone()
        };
        let (subscriber, _guard) =
            crate::telemetry::subscriber(&config.log, &config.otel, writer, terminal).expect("telemetry");
        tracing::subscriber::with_default(subscriber, || {
            let _request = tracing::info_span!("request", request_id = "req_1").entered();
            let _call = tracing::info_span!("call").entered();
            tracing::info!(status = 200, "answered");
            tracing::debug!("detail");
        });
        let bytes = lines.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn json_lines_carry_the_request() {
        let text = written(LogFormat::Auto, "info", false);
        let line: serde_json::Value = serde_json::from_str(&text).expect("one JSON object");
        assert_eq!(line["message"], "answered");
        assert_eq!(line["status"], 200);
        assert_eq!(line["spans"][0]["request_id"], "req_1");
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn human_lines_have_colours_on_a_terminal_only() {
        assert!(written(LogFormat::Auto, "info", true).contains('\u{1b}'));
        let plain = written(LogFormat::Human, "info", false);
        assert!(plain.contains("request_id=\"req_1\"") && !plain.contains('\u{1b}'), "{plain}");
    }

    #[test]
    fn the_filter_decides() {
        assert!(written(LogFormat::Json, "debug", false).contains("detail"));
        assert_eq!(written(LogFormat::Json, "warn", false), "");
    }
}
