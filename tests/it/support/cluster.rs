//! Several `weir serve` on one PostgreSQL and one Redis behind a dumb balancer, each with a way of its own to either that
//! a story can break.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use http::Method;
use tokio::task::JoinHandle;
use weir::clock::Clock;
use weir::config::Layers;
use weir::db::Db;
use weir::tasks::Tasks;

use super::balancer::Balancer;
use super::door::{Door, Entrance};
use super::fault::Fault;
use super::gateway::{self, Key, Operator, Setting, value_of};
use super::port::Port;
use super::private::{Postgres, Redis};
use super::process::Process;
use super::services::{self, Deployment};
use super::{Draft, eventually};

/// How often the balancer asks each replica whether it is ready.
const LOOK: Duration = Duration::from_millis(50);
/// ... and how long it waits for the answer.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// What a cluster is started with.
pub struct Builder {
    replicas: usize,
    settings: Vec<(String, String)>,
    /// Variables of the test tools' own.
    variables: Vec<(String, String)>,
    has_tools: bool,
    is_private: bool,
}

impl Builder {
    /// So many replicas; 3 by default.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Sets a configuration key of every replica.
    pub fn set(mut self, key: &str, value: impl Into<Setting>) -> Self {
        self.settings.push((key.to_owned(), value.into().into_text()));
        self
    }

    /// Sets a variable of every replica's environment.
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// The binary that operators run, which has no test tools.
    pub fn without_tools(mut self) -> Self {
        self.has_tools = false;
        self
    }

    /// With a PostgreSQL and a Redis of its own, which may be broken.
    pub fn with_own_services(mut self) -> Self {
        self.is_private = true;
        self
    }

    /// Starts it and waits until every replica is ready and knows all others.
    pub async fn start(self) -> Cluster {
        weir::egress::install_crypto();
        let services = Services::start(self.is_private).await;
        let config = Layers { flags: services.flags(None), ..Layers::default() }.load().expect("settings");
        let db = Db::connect(&config.database).await.expect("a database");
        db.migrate().await.expect("migrations");
        let program = if self.has_tools { example("replica") } else { env!("CARGO_BIN_EXE_weir").into() };
        let replicas = (0..self.replicas).map(|number| Replica::new(number, &program, &self, &services));
        let mut replicas: Vec<_> = replicas.collect();
        futures_util::future::join_all(replicas.iter_mut().map(Replica::start)).await;
        let balancer = Balancer::start(replicas.iter().map(|replica| replica.public.address), None);
        let url = format!("http://{}", balancer.address);
        let watch = Tasks::new().spawn(watch(balancer, replicas.iter().map(Replica::door).collect()));
        let cluster =
            Cluster { url, http: gateway::client(), db, clock: Clock::system(), replicas, services, watch };
        cluster.is_whole().await;
        cluster
    }
}

/// An example of this package. Whoever builds all tests builds the examples as well.
pub fn example(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_weir")).with_file_name("examples").join(name);
    assert!(path.exists(), "no {}: build the example {name} first", path.display());
    path
}

/// Keeps replicas that are not ready out of the rotation.
async fn watch(balancer: Balancer, doors: Vec<Door>) {
    let look = async |number: usize, door: &Door| loop {
        let asked = door.http().get(format!("{}/ready", door.url())).timeout(LOOK_PATIENCE).send().await;
        balancer.rotate(number, asked.is_ok_and(|answer| answer.status().is_success()));
        tokio::time::sleep(LOOK).await;
    };
    futures_util::future::join_all(doors.iter().enumerate().map(|(number, door)| look(number, door))).await;
}

/// What the replicas stand on.
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
enum Services {
    Shared(Deployment),
    Own { postgres: Postgres, redis: Redis },
}

impl Services {
    async fn start(is_private: bool) -> Self {
        if is_private {
            let (postgres, redis) = tokio::join!(Postgres::start(), Redis::start());
            return Self::Own { postgres, redis };
        }
        services::needed("WEIR_TEST_POSTGRES");
        Self::Shared(Deployment::replicated(services::needed("WEIR_TEST_REDIS_URL")).await)
    }

    /// Where they are: themselves, or the ways to PostgreSQL and to Redis.
    fn flags(&self, ways: Option<(&Fault, &Fault)>) -> Vec<(String, String)> {
        let ways = ways.map(|(postgres, redis)| (postgres.address, redis.address));
        match self {
            Self::Own { postgres, redis } => {
                let (database, store) = ways.unwrap_or((postgres.address(), redis.address()));
                let flags = [("database.url", postgres.url(database)), ("redis.url", redis.url(store))];
                flags.map(|(key, value)| (key.to_owned(), value)).to_vec()
            }
            Self::Shared(deployment) => {
                let mut flags = deployment.flags();
                for (key, value) in &mut flags {
                    match (key.as_str(), ways) {
                        ("database.url", Some((postgres, _))) => *value = through(value, postgres),
                        ("redis.url", Some((_, redis))) => *value = through(value, redis),
                        _ => {}
                    }
                }
                flags
            }
        }
    }

    /// Where PostgreSQL and Redis themselves are.
    fn addresses(&self) -> (SocketAddr, SocketAddr) {
        match self {
            Self::Own { postgres, redis } => (postgres.address(), redis.address()),
            Self::Shared(deployment) => {
                let flags: HashMap<_, _> = deployment.flags().into_iter().collect();
                (authority(&flags["database.url"]), authority(&flags["redis.url"]))
            }
        }
    }
}

/// The `HOST:PORT` of a URL with a user.
pub fn authority(url: &str) -> SocketAddr {
    let rest = url.split_once('@').expect("a user").1;
    rest.split('/').next().unwrap_or("").parse().expect("an address")
}

/// The same URL with another `HOST:PORT`.
pub fn through(url: &str, way: SocketAddr) -> String {
    url.replace(&authority(url).to_string(), &way.to_string())
}

/// One process, also while it does not run.
struct Replica {
    name: String,
    program: PathBuf,
    environment: Vec<(String, String)>,
    public: Port,
    metrics: Port,
    postgres: Fault,
    redis: Fault,
    process: Option<Process>,
}

impl Replica {
    fn new(number: usize, program: &Path, builder: &Builder, services: &Services) -> Self {
        let (public, metrics) = (Port::take(), Port::take());
        let (postgres, redis) = services.addresses();
        let (postgres, redis) = (Fault::on_the_way_to(postgres), Fault::on_the_way_to(redis));
        let mut settings = services.flags(Some((&postgres, &redis)));
        settings.push(("server.listen".to_owned(), public.address.to_string()));
        settings.push(("metrics.listen".to_owned(), metrics.address.to_string()));
        settings.extend(builder.settings.iter().cloned());
        let variable = |key: &str| format!("WEIR_{}", key.to_ascii_uppercase().replace('.', "__"));
        let settings = settings.into_iter().map(|(key, value)| (variable(&key), value));
        let environment = settings.chain(builder.variables.iter().cloned()).collect();
        let (name, program) = (format!("replica {number}"), program.to_owned());
        Self { name, program, environment, public, metrics, postgres, redis, process: None }
    }

    async fn start(&mut self) {
        let mut command = Command::new(&self.program);
        if self.program.file_stem().is_some_and(|name| name == "weir") {
            command.arg("serve");
        }
        command.env_clear().envs(self.environment.iter().cloned());
        self.process = Some(Process::start(&self.name, command, "\"ready\"").await);
    }

    fn door(&self) -> Door {
        Door::at(self.public.address)
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("a process that runs")
    }
}

/// A running cluster. Clients that come to it itself come to its balancer.
pub struct Cluster {
    /// The database, on a way that no fault is on.
    pub db: Db,
    url: String,
    http: reqwest::Client,
    clock: Clock,
    replicas: Vec<Replica>,
    services: Services,
    watch: JoinHandle<()>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Entrance for Cluster {
    fn http(&self) -> &reqwest::Client {
        &self.http
    }

    fn url(&self) -> &str {
        &self.url
    }
}

impl Cluster {
    /// Three replicas with the test tools that count no strangers and notice the death of another within a second.
    pub fn build() -> Builder {
        let settings = [
            ("redis.lease_ms", "1000"),
            ("limits.ip.per_second", "100000"),
            ("limits.ip.burst", "100000"),
            ("auth.failure_floor_ms", "5"),
            ("database.max_connections", "4"),
            // Long enough for the balancer to notice.
            ("server.drain_delay_ms", "500"),
            ("log.format", "json"),
        ];
        let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        Builder { replicas: 3, settings, variables: Vec::new(), has_tools: true, is_private: false }
    }

    /// The same with nothing changed.
    pub async fn start() -> Self {
        Self::build().start().await
    }

    /// Where the database itself is.
    pub fn database_url(&self) -> String {
        let flags = self.services.flags(None);
        flags.into_iter().find(|(key, _)| key == "database.url").expect("a database").1
    }

    /// Every replica.
    pub fn doors(&self) -> Vec<Door> {
        self.replicas.iter().map(Replica::door).collect()
    }

    /// The way from a replica to PostgreSQL.
    pub fn way_to_postgres(&self, replica: usize) -> &Fault {
        &self.replicas[replica].postgres
    }

    /// The way from a replica to Redis.
    pub fn way_to_redis(&self, replica: usize) -> &Fault {
        &self.replicas[replica].redis
    }

    /// The cluster's own PostgreSQL.
    pub fn postgres(&mut self) -> &mut Postgres {
        match &mut self.services {
            Services::Own { postgres, .. } => postgres,
            Services::Shared(_) => panic!("PostgreSQL is not this story's own"),
        }
    }

    /// The cluster's own Redis.
    pub fn redis(&mut self) -> &mut Redis {
        match &mut self.services {
            Services::Own { redis, .. } => redis,
            Services::Shared(_) => panic!("Redis is not this story's own"),
        }
    }

    /// Ends a replica with `kill -9`.
    pub async fn kill(&mut self, replica: usize) {
        self.replicas[replica].process().kill().await;
    }

    /// Sends SIGTERM to a replica.
    pub fn terminate(&mut self, replica: usize) {
        self.replicas[replica].process().signal("TERM");
    }

    /// Waits for the end of a replica.
    pub async fn ended(&mut self, replica: usize) -> ExitStatus {
        self.replicas[replica].process().ended().await
    }

    /// Starts a replica that has ended again, at its old address.
    pub async fn restart(&mut self, replica: usize) {
        self.replicas[replica].start().await;
    }

    /// What `GET /ready` of a replica says: its status, 0 where it does not answer in time.
    pub async fn readiness(&self, replica: usize) -> u16 {
        let url = format!("{}/ready", self.replicas[replica].door().url());
        let asked = self.http.get(url).timeout(LOOK_PATIENCE).send().await;
        asked.map_or(0, |answer| answer.status().as_u16())
    }

    /// What the metrics of a replica say of one series; see [`value_of`].
    pub async fn metric(&self, replica: usize, series: &str) -> f64 {
        let url = format!("http://{}/metrics", self.replicas[replica].metrics.address);
        value_of(series, &Draft::new(&self.http, Method::GET, url).send().await.text)
    }

    /// Waits until every replica is ready, has its dependencies, and knows all others.
    pub async fn is_whole(&self) {
        let all = self.replicas.len();
        for replica in 0..all {
            eventually(&format!("replica {replica} to be ready"), async || {
                self.readiness(replica).await == 200
                    && self.metric(replica, "weir_database_up").await == 1.0
                    && self.metric(replica, "weir_redis_up").await == 1.0
                    && self.metric(replica, "weir_replicas").await == all as f64
            })
            .await;
        }
    }

    /// A new tenant with an API key.
    pub async fn caller(&self) -> Key {
        gateway::caller(&self.db, &self.clock).await
    }

    /// One more API key of a tenant.
    pub async fn key(&self, of: &Key) -> Key {
        gateway::key(&self.db, &self.clock, of.tenant).await
    }

    /// An operator who works at one replica.
    pub async fn operator(&self, replica: usize) -> Operator {
        gateway::operator(&self.db, &self.clock).await.at(self.replicas[replica].public.address)
    }
}
