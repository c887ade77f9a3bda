//! The load: a fixed number of requests over connections that are kept, each with one request in flight.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::wire::Connection;

/// What came of a load.
pub struct Load {
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// How long each answer took, sorted.
    pub latencies: Vec<Duration>,
}

/// Sends `requests` requests over `connections`, from each of `all` in turn. Any answer but 200 ends the run.
pub async fn run(
    address: SocketAddr,
    all: &Arc<[Bytes]>,
    requests: usize,
    connections: usize,
) -> io::Result<Load> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(address).await?);
    }
    let sent = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    let started = Instant::now();
    for connection in open {
        clients.spawn(client(connection, all.clone(), sent.clone(), requests));
    }
    let mut latencies = Vec::with_capacity(requests);
    while let Some(client) = clients.join_next().await {
        latencies.extend(client.map_err(io::Error::other)??);
    }
    let elapsed = started.elapsed();
    latencies.sort_unstable();
    Ok(Load { elapsed, latencies })
}

async fn client(
    mut connection: Connection,
    all: Arc<[Bytes]>,
    sent: Arc<AtomicUsize>,
    requests: usize,
) -> io::Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    loop {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        if number >= requests {
            break;
        }
        let request = &all[number % all.len()];
        let started = Instant::now();
        let (status, body) = connection.exchange(request).await?;
        if status != 200 {
            let body = String::from_utf8_lossy(body);
            return Err(io::Error::other(format!("HTTP {status}: {body}")));
        }
        latencies.push(started.elapsed());
    }
    Ok(latencies)
}
