//! A dumb balancer: each connection goes to the next replica, whoever it is from.
//!
//! It is not to be noticed: it passes on ends and resets, holds back nothing, and keeps so little of what a client does
//! not read that the replica is stuck as soon as it would be without it. What it cannot hide is that every peer of a
//! replica has a loopback address.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use weir::tasks::Tasks;

use super::port::{Port, narrow};
use super::relay::{Way, relay};

/// What the kernel holds of each connection in either direction, in bytes.
const BUFFER: u32 = 64 * 1024;

struct Replica {
    address: SocketAddr,
    in_rotation: AtomicBool,
}

/// The balancer. It goes on without this value, as a gateway does.
pub struct Balancer {
    /// Where clients connect.
    pub address: SocketAddr,
    replicas: Arc<[Replica]>,
}

impl Balancer {
    /// Starts one in front of these replicas, all in rotation. `buffer` is what the kernel holds of each connection in
    /// either direction, in bytes; by default 64 KiB.
    pub fn start(replicas: impl IntoIterator<Item = SocketAddr>, buffer: Option<u32>) -> Self {
        let (port, buffer) = (Port::take(), buffer.unwrap_or(BUFFER));
        let replicas: Arc<[Replica]> = replicas
            .into_iter()
            .map(|address| Replica { address, in_rotation: AtomicBool::new(true) })
            .collect();
        let balancer = Self { address: port.address, replicas: replicas.clone() };
        let (listener, tasks) = (port.listen(Some(buffer)), Tasks::new());
        tasks.clone().spawn(async move {
            let way = watch::Sender::new(Way::Open);
            for turn in 0_usize.. {
                let (client, _) = listener.accept().await.expect("a connection");
                let (replicas, way) = (replicas.clone(), way.subscribe());
                tasks.spawn(async move {
                    match connect(&replicas, turn, buffer).await {
                        Some(server) => relay(client, server, way).await,
                        None => drop(client.set_zero_linger()),
                    }
                });
            }
        });
        balancer
    }

    /// Takes a replica out of the rotation, or in again. Where none is left, all are tried, as nginx does.
    pub fn rotate(&self, replica: usize, is_in: bool) {
        self.replicas[replica].in_rotation.store(is_in, Ordering::Release);
    }
}

/// A connection to the replica whose turn it is; to the next one only where it is refused.
async fn connect(replicas: &[Replica], turn: usize, buffer: u32) -> Option<TcpStream> {
    let in_turn = || (0..replicas.len()).map(|step| &replicas[turn.wrapping_add(step) % replicas.len()]);
    let mut candidates: Vec<_> = in_turn().filter(|r| r.in_rotation.load(Ordering::Acquire)).collect();
    if candidates.is_empty() {
        candidates = in_turn().collect();
    }
    for replica in candidates {
        let socket = TcpSocket::new_v4().expect("a socket");
        narrow(&socket, buffer);
        match socket.connect(replica.address).await {
            Ok(stream) => return Some(stream),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(_) => return None,
        }
    }
    None
}
