//! Reconciling: whether the provider counts what the ledger says, period by period.

use super::Meter;

use super::exporter::Exporter;
use super::minutes::MINUTE;
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db;
use crate::db::proofs::{Books, Proof, Verdict};
use crate::error::Result;
use crate::id::PeriodId;

/// Slots that are read at once when sums differ.
const BATCH: i64 = 200;

impl<M: Meter> Exporter<M> {
    /// Compares ledger, exports and the provider's sum for a period, up to its first slot that is not proven yet: what is on its
    /// way says nothing about what should have arrived. Where the provider counts something else than was proven, its slots are read
    /// once more, and what is found is frozen: the next round sets it right. The proof is kept. Nothing, where the period does
    /// not exist.
    ///
    /// # Errors
    /// [`Error::Database`](crate::error::Error::Database), [`Error::Away`](crate::error::Error::Away).
    pub async fn reconcile(&self, period: PeriodId) -> Result<Option<Proof>> {
        let Some(books) = db::proofs::books(&self.db, period).await? else { return Ok(None) };
        let tenant = books.tenant_id;
        let customer = db::exports::customer(&self.db, tenant).await?;
        let counted = match &customer {
            Some(customer) => self.meter.counted(customer, minutes(books)).await,
            // Whom the provider does not know, it counts nothing for.
            None => Ok(Credits::ZERO),
        };
        let counted =
            counted.inspect_err(|why| tracing::warn!(%tenant, why, "what is counted cannot be read")).ok();
        let mut verdict = verdict(books, counted);
        if let (Some(customer), Verdict::Missing | Verdict::Extra) = (&customer, verdict) {
            // Another process may have told something, or proven it, between our two looks.
            if db::proofs::books(&self.db, period).await? == Some(books) {
                let slots = books.slots;
                tracing::error!(%tenant, %period, %slots, ?counted, "drift: the provider's sum is not what was proven");
                self.read_again(books, customer).await?;
            } else {
                verdict = Verdict::InFlight;
            }
        }
        let Books { owed, told, until, slots, .. } = books;
        let at = self.clock.now();
        let proof =
            Proof { period_id: period, tenant_id: tenant, owed, told, until, slots, counted, verdict, at };
        db::proofs::put(&self.db, &proof).await?;
        Ok(Some(proof))
    }

    async fn read_again(&self, books: Books, customer: &str) -> Result<()> {
        let (from, to) = minutes(books);
        let mut after = Timestamp::from_micros(from.as_micros() - 1);
        loop {
            let exports = db::proofs::proven(&self.db, books.tenant_id, (after, to), BATCH).await?;
            let Some(last) = exports.last() else { return Ok(()) };
            after = last.slot;
            for mut export in exports {
                let span = (export.slot, Timestamp::from_micros(export.slot.as_micros() + MINUTE));
                let (id, tenant) = (export.id, export.tenant_id);
                let counted = match self.meter.counted(customer, span).await {
                    Ok(counted) => counted,
                    Err(why) => {
                        tracing::warn!(export = %id, %tenant, why, "a slot cannot be read again; trying on at the next comparison");
                        continue;
                    }
                };
                if export.read_again(counted).is_some() {
                    tracing::error!(export = %id, %tenant, %counted, "drift: a slot counts something else by now");
                    db::exports::update(&self.db, &mut export).await?;
                }
            }
        }
    }
}

/// The full minutes that are compared.
fn minutes(books: Books) -> (Timestamp, Timestamp) {
    let up = |at: Timestamp| Timestamp::from_micros(-(-at.as_micros()).div_euclid(MINUTE) * MINUTE);
    (up(books.starts_at), up(books.until))
}

fn verdict(books: Books, counted: Option<Credits>) -> Verdict {
    match counted {
        None => Verdict::Unreadable,
        Some(counted) if counted > books.slots => Verdict::Extra,
        Some(counted) if counted < books.slots => Verdict::Missing,
        Some(_) if books.in_flight > 0 || books.owed != books.told => Verdict::InFlight,
        Some(_) => Verdict::Equal,
    }
}
