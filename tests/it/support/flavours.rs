//! Redis of every flavour, of a story's own: one node, over TLS, under sentinels, and as a Cluster. All of it listens on
//! loopback ports that stay the story's, wants a password, and is gone with its values.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, FromRedisValue, TlsCertificates};
use tempfile::TempDir;

use super::port::Port;
use super::private::tool;
use super::process::Process;
use super::{eventually, within};

/// The user that Weir is, who may do what docs/OPERATIONS.md says that it must.
const USER: &str = "weir";
/// What every node wants to hear, and every sentinel that wants something. In a URL it needs to be encoded.
pub const PASSWORD: &str = "p@ss:word/1";
/// The same as it stands in a URL.
const ENCODED: &str = "p%40ss%3Aword%2F1";
/// What sentinels call the master.
pub const MASTER: &str = "main";
/// Slots of a Cluster.
const SLOTS: usize = 16_384;

/// The user that the documentation proposes, for keys of tests.
fn user() -> String {
    let documentation = include_str!("../../../docs/OPERATIONS.md");
    let proposed = documentation.split_once("ACL SETUSER ").expect("a proposal").1;
    let proposed = proposed.split_once("\n\n").expect("its end").0;
    let words: Vec<_> = proposed.split_whitespace().collect();
    assert_eq!(words[..5], [USER, "on", ">PASSWORD", "resetkeys", "~weir:*"]);
    format!("user {USER} on \">{PASSWORD}\" resetkeys ~it* {}\n", words[5..].join(" "))
}

/// A certificate authority, and a certificate of its for the loopback address.
pub struct Tls {
    directory: TempDir,
}

impl Tls {
    /// A new one.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let pair = || KeyPair::generate().expect("a key pair");
        let mut authority = CertificateParams::new([]).expect("parameters");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Another name than that of the server: Redis would take the certificate for one that signed itself.
        authority.distinguished_name.push(DnType::CommonName, "authority");
        let own = pair();
        let ca = authority.self_signed(&own).expect("a certificate");
        let (issuer, key) = (Issuer::new(authority, own), pair());
        let server = CertificateParams::new(["127.0.0.1".to_owned()]).expect("parameters");
        let server = server.signed_by(&key, &issuer).expect("a certificate");
        for (name, text) in [("ca", ca.pem()), ("cert", server.pem()), ("key", key.serialize_pem())] {
            std::fs::write(directory.path().join(name), text).expect("written");
        }
        Self { directory }
    }

    /// The authority's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca")
    }

    fn settings(&self, port: u16) -> String {
        let file = |name| self.directory.path().join(name).display().to_string();
        format!(
            "port 0\ntls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\ntls-auth-clients no\n\
             tls-replication yes\ntls-cluster yes\n",
            file("cert"),
            file("key"),
            file("ca")
        )
    }
}

/// What a server is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Node,
    Sentinel,
}

/// One server, also while it does not run.
pub struct Server {
    port: Port,
    kind: Kind,
    file: PathBuf,
    ca: Option<Vec<u8>>,
    password: Option<&'static str>,
    process: Process,
    _directory: TempDir,
}

impl Server {
    /// A node with these settings beside those that all have.
    pub async fn node(tls: Option<&Tls>, settings: &str) -> Self {
        let common = format!(
            "{}requirepass \"{PASSWORD}\"\nmasterauth \"{PASSWORD}\"\nsave \"\"\nappendonly no\n\
             repl-diskless-sync-delay 0\n{settings}",
            user()
        );
        Self::start(Kind::Node, tls, &common, Some(PASSWORD)).await
    }

    async fn sentinel(tls: Option<&Tls>, settings: &str, password: Option<&'static str>) -> Self {
        let own = password.map_or_else(String::new, |password| format!("requirepass \"{password}\"\n"));
        Self::start(Kind::Sentinel, tls, &format!("{own}{settings}"), password).await
    }

    async fn start(kind: Kind, tls: Option<&Tls>, settings: &str, password: Option<&'static str>) -> Self {
        let (port, directory) = (Port::take(), tempfile::tempdir().expect("a directory"));
        let number = port.address.port();
        let reach = tls.map_or_else(|| format!("port {number}\n"), |tls| tls.settings(number));
        let file = directory.path().join("redis.conf");
        let home = directory.path().display();
        std::fs::write(&file, format!("bind 127.0.0.1\ndir {home}\n{reach}{settings}")).expect("written");
        let process = Self::run(kind, &file).await;
        let ca = tls.map(|tls| std::fs::read(tls.ca_file()).expect("a file"));
        Self { port, kind, file, ca, password, process, _directory: directory }
    }

    async fn run(kind: Kind, file: &Path) -> Process {
        let mut command = Command::new(tool("redis"));
        command.arg(file);
        match kind {
            Kind::Node => Process::start("Redis", command, "Ready to accept connections").await,
            Kind::Sentinel => {
                command.arg("--sentinel");
                Process::start("Sentinel", command, "+monitor master").await
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Ends it as `kill -9` does.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Starts it again, empty.
    pub async fn come_back(&mut self) {
        self.process = Self::run(self.kind, &self.file).await;
    }

    /// Stands still: connections stay, and nothing is answered.
    pub fn pause(&self) {
        self.process.signal("STOP");
    }

    /// Goes on where it stood.
    pub fn go_on(&self) {
        self.process.signal("CONT");
    }

    /// The URL of this node, as if it listened there.
    pub fn url(&self, at: SocketAddr) -> String {
        let scheme = if self.ca.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{USER}:{ENCODED}@{at}")
    }

    /// A client that may do everything.
    pub fn client(&self) -> Client {
        let user = self.password.map_or_else(String::new, |_| format!(":{ENCODED}@"));
        match &self.ca {
            None => Client::open(format!("redis://{user}{}", self.address())).expect("a URL"),
            Some(ca) => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(ca.clone()) };
                let url = format!("rediss://{user}{}", self.address());
                Client::build_with_tls(url, certificates).expect("a client")
            }
        }
    }

    /// A connection that may do everything.
    pub async fn connect(&self) -> MultiplexedConnection {
        within("a connection", self.client().get_multiplexed_async_connection()).await.expect("Redis answers")
    }

    /// Whether Weir tried something that its user may not do.
    pub async fn has_denied(&self) -> bool {
        !self.ask::<Vec<redis::Value>>("ACL LOG").await.is_empty()
    }

    /// Runs a command on it.
    pub async fn run_command<T: FromRedisValue>(&self, command: &Cmd) -> T {
        command.query_async(&mut self.connect().await).await.expect("an answer")
    }

    /// Runs a command of these words.
    pub async fn ask<T: FromRedisValue>(&self, words: &str) -> T {
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().expect("a command"));
        words.for_each(|word| {
            command.arg(word);
        });
        self.run_command(&command).await
    }

    /// A line of what `INFO` says.
    pub async fn info(&self, section: &str, name: &str) -> Option<String> {
        let text: String = self.ask(&format!("INFO {section}")).await;
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
    }

    /// How often commands of this name ran, or were refused.
    pub async fn calls(&self, command: &str) -> u64 {
        let said = self.info("commandstats", &format!("cmdstat_{command}")).await.unwrap_or_default();
        let number = |name| {
            let found = said.split(',').find_map(|part| part.strip_prefix(name));
            found.map_or(0, |text| text.parse::<u64>().expect("a number"))
        };
        number("calls=") + number("rejected_calls=")
    }
}

/// A master, a replica of it, and sentinels who agree on the master, and on another within a second where it is gone.
pub struct Watched {
    /// The master and the replica.
    pub nodes: Vec<Server>,
    sentinels: Vec<Server>,
}

impl Watched {
    /// Starts them. Sentinels want this password.
    pub async fn start(tls: Option<&Tls>, password: Option<&'static str>) -> Self {
        let master = Server::node(tls, "").await;
        let at = master.address();
        let replica = Server::node(tls, &format!("replicaof 127.0.0.1 {}\n", at.port())).await;
        eventually("the replica to follow", async || {
            replica.info("replication", "master_link_status").await.as_deref() == Some("up")
        })
        .await;
        let own =
            password.map_or_else(String::new, |password| format!("sentinel sentinel-pass \"{password}\"\n"));
        let settings = format!(
            "{own}sentinel monitor {MASTER} 127.0.0.1 {} 2\nsentinel auth-pass {MASTER} {PASSWORD}\n\
             sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 5000\n",
            at.port()
        );
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(Server::sentinel(tls, &settings, password).await);
        }
        let watched = Self { nodes: vec![master, replica], sentinels };
        for sentinel in &watched.sentinels {
            eventually("the sentinels to know each other and the replica", async || {
                let master: std::collections::HashMap<String, String> =
                    sentinel.ask(&format!("SENTINEL MASTER {MASTER}")).await;
                master["num-other-sentinels"] == "2" && master["num-slaves"] == "1"
            })
            .await;
        }
        watched
    }

    /// Its URL, with the database that Weir is to use.
    pub fn url(&self, database: u8) -> String {
        let scheme = if self.nodes[0].ca.is_some() { "rediss" } else { "redis" };
        let hosts: Vec<_> = self.sentinels.iter().map(|sentinel| sentinel.address().to_string()).collect();
        format!("{scheme}+sentinel://{USER}:{ENCODED}@{}/{MASTER}/{database}", hosts.join(","))
    }
}

/// Three masters that share the slots, and a replica of the first.
pub struct Cluster {
    /// The masters, and after them the replica.
    pub nodes: Vec<Server>,
    _buses: Vec<Port>,
}

impl Cluster {
    /// Starts them.
    pub async fn start(tls: Option<&Tls>) -> Self {
        let (mut nodes, mut buses) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let bus = Port::take();
            let settings = format!(
                "cluster-enabled yes\ncluster-node-timeout 1000\ncluster-announce-ip 127.0.0.1\ncluster-port {}\n\
                 cluster-replica-validity-factor 0\n",
                bus.address.port()
            );
            nodes.push(Server::node(tls, &settings).await);
            buses.push(bus);
        }
        for (number, node) in nodes[..3].iter().enumerate() {
            let (first, end) = (number * SLOTS / 3, (number + 1) * SLOTS / 3);
            let _: () = node.ask(&format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1)).await;
            let _: () = node.ask(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1)).await;
        }
        for (node, bus) in nodes.iter().zip(&buses).skip(1) {
            let (port, bus) = (node.address().port(), bus.address.port());
            let _: () = nodes[0].ask(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}")).await;
        }
        let cluster = Self { nodes, _buses: buses };
        let agreed = async || cluster.all_say("cluster_known_nodes", "4").await;
        eventually("the nodes to know each other", agreed).await;
        let first: String = cluster.nodes[0].ask("CLUSTER MYID").await;
        let _: () = cluster.nodes[3].ask(&format!("CLUSTER REPLICATE {first}")).await;
        eventually("the Cluster", async || cluster.all_say("cluster_state", "ok").await).await;
        eventually("the replica to follow", async || {
            cluster.nodes[3].info("replication", "master_link_status").await.as_deref() == Some("up")
        })
        .await;
        cluster
    }

    async fn all_say(&self, name: &str, value: &str) -> bool {
        for node in &self.nodes {
            let text: String = node.ask("CLUSTER INFO").await;
            if !text.lines().any(|line| line.trim() == format!("{name}:{value}")) {
                return false;
            }
        }
        true
    }

    /// Its URL, which names two of the nodes.
    pub fn url(&self) -> String {
        let scheme = if self.nodes[0].ca.is_some() { "rediss" } else { "redis" };
        format!("{scheme}+cluster://{USER}:{ENCODED}@{},{}", self.nodes[1].address(), self.nodes[2].address())
    }

    /// Which master has a slot, where none was moved.
    pub fn owner(slot: u16) -> usize {
        let of = |master: usize| master * SLOTS / 3..(master + 1) * SLOTS / 3;
        (0..3).find(|master| of(*master).contains(&usize::from(slot))).expect("a slot")
    }

    /// Gives a slot with all that is in it to another master.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let id = async |node: usize| self.nodes[node].ask::<String>("CLUSTER MYID").await;
        let (source, target) = (id(from).await, id(to).await);
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        let _: () = to.ask(&format!("CLUSTER SETSLOT {slot} IMPORTING {source}")).await;
        let _: () = from.ask(&format!("CLUSTER SETSLOT {slot} MIGRATING {target}")).await;
        loop {
            let keys: Vec<String> = from.ask(&format!("CLUSTER GETKEYSINSLOT {slot} 100")).await;
            if keys.is_empty() {
                break;
            }
            let mut migrate = redis::cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(to.address().port()).arg("").arg(0).arg(5000);
            migrate.arg("AUTH").arg(PASSWORD).arg("KEYS").arg(keys);
            let _: String = from.run_command(&migrate).await;
        }
        for node in [to, from] {
            let _: () = node.ask(&format!("CLUSTER SETSLOT {slot} NODE {target}")).await;
        }
    }
}
