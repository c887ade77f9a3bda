//! What a running request may say before its result: progress and log messages, on the stream of its own request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde_json::{Value, json};

use super::feed::Feed;
use super::jsonrpc;
use super::request::LogLevel;
use crate::telemetry::metrics::Metrics;

/// The speaking end. Without a feed (the client cannot take a stream) everything said is dropped; so is what the feed
/// has no room for, and both are counted. A slow reader never holds up a tool.
pub struct Outlet {
    feed: Option<Arc<Feed>>,
    progress_token: Option<Bytes>,
    log_level: Option<LogLevel>,
    /// Bits of the last progress value: it must increase (2026-07-28 "Progress").
    last_progress: AtomicU64,
    metrics: Arc<Metrics>,
}

impl Outlet {
    /// An outlet into `feed`, for a request with this token and level.
    #[must_use]
    pub fn new(
        feed: Option<Arc<Feed>>,
        progress_token: Option<Bytes>,
        log_level: Option<LogLevel>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let last_progress = AtomicU64::new(f64::NEG_INFINITY.to_bits());
        Arc::new(Self { feed, progress_token, log_level, last_progress, metrics })
    }

    /// Reports progress, if the client asked for it. A value that does not increase is dropped.
    pub fn progress(&self, progress: f64, total: Option<f64>, message: Option<&str>) {
        let Some(token) = &self.progress_token else { return };
        let grew = self.last_progress.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| {
            (progress.is_finite() && progress > f64::from_bits(last)).then(|| progress.to_bits())
        });
        if grew.is_err() {
            return;
        }
        let token = String::from_utf8_lossy(token);
        let mut params = format!("{{\"progressToken\":{token},\"progress\":{}", number(progress));
        if let Some(total) = total.filter(|t| t.is_finite()) {
            params.push_str(&format!(",\"total\":{}", number(total)));
        }
        if let Some(message) = message {
            params.push_str(&format!(",\"message\":{}", Value::from(message)));
        }
        params.push('}');
        self.send(&jsonrpc::notification("notifications/progress", Some(&params)));
    }

    /// Sends a log message, if the client wants this severity.
    pub fn log(&self, level: LogLevel, logger: Option<&str>, data: &Value) {
        if self.log_level.is_none_or(|least| level < least) {
            return;
        }
        let mut params = json!({ "level": level, "data": data });
        if let Some(logger) = logger {
            params["logger"] = logger.into();
        }
        self.send(&jsonrpc::notification("notifications/message", Some(&params.to_string())));
    }

    /// Lets the client's connection go; it comes back for the rest. Without effect where it could not.
    pub fn pause(&self) {
        if let Some(feed) = &self.feed {
            feed.pause();
        }
    }

    fn send(&self, message: &str) {
        if !self.feed.as_ref().is_some_and(|feed| feed.say(message)) {
            self.metrics.notifications_dropped.inc();
        }
    }
}

/// A whole number without a fraction, as most clients print and some compare it.
fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
    if value.fract() == 0.0 && value.abs() < 9e15 { Value::from(value as i64) } else { Value::from(value) }
}
