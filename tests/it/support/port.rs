//! A port that stays the test's own, also while nobody listens on it.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A loopback port. It is bound and does not listen: connections are refused, the kernel gives it to nobody else, and a
/// server that sets `SO_REUSEADDR`, as all of ours do, can listen on it as often as it likes.
pub struct Port {
    /// Where it is.
    pub address: SocketAddr,
    _held: TcpSocket,
}

impl Port {
    /// A free one.
    pub fn take() -> Self {
        let held = socket((Ipv4Addr::LOCALHOST, 0).into());
        Self { address: held.local_addr().expect("an address"), _held: held }
    }

    /// Listens on it. `buffer` is what the kernel holds of each connection in either direction, in bytes; by default as
    /// much as it likes.
    pub fn listen(&self, buffer: Option<u32>) -> TcpListener {
        let socket = socket(self.address);
        if let Some(bytes) = buffer {
            narrow(&socket, bytes);
        }
        socket.listen(BACKLOG).expect("a listener")
    }
}

fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option");
    socket.bind(address).expect("a port");
    socket
}

/// Bounds what the kernel holds of a connection; what is accepted from a listener inherits it.
pub fn narrow(socket: &TcpSocket, bytes: u32) {
    socket.set_send_buffer_size(bytes).expect("a small buffer");
    socket.set_recv_buffer_size(bytes).expect("a small buffer");
}
