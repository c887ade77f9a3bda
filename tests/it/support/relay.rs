//! Two connections that act as one: bytes, ends, resets and a side that does not read go through as they are.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;

/// Bytes on their way at once in one direction, beside what the kernel holds.
const PIECE: usize = 16 * 1024;

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// They go through.
    Open,
    /// They wait, and nobody is told: the network is gone.
    Frozen,
    /// Connections are reset.
    Cut,
    /// As before for those who wait; for connections that are made from now on, they go through.
    Renewed,
}

/// Serves a connection of a client with one to a server until both have ended, or until `way` is cut or its sender gone.
pub async fn relay(mut client: TcpStream, mut server: TcpStream, way: watch::Receiver<Way>) {
    for side in [&client, &server] {
        let _ = side.set_nodelay(true);
    }
    let mut watched = way.clone();
    let in_order = tokio::select! {
        _ = watched.wait_for(|way| *way == Way::Cut) => false,
        in_order = both_ways(&mut client, &mut server, &way) => in_order,
    };
    if !in_order {
        for side in [&client, &server] {
            let _ = side.set_zero_linger();
        }
    }
}

/// Whether both directions ended as they should.
async fn both_ways(client: &mut TcpStream, server: &mut TcpStream, way: &watch::Receiver<Way>) -> bool {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let there = pump(&mut from_client, &mut to_server, way.clone());
    let back = pump(&mut from_server, &mut to_client, way.clone());
    matches!(tokio::try_join!(there, back), Ok((true, true)))
}

/// Copies until the end, which it passes on. A side that takes nothing more is no error yet (`false`): what it said before
/// may still be on its way in the other direction.
async fn pump(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    mut way: watch::Receiver<Way>,
) -> io::Result<bool> {
    let mut piece = vec![0; PIECE];
    loop {
        open(&mut way).await?;
        let read = from.read(&mut piece).await?;
        open(&mut way).await?;
        if read == 0 {
            return Ok(to.shutdown().await.is_ok());
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return Ok(false);
        }
    }
}

async fn open(way: &mut watch::Receiver<Way>) -> io::Result<()> {
    match way.wait_for(|way| *way == Way::Open).await {
        Ok(_) => Ok(()),
        Err(_) => Err(io::ErrorKind::ConnectionReset.into()),
    }
}
