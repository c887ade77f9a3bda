//! A server as a child process, and what the kernel says of it.

use std::net::SocketAddr;
use std::process::{Child as Process, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::roles::Deployment;
use crate::{Failure, Role};

/// Ticks of `/proc/<pid>/stat` per second: `USER_HZ`, which is 100 on every architecture that Weir runs on.
const TICKS: u32 = 100;
/// How long a child may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running server. It ends when this is dropped, and also when the parent dies: its standard input closes then.
pub struct Child {
    process: Process,
    /// Where it serves.
    pub address: SocketAddr,
    /// Where its metrics are, if it says.
    pub metrics: Option<SocketAddr>,
}

impl Child {
    /// Starts a server on a port of its own choice and waits until it says which.
    pub fn start(role: Role, deployment: &Deployment) -> Result<Self, Failure> {
        let mut process = command(role, deployment, 0)?.spawn()?;
        let said = first_line(process.stdout.take())?;
        let mut addresses = said.split_ascii_whitespace();
        let address = addresses.next().unwrap_or_default().parse()?;
        let metrics = addresses.next().map(str::parse).transpose()?;
        Ok(Self { process, address, metrics })
    }

    /// Starts a server on this port and waits for nothing.
    pub fn start_at(role: Role, deployment: &Deployment, address: SocketAddr) -> Result<Self, Failure> {
        let process = command(role, deployment, address.port())?.spawn()?;
        Ok(Self { process, address, metrics: None })
    }

    /// CPU time of the process so far, kernel included, in steps of 10 ms.
    pub fn cpu(&self) -> Result<Duration, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The second field is the name in parentheses, which may hold anything; utime and stime are the 14th and 15th.
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = after.split_ascii_whitespace().skip(11).take(2).map(str::parse::<u32>);
        let ticks: u32 = ticks.sum::<Result<u32, _>>()?;
        Ok(Duration::from_secs(1) * ticks / TICKS)
    }

    /// A line of `/proc/<pid>/status` that counts kB, such as `VmRSS`, in bytes.
    pub fn memory(&self, line: &str) -> Result<f64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let found = status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
        let kilobytes = found.and_then(|rest| rest.split_ascii_whitespace().next()).unwrap_or("");
        Ok(kilobytes.parse::<f64>()? * 1024.0)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let started = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) {
            if started.elapsed() > PATIENCE {
                let _ = self.process.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Standard error, and with it the log, goes to `/dev/null`: it is written, not stored.
fn command(role: Role, deployment: &Deployment, port: u16) -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    let role = match role {
        Role::Echo => "echo",
        Role::Weir => "weir",
    };
    command.args(["--role", role, "--port", &port.to_string(), "--database"]);
    command.arg(&deployment.database);
    if let Some(redis) = &deployment.redis {
        command.args(["--redis", redis]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    Ok(command)
}

fn first_line(stdout: Option<ChildStdout>) -> Result<String, Failure> {
    let mut line = String::new();
    if let Some(stdout) = stdout {
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    }
    if line.is_empty() { Err("a child ended before it served".into()) } else { Ok(line) }
}
