//! Connections: where the URL leads, and what comes of it.
//!
//! | URL | |
//! |---|---|
//! | `redis://[USER:PASSWORD@]HOST[:PORT][/DB]` | one node |
//! | `redis+sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT].../MASTER[/DB]` | the master that the sentinels name |
//! | `redis+cluster://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]...` | a Cluster, found through any of its nodes |
//!
//! With `rediss` in place of `redis` the nodes are reached over TLS, and so are the sentinels.

use std::path::Path;

use deadpool_redis::{cluster, sentinel};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{Client, Cmd, ConnectionInfo, IntoConnectionInfo, Pipeline, RedisFuture, TlsCertificates, Value};

/// Connections that may be made at once.
const MAX: usize = 4;

/// A connection that any number of tasks may use at once.
#[derive(Clone)]
pub enum Connection {
    /// To one node, or to the master that Sentinel names.
    Node(MultiplexedConnection),
    /// To all nodes of a Cluster.
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Node(node) => node.req_packed_command(cmd),
            Self::Cluster(cluster) => cluster.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Node(node) => node.req_packed_commands(cmd, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Node(node) => node.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
        }
    }
}

/// Where connections come from.
pub(super) enum Pool {
    Node(deadpool_redis::Pool),
    Sentinel(sentinel::Pool),
    Cluster(cluster::Pool),
}

impl Pool {
    /// A pool for this URL; connects nothing.
    ///
    /// # Errors
    /// What is wrong with the URL or with the file. Names neither user nor password.
    pub(super) fn new(url: &str, ca_file: Option<&Path>) -> Result<Self, String> {
        let target = Target::parse(url)?;
        let ca = ca_file.map(std::fs::read).transpose().map_err(|e| format!("redis.ca_file: {e}"))?;
        let infos = target.infos(ca.as_deref())?;
        let builds = |error: &dyn std::fmt::Display| format!("cannot be used: {error}");
        match target.kind {
            Kind::Node => {
                let info = infos.into_iter().next().ok_or("names no host")?;
                let manager = deadpool_redis::Manager::new(info).map_err(|e| builds(&e))?;
                let pool = deadpool_redis::Pool::builder(manager).max_size(MAX).build();
                pool.map(Self::Node).map_err(|e| builds(&e))
            }
            Kind::Sentinel => {
                let node = sentinel::SentinelNodeConnectionInfo {
                    tls_mode: target.tls.then_some(sentinel::TlsMode::Secure),
                    redis_connection_info: Some(target.login()),
                };
                let manager = sentinel::Manager::new(
                    infos,
                    target.master.clone(),
                    Some(node),
                    sentinel::SentinelServerType::Master,
                );
                let manager = manager.map_err(|e| builds(&e))?;
                let pool = sentinel::Pool::builder(manager).max_size(MAX).build();
                pool.map(Self::Sentinel).map_err(|e| builds(&e))
            }
            Kind::Cluster => {
                let manager = cluster::Manager::new(infos, false).map_err(|e| builds(&e))?;
                let pool = cluster::Pool::builder(manager).max_size(MAX).build();
                pool.map(Self::Cluster).map_err(|e| builds(&e))
            }
        }
    }

    /// A new connection, which leaves the pool: what comes of it is shared or kept, not given back.
    pub(super) async fn connect(&self) -> Result<Connection, String> {
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        match self {
            Self::Node(pool) => {
                let object = pool.get().await.map_err(|e| failed(&e))?;
                Ok(Connection::Node(deadpool_redis::Connection::take(object)))
            }
            Self::Sentinel(pool) => {
                let object = pool.get().await.map_err(|e| failed(&e))?;
                Ok(Connection::Node(sentinel::Connection::take(object)))
            }
            Self::Cluster(pool) => {
                let object = pool.get().await.map_err(|e| failed(&e))?;
                Ok(Connection::Cluster(cluster::Connection::take(object)))
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Node,
    Sentinel,
    Cluster,
}

/// A URL, taken apart.
struct Target {
    kind: Kind,
    tls: bool,
    /// `USER:PASSWORD@`, as it stood in the URL, or nothing.
    user: String,
    hosts: Vec<String>,
    master: String,
    database: String,
}

impl Target {
    fn parse(url: &str) -> Result<Self, String> {
        let expected = "expected redis://HOST, rediss://HOST (TLS), redis+sentinel://HOST,HOST/MASTER or \
                        redis+cluster://HOST,HOST";
        let (scheme, rest) = url.split_once("://").ok_or(expected)?;
        let (scheme, kind) = match scheme.split_once('+') {
            None => (scheme, Kind::Node),
            Some((scheme, "sentinel")) => (scheme, Kind::Sentinel),
            Some((scheme, "cluster")) => (scheme, Kind::Cluster),
            Some(_) => return Err(expected.to_owned()),
        };
        let tls = match scheme {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(expected.to_owned()),
        };
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (format!("{user}@"), rest),
            None => (String::new(), rest),
        };
        let mut path = rest.split('/');
        let hosts: Vec<String> = path.next().unwrap_or_default().split(',').map(str::to_owned).collect();
        if hosts.iter().any(String::is_empty) || (kind == Kind::Node && hosts.len() > 1) {
            return Err(expected.to_owned());
        }
        let master = match kind {
            Kind::Sentinel => path.next().filter(|name| !name.is_empty()).ok_or(expected)?.to_owned(),
            Kind::Node | Kind::Cluster => String::new(),
        };
        let database = path.next().unwrap_or_default().to_owned();
        let is_number = database.bytes().all(|b| b.is_ascii_digit());
        if path.next().is_some() || !is_number || (kind == Kind::Cluster && !database.is_empty()) {
            return Err(expected.to_owned());
        }
        Ok(Self { kind, tls, user, hosts, master, database })
    }

    /// How to reach each host. Sentinels have neither our user nor a database.
    fn infos(&self, ca: Option<&[u8]>) -> Result<Vec<ConnectionInfo>, String> {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let (user, database) = match self.kind {
            Kind::Sentinel => ("", ""),
            Kind::Node | Kind::Cluster => (self.user.as_str(), self.database.as_str()),
        };
        let port = if self.kind == Kind::Sentinel { ":26379" } else { "" };
        let info = |host: &String| {
            let port = if host.rsplit_once(']').map_or(host.as_str(), |(_, rest)| rest).contains(':') {
                ""
            } else {
                port
            };
            let url = format!("{scheme}://{user}{host}{port}/{database}");
            // The parser's own words might repeat the password.
            let wrong = |_| format!("the part for {host} cannot be read; percent-encode special characters");
            let info = url.into_connection_info().map_err(wrong)?;
            match ca {
                None => Ok(info),
                Some(ca) => {
                    let certificates = TlsCertificates { client_tls: None, root_cert: Some(ca.to_vec()) };
                    let client = Client::build_with_tls(info, certificates)
                        .map_err(|_| "redis.ca_file holds no certificate in PEM".to_owned())?;
                    Ok(client.get_connection_info().clone())
                }
            }
        };
        self.hosts.iter().map(info).collect()
    }

    /// User, password and database of the node that Sentinel names.
    fn login(&self) -> deadpool_redis::RedisConnectionInfo {
        let decode = |text: &str| {
            let text = percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
            (!text.is_empty()).then_some(text)
        };
        let (user, password) = self.user.trim_end_matches('@').split_once(':').unwrap_or_default();
        deadpool_redis::RedisConnectionInfo {
            db: self.database.parse().unwrap_or(0),
            username: decode(user),
            password: decode(password),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_where_they_say() {
        for (url, kind, hosts, master, database) in [
            ("redis://127.0.0.1", Kind::Node, 1, "", ""),
            ("rediss://user:p%40ss@cache.test:6380/2", Kind::Node, 1, "", "2"),
            ("valkey://[::1]:6379", Kind::Node, 1, "", ""),
            ("redis+sentinel://:secret@a:1,b:2,c/main/3", Kind::Sentinel, 3, "main", "3"),
            ("rediss+cluster://u:p@a:1,b:2", Kind::Cluster, 2, "", ""),
        ] {
            let target = Target::parse(url).unwrap_or_else(|e| panic!("{url}: {e}"));
            assert_eq!(target.kind, kind, "{url}");
            assert_eq!(
                (target.hosts.len(), &*target.master, &*target.database),
                (hosts, master, database),
                "{url}"
            );
            assert_eq!(target.infos(None).expect(url).len(), hosts);
        }
        let sentinel = Target::parse("redis+sentinel://me:s%20cret@a/main").expect("a target");
        let login = sentinel.login();
        assert_eq!((login.username.as_deref(), login.password.as_deref()), (Some("me"), Some("s cret")));
        assert_eq!(sentinel.infos(None).expect("infos")[0].addr().to_string(), "a:26379");
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
            "redis+sentinel://a",
            "redis+sentinel://a/",
            "redis+cluster://a,,b",
            "redis+cluster://a/1",
            "redis+other://a",
            "redis://u:hunter2@a:port",
        ] {
            let error = Pool::new(url, None).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
