//! `weir probe URL`: what an outside monitor runs against an MCP server, of Weir or of anybody else.
//!
//! The probe does what a client does: a handshake in the era that the server speaks, the list of tools, one call of a
//! tool that only reads, and a polite end. It tries the modern era first (`server/discover`), then Streamable HTTP
//! (`initialize`), then HTTP+SSE, as 2026-07-28 "Versioning: Backward Compatibility" asks of clients. What it prints
//! holds no credential: neither the key nor the query of the URL, and nothing of them that the server repeats.

mod events;
mod handshake;
mod link;
mod message;
mod report;
mod run;
#[cfg(test)]
mod tests;
mod tool;
mod trouble;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use report::Report;
pub use trouble::ProbeError;

/// Longest key that is read from a file or from standard input, in bytes.
const MAX_KEY: u64 = 16 * 1024;

/// Checks an MCP server from outside: handshake, list of tools, one call; exit code 0 or 1.
#[derive(Debug, Clone, clap::Args)]
pub struct ProbeArgs {
    /// URL of the MCP endpoint, such as `https://mcp.example.com/mcp` or .../sse. It may carry a `?token=`.
    // May hold a token, so it does not print.
    url: SecretString,
    /// Credential for `Authorization: Bearer`. Others on this machine can see it in the list of processes: prefer
    /// --key-file.
    #[arg(long, value_name = "KEY", conflicts_with = "key_file")]
    key: Option<SecretString>,
    /// File that holds the credential; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Tool to call. Default: the first one that says it only reads and needs no arguments.
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// Arguments for the tool, a JSON object.
    #[arg(long, value_name = "JSON", requires = "tool")]
    arguments: Option<String>,
    /// How long the whole run may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// The arguments after they were checked.
struct Plan {
    url: Url,
    key: Option<HeaderValue>,
    tool: Option<String>,
    arguments: Map<String, Value>,
    limit: Duration,
}

/// Probes a server and prints what it found to standard output: a table of steps with their times, or one JSON object.
///
/// # Errors
/// [`ProbeError`] where the server is not well, or an argument is not usable; it says which step failed and what to
/// check. What was found until then is printed before.
pub async fn run(args: ProbeArgs) -> Result<(), ProbeError> {
    let json = args.json;
    let plan = Plan::new(args)?;
    let (report, outcome) = Box::pin(run::run(plan)).await;
    print(&report, json);
    outcome
}

fn print(report: &Report, json: bool) {
    let text = if json { format!("{}\n", report.to_json()) } else { report.to_string() };
    // Nobody is left to be told where standard output is closed; the exit code still says how it went.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

impl Plan {
    fn new(args: ProbeArgs) -> Result<Self, ProbeError> {
        let wrong = |problem: &str| ProbeError::argument(problem);
        let url = Url::parse(args.url.expose_secret()).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or_else(|| wrong("URL: expected http://HOST/PATH or https://HOST/PATH"))?;
        let key = match (args.key, args.key_file) {
            (Some(key), _) => Some(header_of(&key)?),
            (None, Some(file)) => Some(header_of(&read_key(&file)?)?),
            (None, None) => None,
        };
        let arguments = match args.arguments.as_deref().map(serde_json::from_str) {
            None => Map::new(),
            Some(Ok(Value::Object(arguments))) => arguments,
            Some(_) => {
                return Err(wrong(
                    "--arguments: expected a JSON object, such as '{\"name\":\"example.com\"}'",
                ));
            }
        };
        Ok(Self { url, key, tool: args.tool, arguments, limit: Duration::from_secs(args.timeout) })
    }
}

fn header_of(key: &SecretString) -> Result<HeaderValue, ProbeError> {
    let key = key.expose_secret().trim();
    let value = HeaderValue::try_from(format!("Bearer {key}")).ok().filter(|_| !key.is_empty());
    let mut value = value
        .ok_or_else(|| ProbeError::argument("the key is empty or holds characters that no header can"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn read_key(file: &std::path::Path) -> Result<SecretString, ProbeError> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().take(MAX_KEY).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_KEY).read_to_string(&mut text))
    };
    match read {
        Ok(_) => Ok(text.into()),
        Err(error) => Err(ProbeError::argument(&format!("--key-file {}: {error}", file.display()))),
    }
}
