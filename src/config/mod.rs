//! Configuration: one struct per concern, filled from `config/default.toml`, a file, the environment and flags.
//!
//! This is the only room that reads the environment. Every key stands in `config/default.toml` with its meaning;
//! [`Layers::load`] refuses what is not there.

mod billing;
mod load;
mod merge;
#[cfg(test)]
mod tests;
mod validate;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

pub use billing::{Billing, amount_of, exact_decimal, per_micro};
pub use load::{ConfigError, DEFAULTS, Layers, PREFIX};
pub use validate::Invalid;

/// Everything that can be configured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The public listener and what it accepts.
    pub server: Server,
    /// The admin API.
    pub admin: Admin,
    /// The Prometheus listener.
    pub metrics: Metrics,
    /// The database.
    pub database: Database,
    /// What replicas share.
    pub redis: Redis,
    /// Credentials.
    pub auth: Auth,
    /// Rates and concurrency.
    pub limits: Limits,
    /// The protocol.
    pub mcp: Mcp,
    /// Prices and the ledger.
    pub metering: Metering,
    /// Stripe.
    pub billing: Billing,
    /// Built-in tools.
    pub tools: Tools,
    /// Logs.
    pub log: Log,
    /// Traces.
    pub otel: Otel,
}

/// A time in milliseconds in the file, a [`Duration`] in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub struct Millis(u64);

impl Millis {
    /// As a duration.
    #[must_use]
    pub const fn get(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// From milliseconds.
    #[must_use]
    pub const fn new(millis: u64) -> Self {
        Self(millis)
    }
}

/// `[server]`: the public listener and what it accepts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "every key is documented in config/default.toml")]
pub struct Server {
    #[serde(deserialize_with = "value::address")]
    pub listen: SocketAddr,
    pub public_url: String,
    pub allowed_hosts: Vec<String>,
    pub allowed_origins: Vec<String>,
    #[serde(deserialize_with = "value::networks")]
    pub trusted_proxies: Vec<IpNet>,
    pub max_connections: usize,
    #[serde(rename = "header_read_timeout_ms")]
    pub header_read_timeout: Millis,
    #[serde(rename = "body_read_timeout_ms")]
    pub body_read_timeout: Millis,
    #[serde(rename = "dead_peer_timeout_ms")]
    pub dead_peer_timeout: Millis,
    pub max_header_bytes: usize,
    pub max_headers: usize,
    pub max_body_bytes: usize,
    pub max_json_depth: usize,
    #[serde(rename = "drain_delay_ms")]
    pub drain_delay: Millis,
    #[serde(rename = "drain_timeout_ms")]
    pub drain_timeout: Millis,
}

/// `[admin]`: the admin API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "every key is documented in config/default.toml")]
pub struct Admin {
    pub enabled: bool,
    #[serde(deserialize_with = "value::optional_address")]
    pub listen: Option<SocketAddr>,
}

/// `[metrics]`: the Prometheus listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "every key is documented in config/default.toml")]
pub struct Metrics {
    #[serde(deserialize_with = "value::optional_address")]
    pub listen: Option<SocketAddr>,
}

/// `[database]`: the database.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "every key is documented in config/default.toml")]
pub struct Database {
    /// Holds a password, so it does not print.
    pub url: SecretString,
    pub max_connections: u32,
    #[serde(rename = "acquire_timeout_ms")]
    pub acquire_timeout: Millis,
    #[serde(rename = "statement_timeout_ms")]
    pub statement_timeout: Millis,
}

/// `[redis]`: what replicas share.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "every key is documented in config/default.toml")]
pub struct Redis {
    /// Holds a password, so it does not print. Empty: this process is alone.
    pub url: SecretString,
    #[serde(deserialize_with = "value::optional_path")]
    pub ca_file: Option<PathBuf>,
    pub prefix: String,
    #[serde(rename = "timeout_ms")]
    pub timeout: Millis,
    #[serde(rename = "lease_ms")]
    pub lease: Millis,
}

impl Redis {
    /// Whether there is one.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        !self.url.expose_secret().is_empty()
    }
}

/// `[auth]`: credentials.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "every key is documented in config/default.toml")]
pub struct Auth {
    pub cache_entries: usize,
    #[serde(rename = "cache_ttl_ms")]
    pub cache_ttl: Millis,
    #[serde(rename = "stale_ms")]
    pub stale: Millis,
    #[serde(rename = "invalidation_poll_ms")]
    pub invalidation_poll: Millis,
    #[serde(rename = "failure_floor_ms")]
    pub failure_floor: Millis,
    pub issuers: Vec<Issuer>,
}

/// One `[[auth.issuers]]`: a JWT issuer that is trusted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "every key is documented in config/default.toml")]
pub struct Issuer {
    pub issuer: String,
    #[serde(default)]
    pub jwks_url: Option<String>,
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    pub algorithms: Vec<String>,
    #[serde(default)]
    pub audience: String,
    #[serde(default = "default_tenant_claim")]
    pub tenant_claim: String,
    #[serde(default = "default_scope_claim")]
    pub scope_claim: String,
    #[serde(rename = "skew_ms", default = "default_skew")]
    pub skew: Millis,
}

fn default_tenant_claim() -> String {
    "tenant_id".to_owned()
}

fn default_scope_claim() -> String {
    "scope".to_owned()
}

const fn default_skew() -> Millis {
    Millis::new(30_000)
}

/// `[limits]`: rates and concurrency.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "every key is documented in config/default.toml")]
pub struct Limits {
    pub without_redis: WithoutRedis,
    pub ip: Rate,
    pub tenant: TenantLimits,
    pub key: Rate,
}

/// What holds callers to their limits while Redis is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WithoutRedis {
    /// Each replica by itself, at the limit divided by the replicas last known.
    Local,
    /// Nobody is let in.
    Refuse,
}

/// A token bucket: `burst` at once, refilled at `per_second`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "every key is documented in config/default.toml")]
pub struct Rate {
    pub per_second: u32,
    pub burst: u32,
}

/// `[limits.tenant]`: what one tenant may use.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "every key is documented in config/default.toml")]
pub struct TenantLimits {
    pub per_second: u32,
    pub burst: u32,
    pub concurrency: u32,
    pub sessions: u32,
    pub streams: u32,
    pub questions: u32,
    pub bytes_per_second: u32,
    pub bytes_burst: u32,
}

impl TenantLimits {
    /// The bucket of requests.
    #[must_use]
    pub const fn rate(&self) -> Rate {
        Rate { per_second: self.per_second, burst: self.burst }
    }

    /// The bucket of bytes, where there is one.
    #[must_use]
    pub fn bytes(&self) -> Option<Rate> {
        let rate = Rate { per_second: self.bytes_per_second, burst: self.bytes_burst };
        (rate.per_second > 0).then_some(rate)
    }
}

/// `[mcp]`: the protocol.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "every key is documented in config/default.toml")]
pub struct Mcp {
    pub server_name: String,
    pub instructions: String,
    pub page_size: usize,
    #[serde(rename = "list_ttl_ms")]
    pub list_ttl: Millis,
    #[serde(rename = "tool_timeout_ms")]
    pub tool_timeout: Millis,
    #[serde(rename = "stream_after_ms")]
    pub stream_after: Millis,
    #[serde(rename = "heartbeat_ms")]
    pub heartbeat: Millis,
    #[serde(rename = "session_idle_ms")]
    pub session_idle: Millis,
    #[serde(rename = "session_unused_ms")]
    pub session_unused: Millis,
    #[serde(rename = "sse_grace_ms")]
    pub sse_grace: Millis,
    #[serde(rename = "input_timeout_ms")]
    pub input_timeout: Millis,
    #[serde(rename = "retry_ms")]
    pub retry: Millis,
    #[serde(rename = "stream_max_ms")]
    pub stream_max: Millis,
    #[serde(rename = "replay_ms")]
    pub replay: Millis,
    pub replay_bytes: usize,
    pub replay_tenant_bytes: usize,
    pub replay_total_bytes: usize,
    pub max_batch: usize,
}

/// `[metering]`: prices and the ledger.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "every key is documented in config/default.toml")]
pub struct Metering {
    #[serde(rename = "lead_ms")]
    pub lead: Millis,
    #[serde(rename = "lease_ms")]
    pub lease: Millis,
    #[serde(rename = "idle_ms")]
    pub idle: Millis,
    #[serde(rename = "settle_timeout_ms")]
    pub settle_timeout: Millis,
    pub replay_hours: u32,
    pub replay_bytes: usize,
    pub top_up_url: String,
    pub keep_months: u32,
}

/// `[tools]`: built-in tools.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "every key is documented in config/default.toml")]
pub struct Tools {
    pub dns: Dns,
}

/// `[tools.dns]`: the resolver behind `dns_resolve`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "every key is documented in config/default.toml")]
pub struct Dns {
    #[serde(deserialize_with = "value::resolver_addresses")]
    pub resolvers: Vec<SocketAddr>,
    #[serde(rename = "timeout_ms")]
    pub timeout: Millis,
}

/// `[log]`: logs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "every key is documented in config/default.toml")]
pub struct Log {
    pub filter: String,
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// One readable line per event.
    Human,
    /// One JSON object per event.
    Json,
}

/// `[otel]`: traces.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "every key is documented in config/default.toml")]
pub struct Otel {
    pub endpoint: String,
    pub service_name: String,
    pub sample_ratio: f64,
}
