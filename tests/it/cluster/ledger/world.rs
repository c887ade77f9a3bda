//! What the schedules run against: real processes, what they stand on, and what breaks.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;
use weir::clock::Clock;
use weir::config::Layers;
use weir::db::Db;

use super::schedule::Fault;
use crate::support::cluster::{Cluster, example};
use crate::support::door::{Door, Entrance};
use crate::support::eventually;
use crate::support::port::Port;
use crate::support::process::Process;
use crate::support::tools::RECORD;

/// How long a process may be unseen until others close what it left.
pub const LEASE: Duration = Duration::from_millis(2000);
/// How far ahead changes of plan hold.
pub const LEAD: Duration = Duration::from_millis(1000);
/// How long what is away stays away.
const OUTAGE: Duration = Duration::from_millis(500);
/// What every process is told.
const SETTINGS: [(&str, &str); 15] = [
    ("metering.lead_ms", "1000"),
    ("metering.lease_ms", "2000"),
    ("metering.idle_ms", "1000"),
    ("metering.settle_timeout_ms", "3000"),
    ("auth.invalidation_poll_ms", "50"),
    ("mcp.tool_timeout_ms", "1000"),
    ("limits.tenant.per_second", "100000"),
    ("limits.tenant.burst", "100000"),
    ("limits.tenant.concurrency", "1000"),
    ("limits.key.per_second", "100000"),
    ("limits.key.burst", "100000"),
    ("limits.ip.per_second", "100000"),
    ("limits.ip.burst", "100000"),
    ("auth.failure_floor_ms", "5"),
    ("server.drain_delay_ms", "300"),
];

/// Processes, and the ways to them.
pub struct World {
    kind: Kind,
    /// Where clients come in, and what the test itself does.
    pub stage: Stage,
    /// Where the tool records what it does.
    pub record: PathBuf,
    _directory: TempDir,
}

enum Kind {
    Cluster(Box<Cluster>),
    Alone { program: PathBuf, environment: Vec<(String, String)>, port: Port, process: Option<Process> },
}

/// What cases need of a world.
#[derive(Clone)]
pub struct Stage {
    /// The database, on a way that no fault is on.
    pub db: Db,
    /// Where it is.
    pub url: String,
    /// The time.
    pub clock: Clock,
    /// Whichever replica comes next.
    pub any: Door,
    /// Every replica.
    pub doors: Vec<Door>,
}

impl World {
    /// Three replicas on a PostgreSQL and a Redis of their own.
    pub async fn cluster(more: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let record = directory.path().join("record");
        let builder = Cluster::build().with_own_services().variable(RECORD, record.to_string_lossy());
        let builder =
            SETTINGS.iter().chain(more).fold(builder, |builder, (key, value)| builder.set(key, *value));
        let cluster = builder.start().await;
        let stage = Stage {
            db: cluster.db.clone(),
            url: cluster.database_url(),
            clock: Clock::system(),
            any: Door::like(&cluster),
            doors: cluster.doors(),
        };
        Self { kind: Kind::Cluster(Box::new(cluster)), stage, record, _directory: directory }
    }

    /// One process on SQLite.
    pub async fn alone() -> Self {
        weir::egress::install_crypto();
        let directory = tempfile::tempdir().expect("a directory");
        let record = directory.path().join("record");
        let url = format!("sqlite:{}", directory.path().join("weir.db").display());
        let flags = vec![("database.url".to_owned(), url.clone())];
        let config = Layers { flags, ..Layers::default() }.load().expect("settings");
        let db = Db::connect(&config.database).await.expect("a database");
        db.migrate().await.expect("migrations");
        let port = Port::take();
        let mut settings = vec![
            ("database.url", url.clone()),
            ("server.listen", port.address.to_string()),
            ("metrics.listen", String::new()),
            ("log.format", "json".to_owned()),
        ];
        settings.extend(SETTINGS.map(|(key, value)| (key, value.to_owned())));
        let variable = |key: &str| format!("WEIR_{}", key.to_ascii_uppercase().replace('.', "__"));
        let mut environment: Vec<_> =
            settings.into_iter().map(|(key, value)| (variable(key), value)).collect();
        environment.push((RECORD.to_owned(), record.to_string_lossy().into_owned()));
        let door = Door::at(port.address);
        let kind = Kind::Alone { program: example("replica"), environment, port, process: None };
        let stage = Stage { db, url, clock: Clock::system(), any: door.clone(), doors: vec![door] };
        let mut world = Self { kind, stage, record, _directory: directory };
        world.start(0).await;
        world
    }

    /// How many processes there are.
    pub fn replicas(&self) -> usize {
        self.stage.doors.len()
    }

    /// Starts a process that has ended.
    pub async fn start(&mut self, replica: usize) {
        match &mut self.kind {
            Kind::Cluster(cluster) => cluster.restart(replica).await,
            Kind::Alone { program, environment, process, .. } => {
                *process = Some(run(program, environment).await);
            }
        }
    }

    /// Ends a process: with `kill -9`, or in good order.
    pub async fn end(&mut self, replica: usize, kill: bool) {
        match (&mut self.kind, kill) {
            (Kind::Cluster(cluster), true) => cluster.kill(replica).await,
            (Kind::Cluster(cluster), false) => {
                cluster.terminate(replica);
                assert!(cluster.ended(replica).await.success(), "told to end, it does in good order");
            }
            (Kind::Alone { process, .. }, true) => process.as_mut().expect("a process").kill().await,
            (Kind::Alone { process, .. }, false) => {
                let process = process.as_mut().expect("a process");
                process.signal("TERM");
                assert!(process.ended().await.success(), "told to end, it does in good order");
            }
        }
    }

    /// The cluster.
    pub fn replicated(&mut self) -> &mut Cluster {
        match &mut self.kind {
            Kind::Cluster(cluster) => cluster,
            Kind::Alone { .. } => panic!("there is one process, and nothing beside it"),
        }
    }

    /// Breaks something, and mends it.
    pub async fn suffer(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(replica) | Fault::Terminate(replica) => {
                self.end(replica, fault.kills()).await;
                self.start(replica).await;
            }
            Fault::Partition(replica) => {
                self.replicated().way_to_postgres(replica).freeze();
                tokio::time::sleep(LEASE + OUTAGE).await;
                self.replicated().way_to_postgres(replica).heal();
            }
            Fault::Stall(table) => stall(&self.stage.url, table).await,
            Fault::Flush => self.replicated().redis().flush().await,
            Fault::RedisRestart => {
                self.replicated().redis().stop().await;
                tokio::time::sleep(OUTAGE).await;
                self.replicated().redis().come_back().await;
            }
            Fault::DatabaseRestart | Fault::DatabaseCrash => {
                match fault {
                    Fault::DatabaseCrash => self.replicated().postgres().crash().await,
                    _ => self.replicated().postgres().stop().await,
                }
                tokio::time::sleep(OUTAGE).await;
                self.replicated().postgres().come_back().await;
            }
        }
    }

    /// Waits until every process is ready and knows all others.
    pub async fn is_whole(&self) {
        match &self.kind {
            Kind::Cluster(cluster) => cluster.is_whole().await,
            Kind::Alone { port, .. } => {
                let ready = format!("http://{}/ready", port.address);
                eventually("the process to be ready", async || {
                    let asked = self.stage.any.http().get(&ready).send().await;
                    asked.is_ok_and(|answer| answer.status().is_success())
                })
                .await;
            }
        }
    }
}

/// Lets nobody write for a while.
async fn stall(url: &str, table: &str) {
    if url.starts_with("sqlite:") {
        let mut connection = SqliteConnection::connect(url).await.expect("the database");
        let held = connection.begin_with("begin immediate").await.expect("the writer's place");
        tokio::time::sleep(OUTAGE).await;
        held.rollback().await.expect("let go");
        return;
    }
    let mut connection = PgConnection::connect(url).await.expect("the database");
    let mut held = connection.begin().await.expect("a transaction");
    let lock = format!("lock table {table} in exclusive mode");
    sqlx::query(AssertSqlSafe(lock)).execute(&mut *held).await.expect("the table");
    tokio::time::sleep(OUTAGE).await;
    held.rollback().await.expect("let go");
}

async fn run(program: &Path, environment: &[(String, String)]) -> Process {
    let mut command = Command::new(program);
    command.env_clear().envs(environment.iter().cloned());
    Process::start("the process", command, "\"ready\"").await
}
