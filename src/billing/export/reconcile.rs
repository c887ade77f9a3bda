//! Reconciling: whether the provider counts what the ledger says, period by period.

use super::Meter;
use serde::Serialize;

use super::exporter::Exporter;
use super::minutes::MINUTE;
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db;
use crate::db::exports::Books;
use crate::error::Result;
use crate::id::{PeriodId, TenantId};

/// Slots that are read at once when sums differ.
const BATCH: i64 = 200;

/// How ledger and provider compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// What is owed was told, and is counted. Nothing else is proof.
    Equal,
    /// Something was not told yet, or is not proven yet.
    InFlight,
    /// The provider counts less than it was told.
    Missing,
    /// The provider counts more than it was told.
    Extra,
    /// What the provider counts cannot be read.
    Unreadable,
}

impl Verdict {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Equal, Self::InFlight, Self::Missing, Self::Extra, Self::Unreadable];

    /// As metrics and commands have it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::InFlight => "in_flight",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Unreadable => "unreadable",
        }
    }
}

/// The comparison of one period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// The period.
    pub period: PeriodId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What it owes, as far as slabs are closed.
    pub owed: Credits,
    /// How much of that was told.
    pub told: Credits,
    /// What the slots within its span are worth.
    pub slots: Credits,
    /// What the provider counts within its span; nothing where that cannot be read.
    pub counted: Option<Credits>,
    /// What that means.
    pub verdict: Verdict,
}

impl<M: Meter> Exporter<M> {
    /// Compares ledger, exports and the provider's sum for a period. Where the provider counts something else than was proven,
    /// its slots are read once more, and what is found is frozen: the next round sets it right. Nothing, where the period does not
    /// exist.
    ///
    /// # Errors
    /// [`Error::Database`](crate::error::Error::Database), [`Error::Away`](crate::error::Error::Away).
    pub async fn reconcile(&self, period: PeriodId) -> Result<Option<Proof>> {
        let Some(books) = db::exports::books(&self.db, period).await? else { return Ok(None) };
        let customer = db::exports::customer(&self.db, books.tenant_id).await?;
        let counted = match &customer {
            Some(customer) => self.meter.counted(customer, minutes(books)).await,
            // Whom the provider does not know, it counts nothing for.
            None => Ok(Credits::ZERO),
        };
        let verdict = verdict(books, counted.as_ref().ok().copied());
        let Books { tenant_id: tenant, owed, told, slots, .. } = books;
        let counted =
            counted.inspect_err(|why| tracing::warn!(%tenant, why, "what is counted cannot be read")).ok();
        if let (Some(customer), Verdict::Missing | Verdict::Extra) = (&customer, verdict) {
            tracing::error!(%tenant, %period, %slots, ?counted, "drift: the provider's sum is not what was proven");
            self.read_again(books, customer).await?;
        }
        Ok(Some(Proof { period, tenant, owed, told, slots, counted, verdict }))
    }

    async fn read_again(&self, books: Books, customer: &str) -> Result<()> {
        let (from, to) = minutes(books);
        let mut after = Timestamp::from_micros(from.as_micros() - 1);
        loop {
            let exports = db::exports::proven(&self.db, books.tenant_id, (after, to), BATCH).await?;
            let Some(last) = exports.last() else { return Ok(()) };
            after = last.slot;
            for mut export in exports {
                let span = (export.slot, Timestamp::from_micros(export.slot.as_micros() + MINUTE));
                let Ok(counted) = self.meter.counted(customer, span).await else { continue };
                if export.read_again(counted).is_some() {
                    tracing::error!(export = %export.id, tenant = %export.tenant_id, %counted, "drift: a slot counts something else by now");
                    db::exports::update(&self.db, &mut export).await?;
                }
            }
        }
    }
}

/// The full minutes of a period.
fn minutes(books: Books) -> (Timestamp, Timestamp) {
    let up = |at: Timestamp| Timestamp::from_micros(-(-at.as_micros()).div_euclid(MINUTE) * MINUTE);
    (up(books.starts_at), up(books.ends_at))
}

fn verdict(books: Books, counted: Option<Credits>) -> Verdict {
    match counted {
        None => Verdict::Unreadable,
        Some(_) if books.in_flight > 0 => Verdict::InFlight,
        Some(counted) if counted > books.slots => Verdict::Extra,
        Some(counted) if counted < books.slots => Verdict::Missing,
        Some(_) if books.owed != books.told => Verdict::InFlight,
        Some(_) => Verdict::Equal,
    }
}
