//! Looking names up in the DNS: the engine of the tool `dns_resolve`. It knows nothing of MCP.
//!
//! Names are taken as complete: search lists and `/etc/hosts` play no part, so that two replicas answer alike
//! and the machine's own names stay its own.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::TXT;
use hickory_resolver::proto::rr::{Name, RData, RecordType as WireType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Dns;

/// Answers kept until their time to live ends.
const CACHE: u64 = 256;

/// What is asked of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RecordType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name that this name is an alias of.
    Cname,
    /// Mail servers.
    Mx,
    /// Texts, such as SPF and verification records.
    Txt,
    /// Name servers of a zone.
    Ns,
    /// Hosts and ports of a service, asked as `_service._protocol.name`.
    Srv,
    /// The name of an IP address.
    Ptr,
}

impl RecordType {
    const fn wire(self) -> WireType {
        match self {
            Self::A => WireType::A,
            Self::Aaaa => WireType::AAAA,
            Self::Cname => WireType::CNAME,
            Self::Mx => WireType::MX,
            Self::Txt => WireType::TXT,
            Self::Ns => WireType::NS,
            Self::Srv => WireType::SRV,
            Self::Ptr => WireType::PTR,
        }
    }
}

/// What the DNS says of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// The name that was asked, in lower case; for an IP address its reverse name.
    pub name: String,
    /// What was asked.
    pub record_type: RecordType,
    /// At least one record, ordered by priority, weight, port and value.
    pub records: Vec<Record>,
}

/// One record. What it does not have is left out, never null, so the schema says plain integers: some clients cannot
/// read a list of types.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// MX and SRV: lower values are tried first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u16")]
    pub priority: Option<u16>,
    /// SRV: share of the load among records of one priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u16")]
    pub weight: Option<u16>,
    /// SRV: port of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u16")]
    pub port: Option<u16>,
    /// The address, name or text. In texts `\\` is a backslash and `\DDD` a byte that is not printable UTF-8.
    pub value: String,
    /// How long the record may be kept, in seconds.
    pub ttl_seconds: u32,
}

/// Why there is no answer. All of these are ordinary: they are told to the model, with [`LookupError::advice`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// NXDOMAIN.
    #[error("the name does not exist")]
    NoSuchName,
    /// The name exists, without records of this type.
    #[error("the name exists but has no records of this type")]
    NoRecords,
    /// No server answered in time.
    #[error("no DNS server answered in time")]
    Timeout,
    /// The name cannot be asked; the text says why and what to pass instead.
    #[error("{0}")]
    BadName(String),
    /// The servers answered with a failure (SERVFAIL, REFUSED) or could not be reached.
    #[error("the DNS servers could not answer")]
    ServerFailure,
}

impl LookupError {
    /// What a model should do about it.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::NoSuchName => {
                "Check the spelling, or ask for the parent domain. Do not repeat the same lookup: the answer is final."
            }
            Self::NoRecords => {
                "Ask for another record type of this name: A and AAAA for addresses, MX for mail, NS for the zone."
            }
            Self::Timeout => {
                "Try again once. If it fails again, the domain's name servers are not reachable now."
            }
            Self::BadName(_) => "Correct the name and call again.",
            Self::ServerFailure => {
                "The domain's name servers are misconfigured or refuse to answer. Try again later, or look up the \
                 NS records of the parent domain."
            }
        }
    }
}

/// The resolver could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("tools.dns.resolvers: {0}; name the DNS servers, or leave the list empty to use those of the system")]
pub struct ResolverError(String);

/// Asks the configured DNS servers.
#[derive(Clone)]
pub struct Resolver {
    inner: TokioResolver,
    limit: Duration,
}

impl Resolver {
    /// For the configured servers, or those of the system where none are.
    ///
    /// # Errors
    /// [`ResolverError`] where the system's list of servers cannot be read.
    pub fn new(config: &Dns) -> Result<Self, ResolverError> {
        let error = |error: NetError| ResolverError(error.to_string());
        let mut builder = if config.resolvers.is_empty() {
            TokioResolver::builder_tokio().map_err(error)?
        } else {
            let servers = config.resolvers.iter().copied().map(server).collect();
            let servers = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
        };
        let limit = config.timeout.get();
        let options = builder.options_mut();
        // Two tries fit into the limit, which `lookup` holds.
        options.timeout = limit / 2;
        options.attempts = 1;
        options.cache_size = CACHE;
        options.use_hosts_file = ResolveHosts::Never;
        Ok(Self { inner: builder.build().map_err(error)?, limit })
    }

    /// Looks up one record type of one name, within the configured time over all tries.
    ///
    /// # Errors
    /// [`LookupError`]; none of its cases is a fault of Weir's.
    pub async fn lookup(&self, name: &str, kind: RecordType) -> Result<Answer, LookupError> {
        let asked = question(name, kind)?;
        let lookup = self.inner.lookup(asked.clone(), kind.wire());
        let found = tokio::time::timeout(self.limit, lookup)
            .await
            .map_err(|_| LookupError::Timeout)?
            .map_err(|error| failure(&error))?;
        let mut records: Vec<_> = found
            .answers()
            .iter()
            // The chain of aliases on the way to an address is in the answer, too.
            .filter(|record| record.record_type() == kind.wire())
            .filter_map(|record| value(&record.data, record.ttl))
            .collect();
        if records.is_empty() {
            // An alias whose target is gone comes as an answer with NXDOMAIN.
            let dangling = found.message().response_code == ResponseCode::NXDomain;
            return Err(if dangling { LookupError::NoSuchName } else { LookupError::NoRecords });
        }
        records.sort();
        records.dedup();
        Ok(Answer { name: text(&asked), record_type: kind, records })
    }
}

fn server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

/// Checks the name (RFC 1035, 2.3.4) and completes it.
fn question(name: &str, kind: RecordType) -> Result<Name, LookupError> {
    let bad = |text: &str| LookupError::BadName(text.to_owned());
    let name = name.trim();
    if let Ok(address) = name.parse::<IpAddr>() {
        return match kind {
            RecordType::Ptr => Ok(complete(address.into())),
            _ => Err(bad(
                "this is an IP address, and only PTR takes one: set record_type to PTR to find its name",
            )),
        };
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if kind == RecordType::Ptr && !name.ends_with(".in-addr.arpa") && !name.ends_with(".ip6.arpa") {
        return Err(bad(
            "PTR takes an IP address such as 192.0.2.1 or 2001:db8::1, or a name that ends with in-addr.arpa or \
             ip6.arpa: for the addresses of a name set record_type to A or AAAA",
        ));
    }
    if name.is_empty() {
        return Err(bad("the name is empty: pass a domain name such as example.com"));
    }
    if name.contains(['/', ':', '@', '?', '#']) {
        return Err(bad(
            "this is not a domain name: pass the name alone, such as example.com, without scheme, user, port or path",
        ));
    }
    if !name.is_ascii() {
        return Err(bad("the name has letters outside of ASCII: pass its xn-- form (Punycode)"));
    }
    if name.len() > 253 {
        return Err(bad("the name is too long: at most 253 characters are possible"));
    }
    if name.split('.').any(|label| label.is_empty() || label.len() > 63) {
        return Err(bad("the name has an empty part, or one of over 63 characters, between its dots"));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte)) {
        return Err(bad("only letters, digits, hyphens, underscores and dots are possible in a name"));
    }
    Name::from_ascii(&name).map(complete).map_err(|_| bad("this is not a domain name"))
}

/// With the root at its end, so that no search list is applied.
fn complete(mut name: Name) -> Name {
    name.set_fqdn(true);
    name
}

fn failure(error: &NetError) -> LookupError {
    match error {
        NetError::Timeout => LookupError::Timeout,
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => LookupError::NoSuchName,
            ResponseCode::NoError => LookupError::NoRecords,
            _ => LookupError::ServerFailure,
        },
        NetError::Dns(DnsError::ResponseCode(ResponseCode::NXDomain)) => LookupError::NoSuchName,
        other => {
            tracing::debug!(error = %other, "a DNS lookup failed");
            LookupError::ServerFailure
        }
    }
}

fn value(data: &RData, ttl_seconds: u32) -> Option<Record> {
    let plain = |value: String| Record { priority: None, weight: None, port: None, value, ttl_seconds };
    Some(match data {
        RData::A(address) => plain(address.to_string()),
        RData::AAAA(address) => plain(address.to_string()),
        RData::CNAME(name) => plain(text(&name.0)),
        RData::NS(name) => plain(text(&name.0)),
        RData::PTR(name) => plain(text(&name.0)),
        RData::TXT(txt) => plain(printable(txt)),
        RData::MX(mx) => Record { priority: Some(mx.preference), ..plain(text(&mx.exchange)) },
        RData::SRV(srv) => Record {
            priority: Some(srv.priority),
            weight: Some(srv.weight),
            port: Some(srv.port),
            ..plain(text(&srv.target))
        },
        _ => return None,
    })
}

/// A name as people write it: lower case, without the root's dot (but "." for the root itself).
fn text(name: &Name) -> String {
    let text = name.to_lowercase().to_ascii();
    match text.strip_suffix('.') {
        Some(short) if !short.is_empty() => short.to_owned(),
        _ => text,
    }
}

/// The strings of a TXT record as one text (RFC 7208, 3.3 joins them without a space), escaped as in a zone
/// file (RFC 1035, 5.1).
fn printable(txt: &TXT) -> String {
    let bytes = txt.txt_data.concat();
    let mut out = String::with_capacity(bytes.len());
    let escape = |out: &mut String, bytes: &[u8]| {
        for byte in bytes {
            out.push_str(&format!("\\{byte:03}"));
        }
    };
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                control if control.is_control() => {
                    escape(&mut out, control.encode_utf8(&mut [0; 4]).as_bytes());
                }
                plain => out.push(plain),
            }
        }
        escape(&mut out, chunk.invalid());
    }
    out
}

#[cfg(test)]
mod tests;
