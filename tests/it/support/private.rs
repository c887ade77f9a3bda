//! A PostgreSQL and a Redis of a story's own, which it may restart, stop and empty. Both listen on a loopback port that
//! stays theirs, behind a random password, and sync nothing to disk.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use super::port::Port;
use super::process::Process;
use super::{eventually, within};

/// What `scripts/tool` says where a program is.
pub fn tool(name: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/tool");
    let output = Command::new(script).arg(name).output().expect("scripts/tool runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a path").trim().into()
}

/// The user and group that PostgreSQL runs as, where this is root, as whom it refuses to.
fn postgres_user() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().expect("id runs");
        let text = String::from_utf8_lossy(&output.stdout).trim().parse();
        text.unwrap_or_else(|_| panic!("running as root, and there is no user postgres"))
    };
    (id(&["-u"]) == 0).then(|| (id(&["-u", "postgres"]), id(&["-g", "postgres"])))
}

/// A password that nobody guesses and that can stand in a URL.
fn password() -> String {
    uuid::Uuid::now_v7().simple().to_string() + &uuid::Uuid::now_v7().simple().to_string()
}

/// A PostgreSQL.
pub struct Postgres {
    port: Port,
    programs: PathBuf,
    directory: TempDir,
    user: Option<(u32, u32)>,
    password: String,
    process: Process,
}

impl Postgres {
    /// Makes and starts one.
    pub async fn start() -> Self {
        let (programs, user, password) = (tool("postgres"), postgres_user(), password());
        let directory = tempfile::Builder::new().prefix("weir-pg.").tempdir_in("/tmp").expect("a directory");
        let secret = directory.path().join("password");
        std::fs::write(&secret, &password).expect("written");
        if let Some((user, group)) = user {
            for path in [directory.path(), &secret] {
                chown(path, Some(user), Some(group)).expect("root");
            }
        }
        let mut initdb = as_user(&programs.join("initdb"), user, directory.path());
        let made = initdb
            .args(["--no-sync", "--auth=password", "--username=weir", "--encoding=UTF8", "--locale=C"])
            .arg(format!("--pwfile={}", secret.display()))
            .arg(format!("--pgdata={}", directory.path().join("data").display()))
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = Port::take();
        let process = Self::serve(&programs, user, directory.path(), port.address).await;
        Self { port, programs, directory, user, password, process }
    }

    async fn serve(programs: &Path, user: Option<(u32, u32)>, directory: &Path, at: SocketAddr) -> Process {
        let mut command = as_user(&programs.join("postgres"), user, directory);
        command.arg("-D").arg(directory.join("data"));
        for setting in [
            &format!("port={}", at.port()),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "full_page_writes=off",
            "wal_level=minimal",
            "max_wal_senders=0",
            "shared_buffers=16MB",
        ] {
            command.args(["-c", setting]);
        }
        Process::start("PostgreSQL", command, "ready to accept connections").await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// The URL of a database, as if the server listened there.
    pub fn url(&self, at: SocketAddr) -> String {
        format!("postgres://weir:{}@{at}/postgres", self.password)
    }

    /// Ends every connection, stops, and does not come back by itself.
    pub async fn stop(&mut self) {
        // A fast shutdown: transactions are rolled back, and what was committed is kept.
        self.process.signal("INT");
        self.process.ended().await;
    }

    /// Ends at once, as if it had crashed: whatever was not committed is lost, and it recovers when it comes back.
    pub async fn crash(&mut self) {
        self.process.signal("QUIT");
        self.process.ended().await;
    }

    /// Comes back, with what it had.
    pub async fn come_back(&mut self) {
        let directory = self.directory.path();
        self.process = Self::serve(&self.programs, self.user, directory, self.port.address).await;
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // An immediate shutdown, which takes its other processes and shared memory along.
        self.process.end_by("QUIT");
    }
}

/// A program as this user, in a directory that it may enter.
fn as_user(program: &Path, user: Option<(u32, u32)>, directory: &Path) -> Command {
    let mut command = match user {
        None => Command::new(program),
        Some((user, group)) => {
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={user}"), &format!("--regid={group}"), "--clear-groups", "--"]);
            command.arg(program);
            command
        }
    };
    command.env("LC_ALL", "C").current_dir(directory);
    command
}

/// A Redis.
pub struct Redis {
    port: Port,
    program: PathBuf,
    directory: TempDir,
    password: String,
    process: Process,
}

impl Redis {
    /// Starts one.
    pub async fn start() -> Self {
        let (port, program, password) = (Port::take(), tool("redis"), password());
        let directory = tempfile::tempdir().expect("a directory");
        let process = Self::serve(&program, directory.path(), port.address, &password).await;
        Self { port, program, directory, password, process }
    }

    async fn serve(program: &Path, directory: &Path, at: SocketAddr, password: &str) -> Process {
        let file = directory.join("redis.conf");
        let (port, home) = (at.port(), directory.display());
        let settings = format!(
            "bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {home}\nsave \"\"\nappendonly no\n"
        );
        std::fs::write(&file, settings).expect("written");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("ours");
        let mut command = Command::new(program);
        command.arg(file);
        Process::start("Redis", command, "Ready to accept connections").await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Its URL, as if it listened there.
    pub fn url(&self, at: SocketAddr) -> String {
        format!("redis://default:{}@{at}/0", self.password)
    }

    /// A connection of the test's own.
    pub async fn connect(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url(self.address())).expect("a URL");
        let connection = within("a connection", client.get_multiplexed_async_connection()).await;
        connection.expect("Redis answers")
    }

    /// Forgets everything.
    pub async fn flush(&self) {
        let mut connection = self.connect().await;
        let flushed: redis::RedisResult<()> = redis::cmd("FLUSHALL").query_async(&mut connection).await;
        flushed.expect("flushed");
    }

    /// Ends without a word, and with everything that it had.
    pub async fn stop(&mut self) {
        self.process.kill().await;
    }

    /// Comes back, empty.
    pub async fn come_back(&mut self) {
        let directory = self.directory.path();
        self.process = Self::serve(&self.program, directory, self.port.address, &self.password).await;
    }

    /// Stands still: connections stay, and nothing is answered.
    pub fn pause(&self) {
        self.process.signal("STOP");
    }

    /// Goes on where it stood.
    pub async fn go_on(&self) {
        self.process.signal("CONT");
        eventually("Redis to go on", async || {
            let mut connection = self.connect().await;
            let pong: redis::RedisResult<String> = redis::cmd("PING").query_async(&mut connection).await;
            pong.is_ok()
        })
        .await;
    }
}
