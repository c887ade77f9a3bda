//! What the server's process holds: idle, for each legacy session, and for each open event stream. The kernel's own buffers
//! for sockets are not in it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::net::TcpStream;

use crate::child::Child;
use crate::figures::{count, mebibytes};
use crate::roles::{Deployment, HEARTBEAT};
use crate::wire::{Connection, request};
use crate::{Failure, Options, Role, load};

/// How long a process is left alone before its memory counts. The journal is written and the allocator at rest by then.
const REST: Duration = Duration::from_millis(1500);
/// Streams that are open before those that count: what any number of them costs once.
const FIRST: usize = 1000;
/// File descriptors beside those of the streams.
const SPARE: usize = 100;

/// Resident memory, and the part of it that no file backs, in bytes.
#[derive(Clone, Copy)]
struct Memory {
    resident: f64,
    anonymous: f64,
}

impl Memory {
    fn of(child: &Child) -> Result<Self, Failure> {
        Ok(Self { resident: child.memory("VmRSS")?, anonymous: child.memory("RssAnon")? })
    }

    /// Prints what each of `number` things added.
    fn print_each(self, before: Self, number: usize, what: &str) {
        let each = |after: f64, before: f64| (after - before) / count(number);
        println!(
            "  {number} {what}: {:.0} bytes each ({:.0} anonymous)",
            each(self.resident, before.resident),
            each(self.anonymous, before.anonymous)
        );
    }
}

/// Memory of an idle process, of an idle session and of an open stream.
pub async fn memory(deployment: &Deployment, options: &Options) -> Result<(), Failure> {
    sessions(deployment, options).await?;
    let limit = rlimit::increase_nofile_limit(u64::MAX)?;
    let needed = FIRST + options.streams + SPARE;
    if limit < needed as u64 {
        return Err(format!("{needed} file descriptors are needed, {limit} allowed; see --streams").into());
    }
    for kind in [Kind::Bare, Kind::Session, Kind::Sse] {
        streams(deployment, options.streams, kind).await?;
    }
    Ok(())
}

async fn sessions(deployment: &Deployment, options: &Options) -> Result<(), Failure> {
    let child = Child::start(Role::Weir, deployment)?;
    let health = request("GET", "/health", &deployment.key, "", "");
    Connection::open(child.address).await?.exchange(&health).await?;
    tokio::time::sleep(REST).await;
    let idle = Memory::of(&child)?;
    println!(
        "memory: idle process {:.1} MiB resident, {:.1} MiB of it anonymous",
        mebibytes(idle.resident),
        mebibytes(idle.anonymous)
    );
    // What any load costs once (threads' arenas, pages of the database, buffers) is no session's, so as many were opened
    // before those that count.
    let initialize = initialize(&deployment.key);
    load::run(child.address, &[initialize.clone()].into(), options.sessions, options.connections).await?;
    tokio::time::sleep(REST).await;
    let before = Memory::of(&child)?;
    load::run(child.address, &[initialize.clone()].into(), options.sessions, options.connections).await?;
    tokio::time::sleep(REST).await;
    Memory::of(&child)?.print_each(before, options.sessions, "idle legacy sessions beside as many");
    Ok(())
}

fn initialize(key: &str) -> Bytes {
    let body = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-11-25\",\
                \"capabilities\":{\"roots\":{},\"sampling\":{},\"elicitation\":{}},\
                \"clientInfo\":{\"name\":\"front_door\",\"version\":\"1.0.0\"}}}";
    request("POST", "/mcp", key, "", body)
}

/// Whose stream, and which.
#[derive(Clone, Copy)]
enum Kind {
    /// Bare axum's, which says nothing but its heartbeats.
    Bare,
    /// `GET /mcp` in a session of its own.
    Session,
    /// `GET /sse`.
    Sse,
}

/// Opens streams, waits until each has had a heartbeat, and weighs them.
async fn streams(deployment: &Deployment, number: usize, kind: Kind) -> Result<(), Failure> {
    let (role, what) = match kind {
        Kind::Bare => (Role::Echo, "open event streams of bare axum"),
        Kind::Session => (Role::Weir, "open streams (GET /mcp), each in a session of its own"),
        Kind::Sse => (Role::Weir, "open streams of HTTP+SSE, each with its session"),
    };
    let child = Child::start(role, deployment)?;
    let mut held = open(&child, &deployment.key, FIRST, kind).await?;
    tokio::time::sleep(HEARTBEAT + REST).await;
    let before = Memory::of(&child)?;
    held.extend(open(&child, &deployment.key, number, kind).await?);
    tokio::time::sleep(HEARTBEAT + REST).await;
    Memory::of(&child)?.print_each(before, number, what);
    drop(held);
    Ok(())
}

async fn open(child: &Child, key: &str, number: usize, kind: Kind) -> Result<Vec<TcpStream>, Failure> {
    let opening = stream::iter(0..number).map(|_| open_one(child.address, key, kind));
    opening.buffer_unordered(32).try_collect().await
}

async fn open_one(address: SocketAddr, key: &str, kind: Kind) -> Result<TcpStream, Failure> {
    let mut connection = Connection::open(address).await?;
    let (asked, first) = match kind {
        Kind::Bare => (request("GET", "/sse", key, "", ""), &b"event: endpoint"[..]),
        Kind::Sse => (request("GET", "/sse", key, "", ""), &b"event: endpoint"[..]),
        Kind::Session => {
            let (status, _) = connection.exchange(&initialize(key)).await?;
            let id =
                connection.header("mcp-session-id").ok_or_else(|| format!("no session: HTTP {status}"))?;
            let extra = format!("mcp-session-id: {id}\r\n");
            (request("GET", "/mcp", key, &extra, ""), &b"\nretry: "[..])
        }
    };
    Ok(connection.until(&asked, first).await?)
}
