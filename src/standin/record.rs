//! Requests on file, for who wants to know later what was asked: a line of JSON each.

use std::fs::File;
use std::io::{Error, Write};
use std::path::Path;

use bytes::Bytes;
use http::header::USER_AGENT;
use http::request::Parts;
use serde_json::{Map, Value, json};

use super::form;

/// Lines in one file. A simulated year of fifty tenants comes nowhere near it.
const MOST_LINES: u32 = 1_000_000;

/// A file that grows by a line per request.
pub struct Records {
    file: File,
    lines: u32,
}

impl Records {
    /// Adds to a file of this process and port in the directory.
    ///
    /// # Errors
    /// Where the file cannot be opened.
    pub fn open(directory: &Path, port: u16) -> Result<Self, Error> {
        let path = directory.join(format!("{}-{port}.jsonl", std::process::id()));
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(|error| Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(Self { file, lines: 0 })
    }

    /// Writes a request down before anything else is done with it. Its parameters are null where they cannot be decoded.
    ///
    /// # Errors
    /// Where the file cannot be written, or is as long as it may be.
    pub fn write(&mut self, parts: &Parts, body: &Bytes) -> Result<(), Error> {
        if self.lines == MOST_LINES {
            return Err(Error::other(format!("{MOST_LINES} requests have been recorded")));
        }
        self.lines += 1;
        // In one piece: the process may end at any time.
        self.file.write_all(format!("{}\n", line(parts, body)).as_bytes())
    }
}

fn line(parts: &Parts, body: &Bytes) -> Value {
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let tree = |text: &[u8]| form::parse(text).ok().map(|tree: Map<_, _>| Value::Object(tree));
    json!({
        "client": header(USER_AGENT.as_str()),
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "query": tree(parts.uri.query().unwrap_or_default().as_bytes()),
        "form": tree(body),
        "version": header("stripe-version"),
        "has_key": parts.headers.contains_key("idempotency-key"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut records = Records::open(directory.path(), 7).expect("a file");
        let request = http::Request::post("/v1/prices/p?expand[]=product")
            .header("user-agent", "weir/1")
            .header("stripe-version", "2026-01-01")
            .header("idempotency-key", "k");
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        records.write(&parts, &Bytes::from("recurring[interval]=month&active=true")).expect("a line");
        records.write(&parts, &Bytes::from("a[b=%")).expect("a line");
        records.lines = MOST_LINES;
        records.write(&parts, &Bytes::new()).expect_err("too many");
        let path = directory.path().join(format!("{}-7.jsonl", std::process::id()));
        let text = std::fs::read_to_string(path).expect("the file");
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
        let first = json!({
            "client": "weir/1", "method": "POST", "path": "/v1/prices/p", "query": { "expand": ["product"] },
            "form": { "active": "true", "recurring": { "interval": "month" } },
            "version": "2026-01-01", "has_key": true,
        });
        assert_eq!(lines[0], first);
        assert_eq!((lines.len(), &lines[1]["form"]), (2, &Value::Null));
        assert!(Records::open(&directory.path().join("none"), 7).is_err());
    }
}
