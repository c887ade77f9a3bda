//! Accepting connections, and ceasing to without losing one.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::serve;
use crate::app::App;

/// How long to wait after `accept` failed, which it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a handshake that the kernel has begun may take to be completed: a round trip.
const HANDSHAKE: Duration = Duration::from_millis(100);

/// Accepts connections, `limit` of them at once, until `stop` fires; then it serves those that the kernel has accepted by
/// then, and closes the listener. The task ends when that is done.
pub(super) fn run(
    app: &Arc<App>,
    listener: TcpListener,
    router: Router,
    limit: usize,
    stop: &CancellationToken,
) -> JoinHandle<()> {
    let accepting = Accepting { app: app.clone(), listener, router, places: Arc::new(Semaphore::new(limit)) };
    let stop = stop.clone();
    app.tasks.spawn(async move {
        stop.run_until_cancelled(accepting.go_on()).await;
        accepting.finish().await;
    })
}

struct Accepting {
    app: Arc<App>,
    listener: TcpListener,
    router: Router,
    places: Arc<Semaphore>,
}

impl Accepting {
    async fn go_on(&self) {
        loop {
            let place = self.places.clone().acquire_owned().await;
            if let Err(error) = self.accept(place.ok()).await {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    async fn accept(&self, place: Option<OwnedSemaphorePermit>) -> std::io::Result<()> {
        let (stream, peer) = self.listener.accept().await?;
        self.app.tasks.spawn(serve(self.app.clone(), stream, peer, self.router.clone(), place));
        Ok(())
    }

    /// Closing a listener resets the connections that wait in its queue, and their clients cannot know whether a request was
    /// heard. So the queue is kept from growing, emptied, beyond the limit too, and closed then. Who was kept out tries again
    /// within the second, and is then refused.
    async fn finish(&self) {
        keep_out(&self.listener);
        let until = Instant::now() + HANDSHAKE;
        while let Ok(accepted) = tokio::time::timeout_at(until, self.accept(None)).await {
            if accepted.is_err() {
                tokio::time::sleep_until(until).await;
            }
        }
    }
}

/// Lets the kernel drop requests for new connections to this listener, by a filter of classic BPF on what it receives: TCP
/// segments that have SYN set, in the flags at byte 13 (RFC 9293 section 3.1). Where there are no such filters, or none may
/// be set, connections come in until the end.
#[cfg(target_os = "linux")]
fn keep_out(listener: &TcpListener) {
    use socket2::{SockFilter, SockRef};
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    /// `BPF_LD | BPF_B | BPF_ABS`, `BPF_JMP | BPF_JSET | BPF_K` and `BPF_RET | BPF_K` (linux/bpf_common.h).
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    let filter = [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    if let Err(error) = SockRef::from(listener).attach_filter(&filter) {
        tracing::debug!(%error, "a listener takes connections until it closes");
    }
}

#[cfg(not(target_os = "linux"))]
fn keep_out(_: &TcpListener) {}
