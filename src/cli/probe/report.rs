//! What a probe found, for people and for programs.

use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use percent_encoding::percent_decode_str;
use reqwest::Url;
use serde_json::{Value, json};

use super::handshake::Server;
use super::trouble::ProbeError;

/// Longest text of the server that is repeated, in characters.
const MAX_TEXT: usize = 300;
/// Query values shorter than this are no secrets, and removing them would garble every text.
const MIN_SECRET: usize = 6;

/// One step and how long it took.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) took: Duration,
    pub(super) failed: bool,
    pub(super) note: String,
}

/// What a probe found.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The URL, without its query.
    pub(super) url: String,
    pub(super) transport: &'static str,
    pub(super) server: Server,
    pub(super) steps: Vec<Step>,
    pub(super) tools: Option<usize>,
    pub(super) tool: Option<String>,
    pub(super) total: Duration,
    pub(super) error: Option<ProbeError>,
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

impl Report {
    /// One JSON object.
    pub(super) fn to_json(&self) -> Value {
        let step = |step: &Step| json!({ "step": step.name, "ms": millis(step.took), "ok": !step.failed, "note": step.note });
        let error = self.error.as_ref();
        json!({
            "ok": error.is_none(),
            "url": self.url,
            "transport": self.transport,
            "protocolVersion": self.server.revision.map(|revision| revision.name()),
            "server": { "name": self.server.name, "version": self.server.version },
            "tools": self.tools,
            "tool": self.tool,
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
            "totalMs": millis(self.total),
            "error": error.map(|e| json!({ "step": e.step, "problem": e.problem, "check": e.check })),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.url)?;
        if let Some(revision) = self.server.revision {
            let Server { name, version, .. } = &self.server;
            writeln!(f, "{name} {version}, MCP {revision} over {}", self.transport)?;
        }
        writeln!(f)?;
        for step in &self.steps {
            let word = if step.failed { "FAILED" } else { step.note.as_str() };
            let line = format!("{:<26}{:>9.1} ms  {word}", step.name, millis(step.took));
            writeln!(f, "{}", line.trim_end())?;
        }
        writeln!(f, "{:<26}{:>9.1} ms", "total", millis(self.total))
    }
}

/// Takes credentials out of texts that the server wrote, and what could steer a terminal.
pub(super) struct Cleaner(Vec<String>);

impl Cleaner {
    pub(super) fn new(url: &Url, key: Option<&HeaderValue>) -> Self {
        let key = key.and_then(|key| key.to_str().ok()?.strip_prefix("Bearer ").map(str::to_owned));
        let query = url.query().unwrap_or("");
        let values = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(_, value)| value);
        let parts =
            values.chain([query, url.password().unwrap_or("")]).filter(|value| value.len() >= MIN_SECRET);
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let mut secrets: Vec<String> =
            parts.flat_map(|text| [text.to_owned(), decoded(text)]).chain(key).collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    pub(super) fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), "[redacted]");
            }
        }
        let mut clean: String =
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT).collect();
        if text.chars().nth(MAX_TEXT).is_some() {
            clean.push_str("...");
        }
        clean
    }
}

/// The URL as it may be shown: without user, password, query and fragment.
pub(super) fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}
