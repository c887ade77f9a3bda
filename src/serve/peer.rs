//! Peers that are gone, or that take nothing: a connection to one ends within `server.dead_peer_timeout_ms`.
//!
//! Three things tell. The kernel probes a silent connection and gives up on one that does not acknowledge (`tune`): that
//! is a peer which vanished without a word. A write that makes no progress ends the connection ([`Watched`]): that is a
//! peer whose window stays shut. And over HTTP/2, where each stream has a window of its own, a stream whose response the peer
//! has not let go on for that long is reset ([`Streams`]).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::tasks::Tasks;

/// Probes of a silent connection within the limit. One that is lost on the way is no reason to give up.
const PROBES: u32 = 3;
/// The kernel counts the time between probes in whole seconds.
const LEAST: Duration = Duration::from_secs(1);

/// Asks the kernel to end the connection within `limit` after the peer acknowledged something for the last time: neither
/// what was sent (`TCP_USER_TIMEOUT`, which counts for a shut window too) nor probes of a silent connection
/// (`SO_KEEPALIVE`). The first of these times begins with what is sent, on an open stream up to a heartbeat later.
pub(super) fn tune(stream: &TcpStream, limit: Duration, heartbeat: Duration) {
    let socket = SockRef::from(stream);
    // The first probe goes out after a quarter of the limit; the last one has a quarter to be answered.
    let every = (limit / (PROBES + 1)).max(LEAST);
    let keepalive = TcpKeepalive::new().with_time(every).with_interval(every).with_retries(PROBES);
    let tuned = socket.set_tcp_keepalive(&keepalive);
    #[cfg(target_os = "linux")]
    let tuned = tuned.and_then(|()| socket.set_tcp_user_timeout(Some(limit - heartbeat.min(limit / 2))));
    if let Err(error) = tuned {
        tracing::debug!(%error, "a connection has no limits of its own against dead peers");
    }
}

/// How HTTP/2 begins (RFC 9113 section 3.4).
const H2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Room for the first bytes; most request heads fit.
const FIRST: usize = 1024;

/// The first bytes of a connection: enough to tell HTTP/1 from HTTP/2.
///
/// hyper-util's own detection hands on its 24 bytes alone. A head that comes in two pieces makes hyper's buffer of 8 KiB grow to
/// 16, which an open stream then keeps.
pub(super) async fn first_bytes(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(FIRST);
    while bytes.len() < H2.len() && H2.starts_with(&bytes) {
        if stream.read_buf(&mut bytes).await? == 0 {
            break;
        }
    }
    Ok(bytes)
}

/// Whether a connection that begins so speaks HTTP/2.
pub(super) fn is_h2(first: &[u8]) -> bool {
    first.starts_with(H2)
}

/// How long a connection that was closed from here is read on, in case its client sends: bytes that nobody reads make the
/// kernel reset the connection, and a reset may destroy the last answer on its way (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_millis(250);
/// How much is read of what nobody wants before others have their turn, in pieces and bytes.
const PIECES: usize = 16;
const PIECE: usize = 4096;

/// A connection on which every write must make progress within a limit.
pub(super) struct Watched<S> {
    stream: S,
    /// What was read before, to be read again.
    first: Vec<u8>,
    limit: Duration,
    /// When the write that is waiting has waited for too long; there is none while writes go through. Once nothing can be
    /// written any more, when reading has to end.
    patience: Option<Pin<Box<Sleep>>>,
    /// Nothing can be written any more.
    is_shut: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, first: Vec<u8>, limit: Duration) -> Self {
        Self { stream, first, limit, patience: None, is_shut: false }
    }

    /// What a write came to; one that has waited for too long is an error.
    fn judge(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.patience = None;
            return written;
        }
        let limit = self.limit;
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(patience.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let now = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first[..now]);
            self.first.drain(..now);
            if self.first.is_empty() {
                self.first = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.is_shut = true;
            self.patience = Some(Box::pin(tokio::time::sleep(LINGER)));
        }
        self.poll_linger(cx).map(Ok)
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Reads what nobody wants until the peer has closed the connection, too, or the time for it is over.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(patience) = &mut self.patience
            && patience.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(());
        }
        for _ in 0..PIECES {
            let mut piece = [0; PIECE];
            let mut buffer = ReadBuf::new(&mut piece);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

tokio::task_local! {
    /// The HTTP/2 stream that this task serves.
    static TURN: Arc<Turn>;
}

/// Runs the streams of HTTP/2 connections, each as a task. One whose peer lets nothing of the response through is dropped,
/// which resets that stream; the others on its connection, which may be other people's, go on.
#[derive(Clone)]
pub(super) struct Streams {
    tasks: Tasks,
    limit: Duration,
}

impl Streams {
    pub(super) fn new(tasks: Tasks, limit: Duration) -> Self {
        Self { tasks, limit }
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let (turn, limit) = (Arc::new(Turn::new()), self.limit);
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                _ = TURN.scope(turn.clone(), stream) => {}
                () = turn.stuck(limit) => tracing::debug!("a peer lets nothing of a response through"),
            }
        });
    }
}

/// Whose turn it is on an HTTP/2 stream. hyper asks a response for its next piece when it has handed the last one on; while
/// the peer's window is shut it keeps that piece and asks no more.
#[derive(Debug)]
pub(super) struct Turn {
    begun: Instant,
    /// Since when the response waits for its peer, in milliseconds after `begun` and never 0; or 0.
    since: AtomicU64,
}

impl Turn {
    fn new() -> Self {
        Self { begun: Instant::now(), since: AtomicU64::new(0) }
    }

    /// That of the stream that the running task serves; none outside of HTTP/2.
    pub(super) fn of_this_stream() -> Option<Arc<Self>> {
        TURN.try_with(Clone::clone).ok()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// The response handed out a piece, or its last: it waits for the peer.
    pub(super) fn waits_for_peer(&self) {
        self.since.store(self.now(), Ordering::Relaxed);
    }

    /// The response has nothing to hand out: the peer waits for it.
    pub(super) fn waits_for_us(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// Whether the response has waited for the peer for `limit`.
    fn is_stuck(&self, limit: Duration) -> bool {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let since = self.since.load(Ordering::Relaxed);
        since != 0 && self.now().saturating_sub(since) >= limit
    }

    /// Returns when the response has waited for the peer for `limit`, or up to a quarter longer.
    async fn stuck(&self, limit: Duration) {
        while !self.is_stuck(limit) {
            tokio::time::sleep(limit / 4).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(45);

    #[tokio::test]
    async fn a_write_that_makes_no_progress_fails() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let mut ours = Watched::new(ours, Vec::new(), Duration::from_millis(20));
        let error = ours.write_all(&[0; 17]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn every_progress_counts_anew() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut ours = Watched::new(ours, Vec::new(), LIMIT);
        ours.write_all(&[0; 16]).await.expect("room");
        assert!(futures_util::poll!(Box::pin(ours.write(&[0; 16]))).is_pending());
        assert!(ours.patience.is_some());
        theirs.read_exact(&mut [0; 8]).await.expect("eight bytes");
        assert_eq!(ours.write(&[0; 16]).await.expect("room again"), 8);
        assert!(ours.patience.is_none());
    }

    #[tokio::test]
    async fn what_is_sent_to_a_closed_connection_is_read_until_its_peer_closes_it() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut ours = Watched::new(ours, Vec::new(), LIMIT);
        let mut closing = std::pin::pin!(ours.shutdown());
        assert!(futures_util::poll!(&mut closing).is_pending());
        assert_eq!(theirs.read(&mut [0; 16]).await.expect("the end"), 0);
        let sending = async {
            theirs.write_all(&[0; 1024]).await.expect("somebody reads");
            drop(theirs);
        };
        let (closed, ()) = tokio::join!(closing, sending);
        closed.expect("closed");
    }

    #[tokio::test]
    async fn a_peer_that_keeps_a_closed_connection_is_left() {
        let (ours, theirs) = tokio::io::duplex(16);
        let begun = Instant::now();
        Watched::new(ours, Vec::new(), LIMIT).shutdown().await.expect("closed");
        assert!(begun.elapsed() >= LINGER && begun.elapsed() < LIMIT);
        drop(theirs);
    }

    #[test]
    fn a_response_is_stuck_only_while_it_waits_for_the_peer() {
        let Some(begun) = Instant::now().checked_sub(2 * LIMIT) else { return };
        let turn = Turn { begun, ..Turn::new() };
        assert!(!turn.is_stuck(Duration::ZERO), "it is not answered yet");
        turn.waits_for_peer();
        assert!(turn.is_stuck(Duration::ZERO) && !turn.is_stuck(LIMIT), "not for long enough");
        turn.since.store(1, Ordering::Relaxed);
        assert!(turn.is_stuck(LIMIT));
        turn.waits_for_us();
        assert!(!turn.is_stuck(Duration::ZERO), "nothing to say");
    }

    #[tokio::test]
    async fn a_stream_whose_peer_takes_nothing_ends_and_no_other() {
        let tasks = Tasks::new();
        let streams = Streams::new(tasks.clone(), Duration::from_millis(20));
        for waits in [false, true] {
            hyper::rt::Executor::execute(&streams, async move {
                let turn = Turn::of_this_stream().expect("a stream");
                if waits {
                    turn.waits_for_peer()
                } else {
                    turn.waits_for_us()
                }
                std::future::pending::<()>().await;
            });
        }
        while tasks.running() > 1 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(tasks.running(), 1, "the one whose peer waits for it");
        assert!(Turn::of_this_stream().is_none());
    }
}
