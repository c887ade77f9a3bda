//! What of a session other replicas must know, as Redis keeps it: a hash with few fields.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Negotiated, Transport};
use crate::caller::{Credential, Principal};
use crate::clock::Timestamp;
use crate::credentials::CredentialRef;
use crate::id::{KeyId, ReplicaId, TenantId};
use crate::mcp::Endpoint;
use crate::mcp::request::{Capabilities, LogLevel};
use crate::mcp::revision::Revision;

/// What never changes.
pub(super) const FIXED: &str = "o";
/// What `initialize` settled.
pub(super) const NEGOTIATED: &str = "n";
/// How to check the owner again.
pub(super) const CREDENTIAL: &str = "c";
/// The log level.
pub(super) const LEVEL: &str = "l";
/// The replica that holds the stream of an HTTP+SSE session.
pub(super) const HOME: &str = "h";
/// The place on the bus up to which the session has heard.
pub(super) const HEARD: &str = "p";
/// The number of the newest stream that carries notifications.
pub(super) const LISTENER: &str = "g";
/// What a subscription's field begins with; the URI follows.
pub(super) const SUBSCRIPTION: &str = "u:";

#[derive(Serialize, Deserialize)]
struct Fixed<'a> {
    /// The kind of credential, and which.
    k: &'a str,
    i: &'a str,
    /// Server of the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<&'a str>,
    /// Whether it is HTTP+SSE.
    s: bool,
    /// When it was opened, in microseconds.
    t: i64,
}

#[derive(Serialize, Deserialize)]
struct Settled<'a> {
    r: &'a str,
    /// One bit per capability.
    c: u8,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    n: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    v: Option<std::borrow::Cow<'a, str>>,
}

/// A session as it is kept.
pub(super) struct Record {
    pub(super) owner: Principal,
    pub(super) endpoint: Endpoint,
    pub(super) transport: Transport,
    pub(super) opened_at: Timestamp,
    pub(super) negotiated: Negotiated,
    pub(super) credential: CredentialRef,
    pub(super) level: LogLevel,
    pub(super) home: Option<ReplicaId>,
    pub(super) subscriptions: Vec<Box<str>>,
}

/// The fixed part as text.
pub(super) fn fixed(
    owner: &Principal,
    endpoint: &Endpoint,
    transport: Transport,
    opened: Timestamp,
) -> String {
    let (kind, id) = match &owner.credential {
        Credential::ApiKey(id) => ("k", id.to_string()),
        Credential::UrlToken(id) => ("u", id.to_string()),
        Credential::Jwt(digest) => ("j", digest.to_string()),
    };
    let fixed = Fixed {
        k: kind,
        i: &id,
        e: endpoint.0.as_deref(),
        s: transport == Transport::Sse,
        t: opened.as_micros(),
    };
    serde_json::to_string(&fixed).unwrap_or_default()
}

/// What was negotiated, as text.
pub(super) fn negotiated(negotiated: &Negotiated) -> String {
    let client = negotiated.client.as_ref();
    let settled = Settled {
        r: negotiated.revision.name(),
        c: negotiated.capabilities.to_bits(),
        n: client.map(|(name, _)| (&**name).into()),
        v: client.map(|(_, version)| (&**version).into()),
    };
    serde_json::to_string(&settled).unwrap_or_default()
}

fn read_negotiated(text: &[u8]) -> Option<Negotiated> {
    let settled: Settled<'_> = serde_json::from_slice(text).ok()?;
    let client = settled.n.zip(settled.v).map(|(name, version)| (name.into(), version.into()));
    Some(Negotiated {
        revision: Revision::parse(settled.r)?,
        capabilities: Capabilities::from_bits(settled.c),
        client,
    })
}

impl Record {
    /// Reads the hash of a session; nothing where it is none.
    pub(super) fn read(tenant: TenantId, fields: &HashMap<String, Vec<u8>>) -> Option<Self> {
        let fixed: Fixed<'_> = serde_json::from_slice(fields.get(FIXED)?).ok()?;
        let key = || fixed.i.parse::<KeyId>().ok();
        let credential = match fixed.k {
            "k" => Credential::ApiKey(key()?),
            "u" => Credential::UrlToken(key()?),
            _ => Credential::Jwt(fixed.i.into()),
        };
        let owner = Principal { tenant, credential };
        let text = |name: &str| fields.get(name).and_then(|value| std::str::from_utf8(value).ok());
        let subscriptions = fields.keys().filter_map(|name| name.strip_prefix(SUBSCRIPTION));
        Some(Self {
            endpoint: Endpoint(fixed.e.map(Into::into)),
            transport: if fixed.s { Transport::Sse } else { Transport::Streamable },
            opened_at: Timestamp::from_micros(fixed.t),
            negotiated: read_negotiated(fields.get(NEGOTIATED)?)?,
            credential: CredentialRef::read(&owner, text(CREDENTIAL)?)?,
            level: text(LEVEL).and_then(LogLevel::parse).unwrap_or(LogLevel::Info),
            home: text(HOME).and_then(|id| id.parse().ok()),
            subscriptions: subscriptions.map(Into::into).collect(),
            owner,
        })
    }
}
