//! Handshakes: `server/discover`, `initialize`, and the `endpoint` event; and when one gives way to the next.

use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::Url;
use serde_json::{Value, json};

use super::events::EventStream;
use super::link::{Link, Wire, client_info, modern_headers, modern_meta};
use super::message::{Answer, Incoming, kind};
use super::trouble::Trouble;
use crate::mcp::error::code;
use crate::mcp::revision::Revision;

/// What the server said of itself.
#[derive(Debug, Default)]
pub(super) struct Server {
    pub(super) revision: Option<Revision>,
    pub(super) name: String,
    pub(super) version: String,
}

impl Server {
    fn of(revision: Revision, info: Option<&Value>) -> Self {
        let text = |key: &str| info.and_then(|info| info.get(key)?.as_str()).unwrap_or("").to_owned();
        Self { revision: Some(revision), name: text("name"), version: text("version") }
    }
}

/// A handshake that succeeded, or what the server said instead, which calls for an older one.
pub(super) enum Tried<T> {
    Done(T),
    Older(String),
}

/// `server/discover` (2026-07-28 "Versioning: Backward Compatibility"). An answer that is not of the modern era means
/// that the server is older.
pub(super) async fn discover(wire: &mut Wire) -> Result<Tried<Server>, Trouble> {
    let method = "server/discover";
    let answer = wire.ask(modern_headers(method), method, &json!({ "_meta": modern_meta() })).await?;
    let names_modern = |versions: &Value| {
        versions.as_array().is_some_and(|all| all.iter().any(|v| v == Revision::V2026_07_28.name()))
    };
    let status = answer.status;
    let final_status =
        matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS);
    if final_status || !(status.is_success() || status.is_client_error()) {
        return Err(refused(answer, wire));
    }
    match &answer.said {
        Ok(Incoming::Result(result)) if result.get("supportedVersions").is_some_and(names_modern) => {
            let info = result.pointer("/_meta/io.modelcontextprotocol~1serverInfo");
            Ok(Tried::Done(Server::of(Revision::V2026_07_28, info)))
        }
        Ok(Incoming::Result(_)) => Ok(Tried::Older("the server names no modern version".to_owned())),
        Ok(Incoming::Error { code: code::HEADER_MISMATCH | code::MISSING_CAPABILITY, .. }) => {
            Err(refused(answer, wire))
        }
        Ok(Incoming::Error { code: code::UNSUPPORTED_VERSION, data, .. })
            if data.get("supported").is_some_and(names_modern) =>
        {
            Err(refused(answer, wire))
        }
        Ok(Incoming::Error { code, .. }) => {
            Ok(Tried::Older(format!("HTTP {}, error {code}", status.as_u16())))
        }
        Err(_) => Ok(Tried::Older(format!("HTTP {}", status.as_u16()))),
    }
}

fn refused(answer: Answer, wire: &Wire) -> Trouble {
    match answer.result(wire.has_credential()) {
        Err(trouble) => trouble,
        Ok(_) => Trouble::protocol("the answer has a status that does not fit it"),
    }
}

fn initialize_params(revision: Revision) -> Value {
    json!({ "protocolVersion": revision.name(), "capabilities": {}, "clientInfo": client_info() })
}

/// What an `initialize` result settles.
fn settled(result: &Value) -> Result<Server, Trouble> {
    let named = result.get("protocolVersion").and_then(Value::as_str);
    let named =
        named.ok_or_else(|| Trouble::protocol("the answer to `initialize` has no protocolVersion"))?;
    let revision = Revision::parse(named).filter(|revision| !revision.is_modern());
    let revision = revision.ok_or_else(|| {
        Trouble::new(format!("the server wants to speak {named}, which this probe does not"), "")
    })?;
    Ok(Server::of(revision, result.get("serverInfo")))
}

/// `initialize` over Streamable HTTP. 400, 404 and 405 mean that the server may be of 2024 (2025-11-25 "Transports:
/// Backwards Compatibility").
pub(super) async fn initialize(wire: &mut Wire) -> Result<Tried<(Link, Server)>, Trouble> {
    let params = initialize_params(Revision::NEWEST_LEGACY);
    let answer = wire.ask(HeaderMap::new(), "initialize", &params).await?;
    if matches!(
        answer.status,
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
    ) {
        return Ok(Tried::Older(refused(answer, wire).problem));
    }
    let session = answer.session.clone();
    let server = settled(&answer.result(wire.has_credential())?)?;
    let revision = server.revision.unwrap_or(Revision::NEWEST_LEGACY);
    Ok(Tried::Done((Link::Streamable { session, revision }, server)))
}

/// GET of an HTTP+SSE server, up to its `endpoint` event.
pub(super) async fn connect(wire: &Wire) -> Result<Link, Trouble> {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    let response = wire.get(headers).await?;
    if !response.status().is_success() {
        return Err(refused(Answer::read(response, 0, wire.limit).await?, wire));
    }
    let kind = kind(&response);
    if kind != "text/event-stream" {
        return Err(Trouble::protocol(format!("GET answers with {kind:?}, not with an event stream")));
    }
    let mut stream = EventStream::new(response, wire.limit);
    match stream.next().await? {
        Some(event) if event.name == "endpoint" => {
            let endpoint = endpoint(&wire.url, &event.data)?;
            Ok(Link::Sse { stream, endpoint })
        }
        _ => Err(Trouble::protocol("the event stream does not begin with an `endpoint` event")),
    }
}

/// The URL of an `endpoint` event: of the same origin, so that no credential goes elsewhere.
fn endpoint(base: &Url, text: &str) -> Result<Url, Trouble> {
    let url = base.join(text.trim()).map_err(|_| Trouble::protocol("the `endpoint` event holds no URL"))?;
    if url.origin() == base.origin() {
        return Ok(url);
    }
    let origin = url.origin().ascii_serialization();
    Err(Trouble::new(
        format!("the `endpoint` event leads to another origin, {origin}"),
        "does the server know the public URL under which it is reached?",
    ))
}

/// `initialize` over HTTP+SSE.
pub(super) async fn initialize_sse(wire: &mut Wire, link: &mut Link) -> Result<Server, Trouble> {
    let params = initialize_params(Revision::V2024_11_05);
    settled(&link.ask(wire, "initialize", params, HeaderMap::new()).await?)
}
