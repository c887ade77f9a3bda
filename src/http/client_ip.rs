//! Where a request comes from, and how many strangers may come from there.
//!
//! The peer's address counts, unless the peer is a trusted proxy: then the right-most address of `X-Forwarded-For` that
//! is not one of ours. IPv6 addresses are told apart by their /64, which is what one customer of a provider gets.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use http::HeaderMap;
use ipnet::IpNet;
use tower_governor::GovernorError;
use tower_governor::governor::{GovernorConfig, GovernorConfigBuilder};
use tower_governor::key_extractor::KeyExtractor;

use crate::config::Rate;

/// The client's address, as a request extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientIp(pub IpAddr);

/// The address that counts for a request.
#[must_use]
pub fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_ours = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    let peer = peer.to_canonical();
    if !is_ours(peer) {
        return peer;
    }
    let mut nearest = peer;
    for value in headers.get_all("x-forwarded-for").into_iter().rev() {
        for hop in value.to_str().unwrap_or("").rsplit(',') {
            let Some(ip) = parse_hop(hop.trim()) else { return nearest };
            nearest = ip.to_canonical();
            if !is_ours(nearest) {
                return nearest;
            }
        }
    }
    nearest
}

/// An address, as proxies write it: bare, with a port, or in brackets.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    if let Ok(ip) = hop.parse() {
        return Some(ip);
    }
    if let Ok(socket) = hop.parse::<std::net::SocketAddr>() {
        return Some(socket.ip());
    }
    hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// What is counted together.
fn group(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// Counts by [`ClientIp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByClientIp;

impl KeyExtractor for ByClientIp {
    type Key = IpAddr;

    fn extract<T>(&self, request: &http::Request<T>) -> Result<IpAddr, GovernorError> {
        request.extensions().get::<ClientIp>().map(|ip| group(ip.0)).ok_or(GovernorError::UnableToExtractKey)
    }
}

type Config = GovernorConfig<ByClientIp, governor::middleware::NoOpMiddleware>;

/// The per-address limit on requests without a credential that is known already.
#[derive(Clone)]
pub struct Flood(Arc<Config>);

impl Flood {
    /// A limit of this rate.
    ///
    /// # Errors
    /// A sentence where the rate is 0.
    pub fn new(rate: Rate) -> Result<Self, String> {
        let period = Duration::from_secs(1) / rate.per_second.max(1);
        GovernorConfigBuilder::default()
            .period(period)
            .burst_size(rate.burst)
            .key_extractor(ByClientIp)
            .finish()
            .map(|config| Self(Arc::new(config)))
            .ok_or_else(|| "limits.ip: per_second and burst must be at least 1".to_owned())
    }

    /// Counts one request of a stranger.
    ///
    /// # Errors
    /// Seconds until the next one is welcome.
    pub fn check(&self, ip: ClientIp) -> Result<(), u32> {
        use governor::clock::{Clock, DefaultClock};
        self.0.limiter().check_key(&group(ip.0)).map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
        })
    }

    /// The same limit as a layer, for routes that ask for no credential.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.0.clone()
    }

    /// Forgets addresses that have their whole burst again.
    pub fn forget_quiet(&self) {
        self.0.limiter().retain_recent();
        self.0.limiter().shrink_to_fit();
    }
}

/// The client's address of a request; loopback where the middleware did not run (it always does behind a listener).
#[must_use]
pub fn of(request: &Request) -> ClientIp {
    request.extensions().get::<ClientIp>().copied().unwrap_or(ClientIp(IpAddr::V6(Ipv6Addr::LOCALHOST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_addresses_count_only_behind_trusted_proxies() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().expect("a network")];
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (peer, forwarded, want) in [
            ("203.0.113.9", Some("198.51.100.1"), "203.0.113.9"),
            ("10.0.0.1", None, "10.0.0.1"),
            ("10.0.0.1", Some("198.51.100.1"), "198.51.100.1"),
            ("10.0.0.1", Some("1.1.1.1, 198.51.100.1"), "198.51.100.1"),
            ("10.0.0.1", Some("198.51.100.1, 10.0.0.7"), "198.51.100.1"),
            ("10.0.0.1", Some("evil, 10.0.0.7"), "10.0.0.7"),
            ("10.0.0.1", Some("198.51.100.1:4711"), "198.51.100.1"),
            ("10.0.0.1", Some("[2001:db8::1]:4711"), "2001:db8::1"),
            ("::ffff:10.0.0.1", Some("198.51.100.1"), "198.51.100.1"),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(value) = forwarded {
                headers.insert("x-forwarded-for", value.parse().expect("a value"));
            }
            assert_eq!(client_ip(ip(peer), &headers, &trusted), ip(want), "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn a_burst_of_strangers_then_a_wait() {
        let flood = Flood::new(Rate { per_second: 1, burst: 2 }).expect("a limit");
        let ip = ClientIp("2001:db8::1".parse().expect("an address"));
        let neighbour = ClientIp("2001:db8::2".parse().expect("an address"));
        assert!(flood.check(ip).is_ok() && flood.check(neighbour).is_ok());
        assert_eq!(flood.check(ip), Err(1));
    }
}
