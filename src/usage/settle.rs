//! Settling: the end of the line. What the call cost is decided, and it becomes part of the ledger or of the journal.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::purse::{Part, Source};
use super::reservation::{Reservation, Used};
use super::settler::{Entry, Unsettled};
use super::{Inner, Key, Receipt, Sizes, Usage};
use crate::caller::Caller;
use crate::calls::CallRecord;
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db::settlements::{Answer, SettledCall};
use crate::error::{Error, Result};
use crate::hooks::CallEnd;
use crate::id::{CallId, PeriodId, PriceVersionId};
use crate::mcp::content::ToolResult;
use crate::policy::Guarded;
use crate::prices::Measured;
use crate::telemetry::labels::Label;

impl Usage {
    /// Ends a call. One that costs something, or that came with a key, is durable when this returns; where that cannot be made
    /// sure of, or it is cancelled before, it is not charged, and its answer must not leave.
    ///
    /// # Errors
    /// Why it cannot be made sure of.
    pub async fn settle<T: Guarded>(
        &self,
        reservation: Reservation<'_, T>,
        end: &CallEnd<'_>,
        sizes: Sizes,
        (result, cancelled): (Option<&ToolResult>, &CancellationToken),
    ) -> Result<Receipt> {
        let inner = &*self.0;
        let Reservation { permit, place, tariff, key, begun_at } = reservation;
        let record = record(permit.caller(), end, begun_at, sizes, tariff.stamp());
        drop(place);
        let (credits, used) = tariff.charge(Measured {
            outcome: end.outcome,
            result_bytes: record.result_bytes,
            duration_us: u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX),
        });
        let receipt = |left| Receipt { call: end.start.id, credits, left, replayed: false };
        let answer = match (key, result) {
            (Some(key), Some(result)) => {
                let answer = inner.answer(&key, result, credits.unwrap_or_default())?;
                Some((key, answer))
            }
            (Some(key), None) => {
                key.give_free().await;
                None
            }
            (None, _) => None,
        };
        if credits.unwrap_or_default().is_zero() && answer.is_none() {
            inner.journal.call(record).await;
            return Ok(receipt(used.and_then(|used| used.left(begun_at))));
        }
        let purse = used.as_ref().map(|used| (used.purse.clone(), used.period));
        inner.enter(&record, (credits.unwrap_or_default(), used), answer, cancelled).await?;
        let now = inner.meter.clock.now();
        Ok(receipt(purse.and_then(|(purse, period)| purse.left(period, now))))
    }
}

impl Inner {
    /// What is kept for whoever comes with the key again.
    fn answer(&self, key: &Key, result: &ToolResult, credits: Credits) -> Result<Answer> {
        Ok(Answer {
            tenant_id: key.name.tenant,
            credential: key.name.credential.clone(),
            key_hash: key.name.hash.clone(),
            call: key.call,
            credits: credits.micros(),
            result: self.keys.seal(key, result)?,
        })
    }

    /// Enters a call into the ledger, and waits until it is there.
    async fn enter(
        &self,
        record: &CallRecord,
        (credits, used): (Credits, Option<Used>),
        answer: Option<(Key, Answer)>,
        cancelled: &CancellationToken,
    ) -> Result<()> {
        let parts = used.as_ref().map_or(&[][..], |used| &used.parts);
        let mut meters = parts.iter().map(|part| part.meter).chain(answer.as_ref().map(|(key, _)| key.meter));
        let meter = meters.next().filter(|first| meters.all(|other| other == *first));
        let Some(meter) = meter else { return Err(self.unsettled(record.id, Unsettled::Over)) };
        let call = settled_call(record, credits, parts, answer.as_ref().map(|(key, _)| key));
        let started = self.meter.clock.monotonic_micros();
        let entry = |done| Entry { call, used, answer, meter, done: Some(done) };
        let settled = self.queue.settle(self.config.settle_timeout.get(), cancelled, entry).await;
        let taken = self.meter.clock.elapsed_since(started).as_secs_f64();
        self.meter.metrics.metering.settle_duration.observe(taken);
        settled.map_err(|why| self.unsettled(record.id, why))
    }

    fn unsettled(&self, call: CallId, why: Unsettled) -> Error {
        self.meter.metrics.metering.calls_unsettled.inc();
        tracing::warn!(%call, ?why, "a call could not be settled; it is not charged, and its result is held back");
        Error::Away("ledger")
    }
}

pub(super) fn record(
    caller: &Caller,
    end: &CallEnd<'_>,
    started_at: Timestamp,
    sizes: Sizes,
    (period, version): (Option<PeriodId>, Option<PriceVersionId>),
) -> CallRecord {
    CallRecord {
        id: end.start.id,
        principal: caller.principal().clone(),
        server: Arc::clone(end.start.server),
        tool: Arc::clone(end.start.tool),
        outcome: end.outcome.text(),
        started_at,
        duration: end.duration,
        request_bytes: sizes.request as u64,
        result_bytes: sizes.result as u64,
        period,
        version,
    }
}

fn settled_call(record: &CallRecord, credits: Credits, parts: &[Part], key: Option<&Key>) -> SettledCall {
    let of =
        |source| parts.iter().filter(|part| part.source == source).map(|part| part.credits.micros()).sum();
    let draws: Vec<_> = parts.iter().map(|part| (part.slab, part.credits.micros())).collect();
    SettledCall {
        made: record.row(),
        credits: credits.micros(),
        included: of(Source::Included),
        promotional: of(Source::Promotional),
        prepaid: of(Source::Prepaid),
        overage: of(Source::Overage),
        draws: (!draws.is_empty()).then(|| serde_json::to_string(&draws).unwrap_or_default()),
        idempotency_key: key.map(|key| key.name.hash.clone()),
    }
}
