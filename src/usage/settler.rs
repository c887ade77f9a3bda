//! The settler: makes calls part of the ledger before their replies leave.
//!
//! One task takes whatever queued while its last commit ran, and commits it at once: under load many calls share one
//! transaction, and a single call waits for nobody. While the database is away the batch waits, as long as anybody waits for
//! it. A call nobody waits for any more, because its time was up, is not charged; where it turns out that it was, because the
//! database had it after all, the charge is taken back.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Key;
use super::give_back::GiveBacks;
use super::meter::Meter;
use super::purse::Part;
use super::reservation::Used;
use crate::breaker;
use crate::clock::Timestamp;
use crate::db::calls::NewCall;
use crate::db::settlements::{self, Answer, Batch, SettledCall};
use crate::error::Error;
use crate::id::{CallId, MeterId};
use crate::ledger::days;
use crate::telemetry::labels::{Label, Outcome};

/// Settlements that wait. Calls at once are bounded by every tenant's `concurrency`; this only keeps the queue from being
/// without end.
const QUEUE: usize = 8192;
/// Calls in one transaction.
const BATCH: usize = 512;
/// Pauses between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Why a call is not part of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsettled {
    /// The database does not answer, or too late.
    Away,
    /// The client took it back, or went away.
    Cancelled,
    /// This process was taken for dead and lost what it held.
    Over,
    /// The database refuses it. Reported in the log.
    Refused,
}

/// A call on its way into the ledger. What it used can be used again when this is dropped before it has ended.
pub(super) struct Entry {
    pub call: SettledCall,
    pub used: Option<Used>,
    /// What is kept for whoever comes with its key. The key stays taken until the call's fate is known.
    pub answer: Option<(Key, Answer)>,
    pub meter: MeterId,
    /// Whoever waits; nobody, once it was told.
    pub done: Option<oneshot::Sender<Result<(), Unsettled>>>,
}

impl Entry {
    /// Whether nobody waits.
    fn gone(&self) -> bool {
        self.done.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn id(&self) -> CallId {
        self.call.made.id
    }

    /// It is not in the ledger, or nothing was charged.
    fn failed(mut self, why: Unsettled) {
        if let Some(done) = self.done.take() {
            let _ = done.send(Err(why));
        }
    }

    /// It is in the ledger. What was charged, if nobody was there any more to be told.
    fn released(mut self) -> Option<(SettledCall, Vec<Part>)> {
        let parts = self.used.as_mut().map(Used::settled).unwrap_or_default();
        if let Some((key, _)) = self.answer.take() {
            key.settled();
        }
        match self.done.take()?.send(Ok(())) {
            Ok(()) => None,
            Err(_) => Some((self.call, parts)),
        }
    }
}

/// The queue's writing end.
#[derive(Clone)]
pub(super) struct Queue {
    entries: mpsc::Sender<Entry>,
}

/// The queue's reading end.
pub(super) struct Settler {
    entries: mpsc::Receiver<Entry>,
    meter: Arc<Meter>,
    give_backs: Arc<GiveBacks>,
}

pub(super) fn queue(meter: Arc<Meter>, give_backs: Arc<GiveBacks>) -> (Queue, Settler) {
    let (entries, reader) = mpsc::channel(QUEUE);
    (Queue { entries }, Settler { entries: reader, meter, give_backs })
}

impl Queue {
    /// Settles a call, and waits until that is durable, for at most `patience` and until it is `cancelled`.
    pub async fn settle(
        &self,
        patience: Duration,
        cancelled: &CancellationToken,
        entry: impl FnOnce(oneshot::Sender<Result<(), Unsettled>>) -> Entry,
    ) -> Result<(), Unsettled> {
        let (done, mut settled) = oneshot::channel();
        let waiting = async {
            self.entries.send(entry(done)).await.map_err(|_| Unsettled::Away)?;
            (&mut settled).await.unwrap_or(Err(Unsettled::Away))
        };
        let why = tokio::select! {
            biased;
            settled = waiting => return settled,
            () = cancelled.cancelled() => Unsettled::Cancelled,
            () = tokio::time::sleep(patience) => Unsettled::Away,
        };
        // From here on nobody can be told; who was told in this moment is.
        settled.close();
        settled.try_recv().unwrap_or(Err(why))
    }

    /// Whether nothing is settled any more.
    pub fn is_closed(&self) -> bool {
        self.entries.is_closed()
    }
}

impl Settler {
    /// Settles until `stop` fires, then what is left. Whoever stops it must have stopped the calls first.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                received = self.entries.recv_many(&mut batch, BATCH) => if received == 0 { return },
                () = stop.cancelled() => break,
            }
            self.settle(std::mem::take(&mut batch)).await;
        }
        self.entries.close();
        while self.entries.recv_many(&mut batch, BATCH).await > 0 {
            self.settle(std::mem::take(&mut batch)).await;
        }
    }

    async fn settle(&self, entries: Vec<Entry>) {
        let open = self.meter.id();
        let (entries, lost): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| Some(entry.meter) == open);
        lost.into_iter().for_each(|entry| entry.failed(Unsettled::Over));
        let Some(meter) = open.filter(|_| !entries.is_empty()) else { return };
        self.meter.metrics.metering.settle_batch.observe(count(entries.len()));
        Attempt { settler: self, meter, entries, in_doubt: false }.settle().await;
    }
}

/// One batch, until its fate is known.
struct Attempt<'a> {
    settler: &'a Settler,
    meter: MeterId,
    entries: Vec<Entry>,
    /// An earlier try may have done it.
    in_doubt: bool,
}

impl Attempt<'_> {
    async fn settle(mut self) {
        let meter = &self.settler.meter;
        let mut pauses = breaker::pauses(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            if !self.in_doubt && self.entries.iter().all(Entry::gone) {
                // Nobody waits and nothing was done: nothing is to be done.
                return self.end_all(|_| Err(Unsettled::Away));
            }
            let gone: Vec<_> =
                self.entries.iter().filter(|entry| entry.gone()).map(|entry| entry.id()).collect();
            let today = days::day_of(meter.clock.now());
            let batch = batch(&self.entries, &gone, today, self.in_doubt);
            match settlements::settle(&meter.db, self.meter, &batch, meter.clock.now()).await {
                Ok(fresh) => return self.settled(&fresh, &gone).await,
                Err(Error::Away(_)) => {}
                Err(Error::Database(error)) if is_verdict(&error) => return self.refused(&error).await,
                Err(error) => {
                    self.in_doubt = true;
                    tracing::warn!(%error, calls = self.entries.len(), "calls cannot be settled; trying on");
                }
            }
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            tokio::time::sleep(pause).await;
            tokio::select! {
                () = meter.db.breaker().restored() => {}
                () = nobody_waits(&self.entries), if !self.in_doubt => {}
            }
        }
    }

    /// The database answered. What it had before, it has from an earlier try of this batch; where it has nothing, the meter may
    /// be closed.
    async fn settled(self, fresh: &[CallId], gone: &[CallId]) {
        let all = fresh.len() == self.entries.len();
        let earlier = if self.in_doubt && !all { self.there().await } else { HashMap::new() };
        if !all && !self.settler.meter.beat().await.unwrap_or(true) {
            tracing::warn!(
                calls = self.entries.len(),
                "calls were not settled: this process was taken for dead"
            );
        }
        self.end_all(|entry| {
            let id = entry.id();
            fate(all || fresh.contains(&id), gone.contains(&id), earlier.get(&id).map(String::as_str))
        });
    }

    /// Which calls of the batch are in the ledger, and how they ended. Asked until there is an answer.
    async fn there(&self) -> HashMap<CallId, String> {
        let ids: Vec<_> = self.entries.iter().map(|entry| entry.id()).collect();
        let mut pauses = breaker::pauses(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            match settlements::there(&self.settler.meter.db, &ids).await {
                Ok(there) => return there.into_iter().collect(),
                Err(_) => {
                    tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
                    self.settler.meter.db.breaker().restored().await;
                }
            }
        }
    }

    /// A statement that the database refuses: one of the calls is wrong. The others are settled one by one.
    async fn refused(mut self, error: &sqlx::Error) {
        if self.entries.len() == 1 && self.in_doubt && !self.there().await.is_empty() {
            // By an earlier try.
            return self.settled(&[], &[]).await;
        }
        let entries = std::mem::take(&mut self.entries);
        if entries.len() == 1 {
            for entry in entries {
                tracing::error!(%error, call = %entry.id(), "the ledger refuses a call; it is not charged, and its result is held back");
                entry.failed(Unsettled::Refused);
            }
            return;
        }
        for entry in entries {
            let alone = Attempt {
                settler: self.settler,
                meter: self.meter,
                entries: vec![entry],
                in_doubt: self.in_doubt,
            };
            Box::pin(alone.settle()).await;
        }
    }

    fn end_all(mut self, result: impl Fn(&Entry) -> Result<(), Unsettled>) {
        for entry in std::mem::take(&mut self.entries) {
            match result(&entry) {
                Ok(()) => self.released(entry),
                Err(why) => entry.failed(why),
            }
        }
    }

    /// Tells whoever waits that the call is settled; takes the charge back where nobody does.
    fn released(&self, entry: Entry) {
        if let Some((call, parts)) = entry.released() {
            self.settler.give_backs.add(&call, &parts);
        }
    }
}

/// What became of a call that this try wrote (`fresh`), as one that nobody waited for any more (`gone`) or else as released; or that
/// an `earlier` try wrote, with this outcome.
fn fate(fresh: bool, gone: bool, earlier: Option<&str>) -> Result<(), Unsettled> {
    match (fresh, earlier) {
        (true, _) if gone => Err(Unsettled::Away),
        (true, _) => Ok(()),
        (false, Some(outcome)) if outcome == Outcome::NotReleased.text() => Err(Unsettled::Away),
        (false, Some(_)) => Ok(()),
        (false, None) => Err(Unsettled::Over),
    }
}

/// Whether the database refuses what a statement says, and would again: PostgreSQL's classes "data exception" and "integrity
/// constraint violation", SQLite's "constraint" and "mismatch". Anything else may pass.
fn is_verdict(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default();
    match code.len() {
        5 => code.starts_with("22") || code.starts_with("23"),
        _ => code.parse::<u32>().is_ok_and(|code| [19, 20].contains(&(code & 0xff))),
    }
}

/// Until nobody waits for any of them.
async fn nobody_waits(entries: &[Entry]) {
    const LOOK: Duration = Duration::from_millis(100);
    while !entries.iter().all(Entry::gone) {
        tokio::time::sleep(LOOK).await;
    }
}

/// The batch as it is written. Calls that nobody waits for are recorded and not charged.
fn batch<'a>(entries: &'a [Entry], gone: &[CallId], today: Date, again: bool) -> Batch<'a> {
    let mut batch = Batch { again, ..Batch::default() };
    let mut days = BTreeSet::new();
    for entry in entries {
        let day = days::day_of(Timestamp::from_micros(entry.call.made.started_at));
        if day < today {
            days.insert(day);
        }
        if gone.contains(&entry.id()) {
            batch.calls.push(Cow::Owned(not_released(&entry.call)));
            continue;
        }
        batch.calls.push(Cow::Borrowed(&entry.call));
        batch.answers.extend(entry.answer.as_ref().map(|(_, answer)| answer));
    }
    batch.days = days.iter().map(ToString::to_string).collect();
    batch
}

fn not_released(call: &SettledCall) -> SettledCall {
    SettledCall {
        made: NewCall { outcome: Outcome::NotReleased.text(), ..call.made.clone() },
        credits: 0,
        included: 0,
        promotional: 0,
        prepaid: 0,
        overage: 0,
        draws: None,
        // It may be made again with its key.
        idempotency_key: None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a batch is small")]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_released_where_the_ledger_says_so_and_nowhere_else() {
        let withheld = Some("not_released");
        for (fresh, gone, earlier, expected) in [
            (true, false, None, Ok(())),
            (true, true, None, Err(Unsettled::Away)),
            (false, false, Some("ok"), Ok(())),
            // Written as released before anybody went: the charge is taken back by whoever finds nobody there.
            (false, true, Some("ok"), Ok(())),
            // Whatever it cost, also nothing: its answer was not kept, and its key is free.
            (false, true, withheld, Err(Unsettled::Away)),
            (false, false, None, Err(Unsettled::Over)),
            (false, true, None, Err(Unsettled::Over)),
        ] {
            assert_eq!(fate(fresh, gone, earlier), expected, "{fresh} {gone} {earlier:?}");
        }
    }
}
