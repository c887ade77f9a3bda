//! Connections, and the pools that bound them.

use std::path::Path;
use std::time::Duration;

use deadpool::managed::{self, Metrics, Object, RecycleError, RecycleResult};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, Pipeline, RedisError, RedisFuture, RedisResult, TlsCertificates,
    TlsMode, Value,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::Mutex;

use super::url::{Kind, Target};

/// Connections for commands: one that is used, and one that comes about in its place.
const LANES: usize = 2;
/// Connections for commands that block.
const BLOCKING: usize = 4;
/// How long one server may take to be connected to.
const CONNECT: Duration = Duration::from_secs(1);
/// What the client library does about a Cluster's redirections and short absences, within the time that a command has.
const CLUSTER_RETRIES: u32 = 5;
const CLUSTER_RETRY_MS: (u64, u64) = (5, 100);

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

/// A connection and its place in a pool. It is used until it breaks, and closed with this value.
pub struct Held {
    /// The connection.
    pub connection: Connection,
    place: Option<Object<Source>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Given back it would stay open until somebody wants one.
        drop(self.place.take().map(Object::take));
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Commands,
    Blocking,
}

/// Where connections come from. Bounded, and none is made before somebody wants one.
pub(super) struct Pools {
    pub(super) is_cluster: bool,
    commands: managed::Pool<Source>,
    blocking: managed::Pool<Source>,
}

impl Pools {
    /// Pools for this URL. An answer may take so long for commands and for those that block; whoever waits for one sets
    /// limits of their own, and this is how the client library notices that a server is gone.
    ///
    /// # Errors
    /// What is wrong with the URL or with the file, by their keys. Names neither user nor password.
    pub(super) fn new(
        url: &str,
        ca_file: Option<&Path>,
        (commands, blocking): (Duration, Duration),
    ) -> Result<Self, String> {
        let target = Target::parse(url).map_err(|text| format!("redis.url: {text}"))?;
        let ca = match ca_file {
            None => None,
            Some(_) if !target.tls => {
                return Err("redis.ca_file: redis.url is none of TLS; expected rediss".to_owned());
            }
            Some(file) => Some(read_ca(file).map_err(|text| format!("redis.ca_file: {text}"))?),
        };
        let pool = |answer: Duration, size: usize| {
            let source = Source::new(&target, ca.as_ref(), answer);
            let source = source.map_err(|error| format!("redis.url: cannot be used: {error}"))?;
            let pool = managed::Pool::builder(source).max_size(size).build();
            pool.map_err(|error| format!("redis.url: cannot be used: {error}"))
        };
        Ok(Self {
            is_cluster: target.kind == Kind::Cluster,
            commands: pool(commands, LANES)?,
            blocking: pool(blocking, BLOCKING)?,
        })
    }

    /// A new connection, as soon as there is a place for it.
    pub(super) async fn connect(&self, purpose: Purpose) -> Result<Held, String> {
        let pool = match purpose {
            Purpose::Commands => &self.commands,
            Purpose::Blocking => &self.blocking,
        };
        let object = pool.get().await.map_err(|error| error.to_string())?;
        Ok(Held { connection: object.clone(), place: Some(object) })
    }
}

/// Certificate authorities in PEM.
fn read_ca(file: &Path) -> Result<TlsCertificates, String> {
    let text = std::fs::read(file).map_err(|error| error.to_string())?;
    let mut certificates = CertificateDer::pem_slice_iter(&text).peekable();
    if certificates.peek().is_none() || certificates.any(|certificate| certificate.is_err()) {
        return Err("holds no certificate in PEM".to_owned());
    }
    Ok(TlsCertificates { client_tls: None, root_cert: Some(text) })
}

/// What makes connections.
pub(super) struct Source {
    config: AsyncConnectionConfig,
    servers: Servers,
}

enum Servers {
    Node(deadpool_redis::Manager),
    Sentinel(Sentinels),
    Cluster(ClusterClient),
}

impl Source {
    fn new(target: &Target, ca: Option<&TlsCertificates>, answer: Duration) -> RedisResult<Self> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(answer));
        let servers = match target.kind {
            Kind::Node => {
                let info = target.hosts[0].clone();
                let info = match ca {
                    None => info,
                    Some(ca) => Client::build_with_tls(info, ca.clone())?.get_connection_info().clone(),
                };
                Servers::Node(deadpool_redis::Manager::new_with_config(info, config.clone())?)
            }
            // The managers that deadpool-redis has for these two know neither an authority nor a time limit.
            Kind::Sentinel => Servers::Sentinel(Sentinels::new(target, ca)?),
            Kind::Cluster => {
                let mut builder = ClusterClientBuilder::new(target.hosts.clone())
                    .connection_timeout(CONNECT)
                    .response_timeout(answer)
                    .retries(CLUSTER_RETRIES)
                    .min_retry_wait(CLUSTER_RETRY_MS.0)
                    .max_retry_wait(CLUSTER_RETRY_MS.1);
                if let Some(ca) = ca {
                    builder = builder.certs(ca.clone());
                }
                Servers::Cluster(builder.build()?)
            }
        };
        Ok(Self { config, servers })
    }
}

impl managed::Manager for Source {
    type Type = Connection;
    type Error = RedisError;

    async fn create(&self) -> RedisResult<Connection> {
        match &self.servers {
            Servers::Node(manager) => manager.create().await.map(Connection::Node),
            Servers::Sentinel(sentinels) => sentinels.master(&self.config).await.map(Connection::Node),
            Servers::Cluster(client) => client.get_async_connection().await.map(Connection::Cluster),
        }
    }

    async fn recycle(&self, _: &mut Connection, _: &Metrics) -> RecycleResult<RedisError> {
        Err(RecycleError::message("connections are used until they break"))
    }
}

/// Who knows the master.
struct Sentinels {
    /// Two clients where there is a password: sentinels may have one, the same as the nodes, and refuse one where they have
    /// none. The one that worked last is the first.
    clients: Mutex<Vec<SentinelClient>>,
}

impl Sentinels {
    fn new(target: &Target, ca: Option<&TlsCertificates>) -> RedisResult<Self> {
        let mut clients = vec![Self::client(target, ca, false)?];
        if target.login.password().is_some() {
            clients.push(Self::client(target, ca, true)?);
        }
        Ok(Self { clients: Mutex::new(clients) })
    }

    fn client(target: &Target, ca: Option<&TlsCertificates>, asked: bool) -> RedisResult<SentinelClient> {
        let addresses = target.hosts.iter().map(|host| host.addr().clone());
        let mut builder = SentinelClientBuilder::new(addresses, &target.master, SentinelServerType::Master)?
            .set_client_to_redis_db(target.login.db());
        if let Some(user) = target.login.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = target.login.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if target.tls {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        if let Some(ca) = ca {
            builder = builder.set_client_to_redis_certificates(ca.clone());
            builder = builder.set_client_to_sentinel_certificates(ca.clone());
        }
        if let (true, Some(password)) = (asked, target.login.password()) {
            builder = builder.set_client_to_sentinel_password(password);
        }
        builder.build()
    }

    async fn master(&self, config: &AsyncConnectionConfig) -> RedisResult<MultiplexedConnection> {
        let mut clients = self.clients.lock().await;
        let mut outcome =
            Err(RedisError::from((redis::ErrorKind::EmptySentinelList, "no sentinel is known")));
        for position in 0..clients.len() {
            let tried = clients[position].get_async_connection_with_config(config).await;
            if tried.is_ok() {
                clients.swap(0, position);
                return tried;
            }
            // What the one said that worked last tells more.
            if position == 0 {
                outcome = tried;
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str, ca_file: Option<&Path>) -> String {
        let time = Duration::from_secs(1);
        Pools::new(url, ca_file, (time, time)).err().unwrap_or_else(|| panic!("{url} was taken"))
    }

    #[test]
    fn the_key_that_is_wrong_is_named() {
        crate::egress::install_crypto();
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("ca.pem");
        assert!(refused("redis://a,b", None).starts_with("redis.url: expected"));
        assert!(refused("rediss://a", Some(&file)).starts_with("redis.ca_file: No such file"));
        for text in ["", "no certificate", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&file, text).expect("written");
            assert_eq!(
                refused("rediss://a", Some(&file)),
                "redis.ca_file: holds no certificate in PEM",
                "{text}"
            );
        }
        let key = rcgen::generate_simple_self_signed(["a".to_owned()]).expect("a certificate");
        std::fs::write(&file, key.cert.pem()).expect("written");
        let time = Duration::from_secs(1);
        for url in ["rediss://a", "rediss+sentinel://:p@a,b/main", "rediss+cluster://a,b"] {
            let pools = Pools::new(url, Some(&file), (time, time));
            assert!(pools.is_ok(), "{url}: {:?}", pools.err());
        }
        assert!(refused("redis://a", Some(&file)).contains("rediss"));
    }
}
