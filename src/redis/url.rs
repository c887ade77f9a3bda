//! Where a URL leads.
//!
//! | URL | |
//! |---|---|
//! | `redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]` | one node |
//! | `redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT],HOST[:PORT].../MASTER[/DB]` | the master that the sentinels name |
//! | `redis+cluster://[[USER]:PASSWORD@]HOST[:PORT],HOST[:PORT]...` | a Cluster, found through any of its nodes |
//!
//! With `rediss` in place of `redis` the nodes are reached over TLS, and so are the sentinels. `valkey` and `valkeys` mean
//! the same.

use redis::{ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

/// What stands behind a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Node,
    Sentinel,
    Cluster,
}

/// A URL, taken apart.
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) tls: bool,
    /// How to reach each host. Sentinels have neither user nor database.
    pub(super) hosts: Vec<ConnectionInfo>,
    /// What sentinels call the master; otherwise empty.
    pub(super) master: String,
    /// User, password and database of the nodes.
    pub(super) login: RedisConnectionInfo,
}

const EXPECTED: &str = "expected redis://HOST, rediss://HOST (TLS), redis+sentinel://HOST,HOST/MASTER or redis+cluster://HOST,HOST";
const SENTINEL_PORT: &str = ":26379";

impl Target {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// What is wrong with it, without its user and its password.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or(EXPECTED)?;
        let (scheme, kind) = match scheme.split_once('+') {
            None => (scheme, Kind::Node),
            Some((scheme, "sentinel")) => (scheme, Kind::Sentinel),
            Some((scheme, "cluster")) => (scheme, Kind::Cluster),
            Some(_) => return Err(EXPECTED.to_owned()),
        };
        let tls = match scheme {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(EXPECTED.to_owned()),
        };
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (format!("{user}@"), rest),
            None => (String::new(), rest),
        };
        let mut path = rest.split('/');
        let hosts: Vec<&str> = path.next().unwrap_or_default().split(',').collect();
        if hosts.iter().any(|host| host.is_empty()) || (kind == Kind::Node && hosts.len() > 1) {
            return Err(EXPECTED.to_owned());
        }
        let master = match kind {
            Kind::Sentinel => path.next().filter(|name| !name.is_empty()).ok_or(EXPECTED)?.to_owned(),
            Kind::Node | Kind::Cluster => String::new(),
        };
        let database = path.next().unwrap_or_default();
        let is_number = database.bytes().all(|b| b.is_ascii_digit());
        if path.next().is_some() || !is_number || (kind == Kind::Cluster && !database.is_empty()) {
            return Err(EXPECTED.to_owned());
        }
        let login = info(tls, &user, "host", database)?.redis_settings().clone();
        if login.username().is_some() && login.password().is_none() {
            return Err("names a user without a password; a password alone is written :PASSWORD@".to_owned());
        }
        let reach = |host: &&str| match kind {
            Kind::Sentinel => info(tls, "", &with_port(host), ""),
            Kind::Node | Kind::Cluster => info(tls, &user, host, database),
        };
        let hosts = hosts.iter().map(reach).collect::<Result<_, _>>()?;
        Ok(Self { kind, tls, hosts, master, login })
    }
}

/// The host with the port of sentinels, where it names none.
fn with_port(host: &str) -> String {
    let after_address = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
    if after_address.contains(':') { host.to_owned() } else { format!("{host}{SENTINEL_PORT}") }
}

fn info(tls: bool, user: &str, host: &str, database: &str) -> Result<ConnectionInfo, String> {
    let scheme = if tls { "rediss" } else { "redis" };
    // The parser's own words might repeat the password.
    let wrong = |_| format!("the part for {host} cannot be read; percent-encode special characters");
    format!("{scheme}://{user}{host}/{database}").into_connection_info().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_where_they_say() {
        for (url, kind, tls, hosts, master, database) in [
            ("redis://127.0.0.1", Kind::Node, false, "127.0.0.1:6379", "", 0),
            ("rediss://user:p%40ss@cache.test:6380/2", Kind::Node, true, "cache.test:6380", "", 2),
            ("valkey://[::1]:6379", Kind::Node, false, "::1:6379", "", 0),
            (
                "redis+sentinel://:secret@a:1,[::1],c/main/3",
                Kind::Sentinel,
                false,
                "a:1 ::1:26379 c:26379",
                "main",
                3,
            ),
            ("valkeys+sentinel://a/main", Kind::Sentinel, true, "a:26379", "main", 0),
            ("rediss+cluster://u:p@a:1,b:2", Kind::Cluster, true, "a:1 b:2", "", 0),
        ] {
            let target = Target::parse(url).unwrap_or_else(|e| panic!("{url}: {e}"));
            assert_eq!((target.kind, target.tls), (kind, tls), "{url}");
            let reached: Vec<_> = target.hosts.iter().map(|host| host.addr().to_string()).collect();
            assert_eq!(
                (&*reached.join(" "), &*target.master, target.login.db()),
                (hosts, master, database),
                "{url}"
            );
        }
    }

    #[test]
    fn sentinels_get_neither_password_nor_database() {
        let target = Target::parse("redis+sentinel://me:s%20cret@a/main/1").expect("a target");
        assert_eq!((target.login.username(), target.login.password()), (Some("me"), Some("s cret")));
        let sentinel = target.hosts[0].redis_settings();
        assert_eq!((sentinel.username(), sentinel.password(), sentinel.db()), (None, None, 0));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for url in [
            "",
            "127.0.0.1:6379",
            "http://127.0.0.1",
            "redis://",
            "redis://a,b",
            "redis://a/b",
            "redis://a/0/1",
            "redis://a/0?protocol=3",
            "redis://hunter2@a",
            "redis+sentinel://a",
            "redis+sentinel://a/",
            "redis+cluster://a,,b",
            "redis+cluster://a/1",
            "redis+other://a",
            "redis://u:hunter2@a:port",
            "redis://u:hunter2#@a",
        ] {
            let error = Target::parse(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
