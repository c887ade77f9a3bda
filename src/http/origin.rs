//! Host and Origin: allow-lists against DNS rebinding (2026-07-28 "Streamable HTTP: Security & Endpoint").
//!
//! Loopback names are always allowed: a browser that was lured to a name of the attacker's sends that name.

use std::collections::HashSet;

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

use crate::config::Config;

/// The hosts and origins that are let in.
#[derive(Debug, Clone)]
pub struct Allowed {
    hosts: HashSet<String>,
    origins: HashSet<String>,
}

impl Allowed {
    /// Those of the configuration and of the public URL.
    #[must_use]
    pub fn from(config: &Config) -> Self {
        let public = config.public_url().to_ascii_lowercase();
        let authority = public.split_once("://").map_or("", |(_, rest)| rest);
        let hosts = config.server.allowed_hosts.iter().map(|h| h.to_ascii_lowercase());
        let origins = config.server.allowed_origins.iter().map(|o| o.to_ascii_lowercase());
        Self {
            hosts: hosts.chain([without_port(authority).to_owned()]).collect(),
            origins: origins.chain([public.clone()]).collect(),
        }
    }

    /// Whether the request names a host that is ours. `authority` is the one of an HTTP/2 request target.
    #[must_use]
    pub fn host(&self, headers: &HeaderMap, authority: Option<&str>) -> bool {
        let mut values = headers.get_all(HOST).iter();
        let host = match (authority, values.next(), values.next()) {
            (_, _, Some(_)) | (None, None, None) => return false,
            (Some(authority), ..) => authority,
            (None, Some(value), None) => match value.to_str() {
                Ok(host) => host,
                Err(_) => return false,
            },
        };
        let name = without_port(host).to_ascii_lowercase();
        is_loopback(&name) || self.hosts.contains(&name)
    }

    /// Whether the request comes from no browser page or from one that is let in.
    #[must_use]
    pub fn origin(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(ORIGIN).iter();
        let Some(value) = values.next() else { return true };
        values.next().is_none() && value.to_str().is_ok_and(|origin| self.is_origin(origin))
    }

    /// Whether pages of this origin are let in.
    #[must_use]
    pub fn is_origin(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        if self.origins.contains(&origin) {
            return true;
        }
        match origin.split_once("://") {
            Some(("http" | "https", authority)) => is_loopback(without_port(authority)),
            _ => false,
        }
    }
}

fn without_port(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.find(']').map_or(authority, |end| &authority[..=end]);
    }
    authority.split(':').next().unwrap_or(authority)
}

fn is_loopback(name: &str) -> bool {
    matches!(name, "localhost" | "[::1]")
        || name.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Allowed {
        Allowed {
            hosts: ["mcp.example.com".to_owned()].into(),
            origins: ["https://app.example.com".to_owned()].into(),
        }
    }

    #[test]
    fn hosts() {
        for (host, want) in [
            ("localhost", true),
            ("localhost:8080", true),
            ("127.0.0.1:1", true),
            ("[::1]:8080", true),
            ("MCP.example.com:443", true),
            ("evil.example.com", false),
            ("localhost.evil.example.com", false),
            ("127.0.0.1.nip.io", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().expect("a value"));
            assert_eq!(allowed().host(&headers, None), want, "{host}");
        }
        assert!(!allowed().host(&HeaderMap::new(), None));
        assert!(allowed().host(&HeaderMap::new(), Some("mcp.example.com")));
    }

    #[test]
    fn origins() {
        for (origin, want) in [
            ("https://app.example.com", true),
            ("http://localhost:5173", true),
            ("https://127.0.0.1", true),
            ("https://evil.example.com", false),
            ("http://localhost.evil.example.com", false),
            ("null", false),
            ("file://", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, origin.parse().expect("a value"));
            assert_eq!(allowed().origin(&headers), want, "{origin}");
        }
        assert!(allowed().origin(&HeaderMap::new()));
    }
}
