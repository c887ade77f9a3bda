//! Meaning: what the types alone cannot say. Messages name the key and what was expected, never the value.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use reqwest::Url;
use secrecy::ExposeSecret;
use tracing_subscriber::EnvFilter;

use super::{Auth, Config, Issuer, Limits, Mcp, Millis, Rate, Server};

/// Signature algorithms that an issuer may use: asymmetric ones only, since a shared secret would let the
/// verifier sign.
pub const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// A key whose value has the right type and the wrong meaning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct Invalid {
    /// The key, with dots.
    pub key: String,
    /// What was expected.
    pub problem: String,
}

impl Config {
    /// Checks ranges, addresses and what must agree with what. [`super::Layers::load`] has done this already;
    /// it is for configurations made by hand.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub fn validate(&self) -> Result<(), Invalid> {
        server(&self.server)?;
        self.listeners()?;
        self.database()?;
        self.redis()?;
        auth(&self.auth)?;
        limits(&self.limits)?;
        mcp(&self.mcp)?;
        self.metering()?;
        self.billing.validate()?;
        millis("tools.dns.timeout_ms", self.tools.dns.timeout, 1..=60_000)?;
        require("tools.dns.resolvers", self.tools.dns.resolvers.iter().all(|a| a.port() != 0), || {
            "expected ports from 1 to 65535".to_owned()
        })?;
        let filter = EnvFilter::builder().parse(&self.log.filter);
        require("log.filter", filter.is_ok(), || {
            "expected a filter such as info or weir=debug,warn".to_owned()
        })?;
        self.otel()
    }

    /// The origin under which clients reach Weir, without a trailing slash: `server.public_url`, or
    /// `http://<server.listen>` where that is empty.
    #[must_use]
    pub fn public_url(&self) -> String {
        match self.server.public_url.trim_end_matches('/') {
            "" => format!("http://{}", self.server.listen),
            url => url.to_owned(),
        }
    }

    fn listeners(&self) -> Result<(), Invalid> {
        let public = Some(self.server.listen).filter(|address| address.port() != 0);
        let admin = self.admin.listen.filter(|address| address.port() != 0);
        let metrics = self.metrics.listen.filter(|address| address.port() != 0);
        require("admin.listen", admin.is_none() || admin != public, || {
            "expected an address other than server.listen, or an empty string to share it".to_owned()
        })?;
        require("metrics.listen", metrics.is_none() || (metrics != public && metrics != admin), || {
            "expected an address of its own, other than server.listen and admin.listen".to_owned()
        })
    }

    fn metering(&self) -> Result<(), Invalid> {
        let metering = &self.metering;
        millis("metering.lead_ms", metering.lead, 50..=600_000)?;
        let least = self.auth.invalidation_poll.get() * 5;
        require("metering.lead_ms", metering.lead.get() >= least, || {
            format!("expected at least five times auth.invalidation_poll_ms, {}", least.as_millis())
        })?;
        millis("metering.lease_ms", metering.lease, 500..=600_000)?;
        millis("metering.idle_ms", metering.idle, 100..=600_000)?;
        millis("metering.settle_timeout_ms", metering.settle_timeout, 100..=60_000)?;
        range("metering.replay_hours", metering.replay_hours.into(), 1..=24 * 31)?;
        size("metering.replay_bytes", metering.replay_bytes, 0..=64 << 20)?;
        range("metering.keep_months", metering.keep_months.into(), 0..=1200)?;
        let url = metering.top_up_url.replace("{tenant}", "tn_0");
        require("metering.top_up_url", url.is_empty() || is_safe_url(&url), || {
            "expected an https URL, or an empty string".to_owned()
        })
    }

    fn database(&self) -> Result<(), Invalid> {
        let database = &self.database;
        let url = database.url.expose_secret();
        let sqlite = url.strip_prefix("sqlite:").is_some_and(|path| !path.is_empty());
        let postgres =
            (url.starts_with("postgres://") || url.starts_with("postgresql://")) && Url::parse(url).is_ok();
        require("database.url", sqlite || postgres, || {
            "expected sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE (special characters of the \
             password percent-encoded)"
                .to_owned()
        })?;
        range("database.max_connections", database.max_connections.into(), 1..=10_000)?;
        millis("database.acquire_timeout_ms", database.acquire_timeout, 1..=600_000)?;
        millis("database.statement_timeout_ms", database.statement_timeout, 1..=600_000)
    }

    fn redis(&self) -> Result<(), Invalid> {
        let redis = &self.redis;
        let shared = self.database.url.expose_secret().starts_with("postgres");
        require("redis.url", !redis.is_configured() || shared, || {
            "expected an empty string with sqlite: only replicas on one PostgreSQL share a Redis".to_owned()
        })?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        let good = !redis.prefix.is_empty() && redis.prefix.len() <= 64 && redis.prefix.chars().all(plain);
        require("redis.prefix", good, || "expected 1 to 64 letters, digits and -_.:".to_owned())?;
        millis("redis.timeout_ms", redis.timeout, 10..=10_000)?;
        millis("redis.lease_ms", redis.lease, 500..=60_000)
    }

    fn otel(&self) -> Result<(), Invalid> {
        let endpoint = &self.otel.endpoint;
        let good = endpoint.is_empty() || web_url(endpoint).is_some_and(|url| no_credentials(&url));
        require("otel.endpoint", good, || {
            "expected an absolute http or https URL such as http://127.0.0.1:4318/v1/traces, without a user, \
             or an empty string for none"
                .to_owned()
        })?;
        require("otel.service_name", !self.otel.service_name.is_empty(), || "expected a name".to_owned())?;
        require("otel.sample_ratio", (0.0..=1.0).contains(&self.otel.sample_ratio), || {
            "expected a number from 0 to 1".to_owned()
        })
    }
}

fn server(server: &Server) -> Result<(), Invalid> {
    let url = &server.public_url;
    let good = url.is_empty() || web_url(url).is_some_and(|url| no_credentials(&url) && is_origin(&url));
    require("server.public_url", good, || {
        "expected an absolute http or https URL without a path, such as https://mcp.example.com, or an empty \
         string"
            .to_owned()
    })?;
    for (place, host) in server.allowed_hosts.iter().enumerate() {
        require_at("server.allowed_hosts", place, is_host(host), || {
            "expected a host name or an address without scheme, port or path, such as mcp.example.com or [::1]"
                .to_owned()
        })?;
    }
    for (place, origin) in server.allowed_origins.iter().enumerate() {
        require_at("server.allowed_origins", place, is_browser_origin(origin), || {
            "expected an origin as a browser sends it: lower case, no path, no trailing slash and no default \
             port, such as https://app.example.com"
                .to_owned()
        })?;
    }
    size("server.max_connections", server.max_connections, 1..=1_000_000)?;
    millis("server.header_read_timeout_ms", server.header_read_timeout, 1..=600_000)?;
    millis("server.body_read_timeout_ms", server.body_read_timeout, 1..=600_000)?;
    millis("server.dead_peer_timeout_ms", server.dead_peer_timeout, 1_000..=3_600_000)?;
    size("server.max_header_bytes", server.max_header_bytes, 8_192..=1_048_576)?;
    size("server.max_headers", server.max_headers, 16..=1_000)?;
    size("server.max_body_bytes", server.max_body_bytes, 1_024..=1_073_741_824)?;
    // serde_json itself refuses 128 levels.
    size("server.max_json_depth", server.max_json_depth, 8..=127)?;
    millis("server.drain_delay_ms", server.drain_delay, 0..=600_000)?;
    millis("server.drain_timeout_ms", server.drain_timeout, 0..=3_600_000)
}

fn auth(auth: &Auth) -> Result<(), Invalid> {
    size("auth.cache_entries", auth.cache_entries, 1..=10_000_000)?;
    millis("auth.cache_ttl_ms", auth.cache_ttl, 1..=3_600_000)?;
    millis("auth.stale_ms", auth.stale, 0..=86_400_000)?;
    millis("auth.invalidation_poll_ms", auth.invalidation_poll, 1..=1_000)?;
    millis("auth.failure_floor_ms", auth.failure_floor, 0..=5_000)?;
    let mut seen = HashSet::new();
    for (place, one) in auth.issuers.iter().enumerate() {
        issuer(&format!("auth.issuers[{place}]"), one)?;
        require(&format!("auth.issuers[{place}].issuer"), seen.insert(&one.issuer), || {
            "expected one table per issuer, found a second one".to_owned()
        })?;
    }
    Ok(())
}

fn issuer(key: &str, issuer: &Issuer) -> Result<(), Invalid> {
    let field = |name: &str| format!("{key}.{name}");
    let https = "expected an absolute https URL (http on loopback only) without a user".to_owned();
    require(&field("issuer"), is_safe_url(&issuer.issuer), || https.clone())?;
    require(key, issuer.jwks_url.is_some() != issuer.jwks_file.is_some(), || {
        "expected exactly one of jwks_url and jwks_file".to_owned()
    })?;
    require(&field("jwks_url"), issuer.jwks_url.as_deref().is_none_or(is_safe_url), || https.clone())?;
    let file = issuer.jwks_file.as_ref();
    require(&field("jwks_file"), file.is_none_or(|path| !path.as_os_str().is_empty()), || {
        "expected a path".to_owned()
    })?;
    let known = |name: &String| ALGORITHMS.contains(&name.as_str());
    let algorithms = &issuer.algorithms;
    require(&field("algorithms"), !algorithms.is_empty() && algorithms.iter().all(known), || {
        format!("expected at least one of {} (symmetric algorithms are refused)", ALGORITHMS.join(", "))
    })?;
    for (name, claim) in [("tenant_claim", &issuer.tenant_claim), ("scope_claim", &issuer.scope_claim)] {
        require(&field(name), !claim.is_empty(), || "expected the name of a claim".to_owned())?;
    }
    millis(&field("skew_ms"), issuer.skew, 0..=300_000)
}

fn limits(limits: &Limits) -> Result<(), Invalid> {
    let rates = [("ip", limits.ip), ("tenant", limits.tenant.rate()), ("key", limits.key)];
    for (name, Rate { per_second, burst }) in rates {
        range(&format!("limits.{name}.per_second"), per_second.into(), 1..=1_000_000)?;
        range(&format!("limits.{name}.burst"), burst.into(), 1..=1_000_000)?;
    }
    let tenant = &limits.tenant;
    let counts = [
        ("concurrency", tenant.concurrency),
        ("sessions", tenant.sessions),
        ("streams", tenant.streams),
        ("questions", tenant.questions),
    ];
    for (name, count) in counts {
        range(&format!("limits.tenant.{name}"), count.into(), 1..=u32::MAX.into())?;
    }
    let bytes = [("bytes_per_second", tenant.bytes_per_second), ("bytes_burst", tenant.bytes_burst)];
    for (name, count) in bytes {
        range(&format!("limits.tenant.{name}"), count.into(), 0..=u32::MAX.into())?;
    }
    require("limits.tenant.bytes_burst", (tenant.bytes_per_second > 0) == (tenant.bytes_burst > 0), || {
        "expected 0 together with bytes_per_second = 0, and more where that is more".to_owned()
    })
}

fn mcp(mcp: &Mcp) -> Result<(), Invalid> {
    let name = &mcp.server_name;
    require("mcp.server_name", !name.is_empty() && name.len() <= 128, || {
        "expected a name of 1 to 128 bytes".to_owned()
    })?;
    size("mcp.page_size", mcp.page_size, 1..=1_000)?;
    millis("mcp.list_ttl_ms", mcp.list_ttl, 0..=86_400_000)?;
    millis("mcp.tool_timeout_ms", mcp.tool_timeout, 1..=86_400_000)?;
    millis("mcp.stream_after_ms", mcp.stream_after, 0..=86_400_000)?;
    millis("mcp.heartbeat_ms", mcp.heartbeat, 1..=600_000)?;
    millis("mcp.session_idle_ms", mcp.session_idle, 1..=2_592_000_000)?;
    millis("mcp.session_unused_ms", mcp.session_unused, 1..=2_592_000_000)?;
    millis("mcp.sse_grace_ms", mcp.sse_grace, 0..=3_600_000)?;
    millis("mcp.input_timeout_ms", mcp.input_timeout, 1..=86_400_000)?;
    millis("mcp.retry_ms", mcp.retry, 0..=3_600_000)?;
    millis("mcp.stream_max_ms", mcp.stream_max, 0..=86_400_000)?;
    millis("mcp.replay_ms", mcp.replay, 0..=86_400_000)?;
    size("mcp.replay_bytes", mcp.replay_bytes, 4_096..=1_073_741_824)?;
    size("mcp.replay_tenant_bytes", mcp.replay_tenant_bytes, 4_096..=1_099_511_627_776)?;
    size("mcp.replay_total_bytes", mcp.replay_total_bytes, 4_096..=1_099_511_627_776)?;
    size("mcp.max_batch", mcp.max_batch, 1..=1_000)
}

pub(super) fn require(key: &str, holds: bool, problem: impl FnOnce() -> String) -> Result<(), Invalid> {
    if holds { Ok(()) } else { Err(Invalid { key: key.to_owned(), problem: problem() }) }
}

pub(super) fn require_at(
    key: &str,
    place: usize,
    holds: bool,
    problem: impl FnOnce() -> String,
) -> Result<(), Invalid> {
    require(&format!("{key}[{place}]"), holds, problem)
}

pub(super) fn range(key: &str, value: u64, allowed: RangeInclusive<u64>) -> Result<(), Invalid> {
    require(key, allowed.contains(&value), || format!("expected {} to {}", allowed.start(), allowed.end()))
}

fn size(key: &str, value: usize, allowed: RangeInclusive<u64>) -> Result<(), Invalid> {
    range(key, u64::try_from(value).unwrap_or(u64::MAX), allowed)
}

pub(super) fn millis(key: &str, value: Millis, allowed: RangeInclusive<u64>) -> Result<(), Invalid> {
    let value = u64::try_from(value.get().as_millis()).unwrap_or(u64::MAX);
    require(key, allowed.contains(&value), || {
        format!("expected {} to {} milliseconds", allowed.start(), allowed.end())
    })
}

fn web_url(text: &str) -> Option<Url> {
    // The parser repairs what browsers repair, "https:/host" among it; a configuration has no need of that.
    let plain = text.starts_with("http://") || text.starts_with("https://");
    Url::parse(text).ok().filter(|url| plain && url.has_host() && !text.contains(char::is_whitespace))
}

fn no_credentials(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none()
}

fn is_origin(url: &Url) -> bool {
    url.path() == "/" && url.query().is_none() && url.fragment().is_none()
}

/// https, or http to this machine.
pub(super) fn is_safe_url(text: &str) -> bool {
    web_url(text).is_some_and(|url| {
        let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        no_credentials(&url) && (url.scheme() == "https" || local)
    })
}

fn is_host(text: &str) -> bool {
    let url = web_url(&format!("http://{text}/"));
    url.is_some_and(|url| url.host_str().is_some_and(|host| host.eq_ignore_ascii_case(text)))
}

fn is_browser_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    if let Some(url) = web_url(text) {
        return url.origin().ascii_serialization() == text;
    }
    // Editors' web views and browser extensions have schemes of their own: vscode-webview://ID.
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    let own = !matches!(scheme, "http" | "https") && scheme.starts_with(|c: char| c.is_ascii_lowercase());
    own && !rest.is_empty() && scheme.chars().all(good) && rest.chars().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    #[test]
    fn public_url_falls_back_to_the_listener() {
        let mut config = Layers::default().load().expect("the defaults are good");
        assert_eq!(config.public_url(), "http://127.0.0.1:8080");
        config.server.public_url = "https://mcp.example.com/".to_owned();
        assert_eq!(config.public_url(), "https://mcp.example.com");
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn hosts_have_no_ports() {
        for good in ["mcp.example.com", "MCP.example.com", "10.0.0.1", "[::1]", "localhost"] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "a:80", "https://a", "a/b", "::1", "user@a", "a b", "*.example.com ", "a?b", "a#b"] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn origins_are_as_browsers_send_them() {
        for good in
            ["https://a.example", "http://localhost:3000", "vscode-webview://0abc-1", "http://[::1]:1"]
        {
            assert!(is_browser_origin(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "null",
            "a.example",
            "https://a.example/",
            "https://A.example",
            "https://a.example:443",
            "https://u:p@a.example",
            "https:/a.example",
            "x://",
            "://a",
            "https://a.example/x",
        ] {
            assert!(!is_browser_origin(bad), "{bad}");
        }
    }
}
