//! The journal: records that may be written a moment later than what they record, in batches.
//!
//! Entries wait in a bounded queue; the writer collects for a short while, then writes what there is in one
//! statement. While the database is away they wait for it, in the order in which they came. What finds the queue full is
//! dropped and counted, because a free call is worth more than its record: at once while the database is away, otherwise
//! after a second in which the writer may catch up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::breaker;
use crate::calls::{self, CallRecord};
use crate::clock::{Clock, Timestamp};
use crate::db::Db;
use crate::error::Result;
use crate::mcp::session::Session;
use crate::replicas::SessionName;
use crate::session_history::{self, SessionAgreed, SessionClosed, SessionOpened, SessionUsed};
use crate::telemetry::labels::{Label, SessionEnd};
use crate::telemetry::metrics::Metrics;

/// Entries that wait: ten megabytes of them, which is half a minute of a thousand calls a second.
const QUEUE: usize = 32_768;
const BATCH: usize = 512;
/// How long the writer collects. Bounds what a kill can lose.
const LINGER: Duration = Duration::from_millis(50);
const FULL_WAIT: Duration = Duration::from_secs(1);
/// How often a batch is tried while Weir stops; before that it is tried until it is written.
const LAST_TRIES: u32 = 3;
/// Pauses between tries; see [`breaker::pauses`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

enum Entry {
    Call(Box<CallRecord>),
    Opened(Box<SessionOpened>),
    Closed(Box<SessionClosed>),
    Used(Box<SessionUsed>),
    Flush(oneshot::Sender<()>),
}

/// The writing end of the queue.
#[derive(Clone)]
pub struct Journal {
    queue: mpsc::Sender<Entry>,
    db: Db,
    metrics: Arc<Metrics>,
}

/// The reading end of the queue.
pub struct Writer {
    queue: mpsc::Receiver<Entry>,
    db: Db,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Journal {
    /// A journal and its writer, which must be [run](Writer::run).
    #[must_use]
    pub fn new(db: Db, clock: Clock, metrics: Arc<Metrics>) -> (Self, Writer) {
        let (queue, reader) = mpsc::channel(QUEUE);
        let journal = Self { queue, db: db.clone(), metrics: metrics.clone() };
        (journal, Writer { queue: reader, db, clock, metrics })
    }

    /// Records a call.
    pub async fn call(&self, record: CallRecord) {
        self.metrics.calls_queued.inc();
        let entry = match self.queue.try_send(Entry::Call(Box::new(record))) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(entry) | mpsc::error::TrySendError::Closed(entry)) => entry,
        };
        let there_is_hope = self.db.breaker().is_up();
        if !there_is_hope || self.queue.send_timeout(entry, FULL_WAIT).await.is_err() {
            self.lost();
        }
    }

    fn lost(&self) {
        self.metrics.calls_queued.dec();
        self.metrics.calls_dropped.inc();
    }

    /// Records that a session opened.
    pub fn session_opened(&self, session: &Session) {
        let negotiated = session.negotiated();
        let (client_name, client_version) = negotiated.client.unwrap_or_default();
        self.offer(Entry::Opened(Box::new(SessionOpened {
            id: session.row,
            principal: session.owner.clone(),
            transport: session.transport.text(),
            revision: negotiated.revision.name(),
            client_name: client_name.into(),
            client_version: client_version.into(),
            opened_at: session.opened_at,
        })));
    }

    /// Records that a session closed.
    pub fn session_closed(&self, session: &Session, at: Timestamp, reason: SessionEnd) {
        let (requests, calls) = session.counts();
        let negotiated = session.negotiated();
        let (client_name, client_version) = negotiated.client.unwrap_or_default();
        self.offer(Entry::Closed(Box::new(SessionClosed {
            id: session.row,
            tenant: session.owner.tenant,
            closed_at: at,
            agreed: Some(SessionAgreed {
                revision: negotiated.revision.name(),
                client_name: client_name.into(),
                client_version: client_version.into(),
            }),
            reason: reason.text(),
            requests: requests.into(),
            calls: calls.into(),
        })));
    }

    /// Records what a session carried here that another replica has ended.
    pub fn session_used(&self, session: &Session) {
        let (requests, calls) = session.counts();
        if requests > 0 {
            let (id, tenant) = (session.row, session.owner.tenant);
            let used = SessionUsed { id, tenant, requests: requests.into(), calls: calls.into() };
            self.offer(Entry::Used(Box::new(used)));
        }
    }

    /// Records the end of a session that this replica knows by its name alone.
    pub fn session_lost(&self, session: SessionName, at: Timestamp, reason: SessionEnd) {
        self.offer(Entry::Closed(Box::new(SessionClosed {
            id: session.row,
            tenant: session.tenant,
            closed_at: at,
            agreed: None,
            reason: reason.text(),
            requests: 0,
            calls: 0,
        })));
    }

    fn offer(&self, entry: Entry) {
        self.metrics.calls_queued.inc();
        if self.queue.try_send(entry).is_err() {
            self.lost();
            tracing::warn!("the journal has no room; a session's record is lost");
        }
    }

    /// Waits until everything that was recorded so far is written, unless that cannot be now.
    pub async fn flush(&self) {
        if !self.db.breaker().is_up() {
            return;
        }
        let (done, written) = oneshot::channel();
        if self.queue.send_timeout(Entry::Flush(done), FULL_WAIT).await.is_ok() {
            let _ = tokio::time::timeout(FULL_WAIT, written).await;
        }
    }
}

impl Writer {
    /// Writes until `stop` fires, then writes what is left. Whoever stops it must have stopped the writers first.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                _ = self.queue.recv_many(&mut batch, BATCH) => {}
                () = stop.cancelled() => break,
            }
            if batch.is_empty() {
                return;
            }
            self.linger(&mut batch, &stop).await;
            self.write(std::mem::take(&mut batch), &stop).await;
        }
        self.queue.close();
        while self.queue.recv_many(&mut batch, BATCH).await > 0 {
            self.write(std::mem::take(&mut batch), &stop).await;
        }
    }

    /// Lets more come together, unless somebody waits.
    async fn linger(&mut self, batch: &mut Vec<Entry>, stop: &CancellationToken) {
        let until = tokio::time::Instant::now() + LINGER;
        while batch.len() < BATCH && !batch.iter().any(|e| matches!(e, Entry::Flush(_))) {
            let room = BATCH - batch.len();
            let more = tokio::select! {
                more = tokio::time::timeout_at(until, self.queue.recv_many(batch, room)) => more,
                () = stop.cancelled() => return,
            };
            if !matches!(more, Ok(1..)) {
                return;
            }
        }
    }

    async fn write(&self, batch: Vec<Entry>, stop: &CancellationToken) {
        let mut waiting = Vec::new();
        let mut rows = Rows::default();
        for entry in batch {
            match entry {
                Entry::Call(record) => rows.calls.push(*record),
                Entry::Opened(opened) => rows.opened.push(*opened),
                Entry::Closed(closed) => rows.closed.push(*closed),
                Entry::Used(used) => rows.used.push(*used),
                Entry::Flush(done) => waiting.push(done),
            }
        }
        self.write_rows(&rows, stop).await;
        self.metrics.calls_queued.sub(i64::try_from(rows.len()).unwrap_or(i64::MAX));
        for done in waiting {
            let _ = done.send(());
        }
    }

    /// Tries until the rows are written; while Weir stops, only a few times.
    async fn write_rows(&self, rows: &Rows, stop: &CancellationToken) {
        let mut pauses = breaker::pauses(FIRST_PAUSE, LONGEST_PAUSE);
        let mut left = LAST_TRIES;
        let mut failed = false;
        while let Err(error) = self.try_write(rows).await {
            if !failed {
                tracing::warn!(%error, "the journal cannot be written; its records wait");
            }
            failed = true;
            if stop.is_cancelled() {
                left -= 1;
            }
            if left == 0 {
                tracing::error!(%error, lost = rows.len(), "records could not be written before the end");
                self.metrics.calls_dropped.inc_by(rows.len() as u64);
                return;
            }
            tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
            self.db.breaker().restored().await;
        }
        if failed {
            tracing::info!("the journal is written again");
        }
    }

    /// Writes a batch; writing one twice changes nothing but, at most, counts of sessions that several replicas served.
    async fn try_write(&self, rows: &Rows) -> Result<()> {
        calls::insert_batch(&self.db, &self.clock, &rows.calls).await?;
        session_history::write(&self.db, &rows.opened, &rows.closed).await?;
        session_history::add(&self.db, &rows.used).await
    }
}

/// A batch, by kind.
#[derive(Default)]
struct Rows {
    calls: Vec<CallRecord>,
    opened: Vec<SessionOpened>,
    closed: Vec<SessionClosed>,
    used: Vec<SessionUsed>,
}

impl Rows {
    fn len(&self) -> usize {
        self.calls.len() + self.opened.len() + self.closed.len() + self.used.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Actor;
    use crate::caller::{Credential, Principal};
    use crate::db::Page;
    use crate::db::testing::on_every_engine;
    use crate::id::{KeyId, SessionRowId, TenantId};
    use crate::tenants;

    fn opened(tenant: TenantId, at: Timestamp) -> SessionOpened {
        SessionOpened {
            id: SessionRowId::new(),
            principal: Principal { tenant, credential: Credential::ApiKey(KeyId::new()) },
            transport: "streamable_http",
            revision: "2025-11-25",
            client_name: "storm".to_owned(),
            client_version: "1".to_owned(),
            opened_at: at,
        }
    }

    fn closed(opened: &SessionOpened) -> SessionClosed {
        SessionClosed {
            id: opened.id,
            tenant: opened.principal.tenant,
            closed_at: opened.opened_at,
            agreed: Some(SessionAgreed {
                revision: opened.revision,
                client_name: opened.client_name.clone(),
                client_version: opened.client_version.clone(),
            }),
            reason: "unused",
            requests: 1,
            calls: 0,
        }
    }

    #[tokio::test]
    async fn a_storm_of_sessions_loses_no_row() {
        const SESSIONS: usize = 4096;
        on_every_engine(async |db| {
            let clock = Clock::system();
            let metrics = Arc::new(Metrics::new(clock.now()).expect("metrics"));
            let tenant = tenants::create(&db, &clock, Actor::Cli, "a").await.expect("a tenant").id;
            let (journal, writer) = Journal::new(db.clone(), clock.clone(), metrics.clone());
            let all: Vec<_> = (0..SESSIONS).map(|_| opened(tenant, clock.now())).collect();
            for one in &all {
                journal.offer(Entry::Opened(Box::new(one.clone())));
            }
            // They come in later batches than their beginnings: as updates.
            for one in &all {
                journal.offer(Entry::Closed(Box::new(closed(one))));
            }
            drop(journal);
            writer.run(CancellationToken::new()).await;
            assert_eq!(metrics.calls_dropped.get(), 0);
            let (mut after, mut count) = (None, 0);
            loop {
                let page = Page { after, limit: Page::<SessionRowId>::MAX };
                let listed = session_history::list(&db, tenant, page).await.expect("a list");
                assert!(listed.rows.iter().all(|row| row.close_reason.as_deref() == Some("unused")));
                count += listed.rows.len();
                after = listed.rows.last().map(|row| row.id);
                if !listed.more {
                    break;
                }
            }
            assert_eq!(count, SESSIONS);
        })
        .await;
    }
}
