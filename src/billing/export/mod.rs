//! The export: what accounts owe becomes events of a meter at the provider of invoices, each credit in exactly one.
//!
//! The ledger says what a period owes (`overage_used`); the exports of a period say how much of that was told. What is missing
//! between the two becomes one more export, in the same transaction that finds it out, under the account's row: so nothing is
//! told twice, and what was taken back or was told too much is told as a negative amount. An event has a minute of its own
//! (its slot), so that what became of it can be read back: the provider's sums are by the minute.
//!
//! `slot` holds the rules by which an event is sent, sent again, proven or given up; `minutes` finds its slot; [`Exporter`]
//! carries it out, and [compares](Exporter::reconcile) ledger, exports and the provider's sums. Nothing here knows which provider it is: that is behind [`Meter`].

mod exporter;
mod minutes;
mod reconcile;
mod slot;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::credits::Credits;

pub use crate::db::exports::{Export, ExportState};
pub use crate::db::proofs::{Proof, Verdict};
pub(crate) use exporter::SINCE;
pub use exporter::{Exporter, Round, Rules};
pub(crate) use minutes::MINUTE;
pub(crate) use slot::OLDEST;

/// An event of the meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// By which the provider knows an event that it has already.
    pub identifier: String,
    /// The provider's id of whoever is billed.
    pub customer: String,
    /// The beginning of its minute.
    pub at: Timestamp,
    /// How much. Negative: so much was told too much.
    pub credits: Credits,
}

/// What the provider said of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has it, now or from before.
    Accepted,
    /// It did not take it now: it could not be reached, or there was too much at once.
    NotTaken {
        /// Why.
        why: String,
        /// When to come again, where it said so.
        after: Option<Duration>,
    },
    /// It did not take it and never will; why.
    Refused(String),
    /// It may have it or not; why that is not known.
    Unclear(String),
}

/// The meter of a provider of invoices.
pub trait Meter: Send + Sync {
    /// Tells it of an event.
    fn send(&self, event: &Event) -> impl Future<Output = Answer> + Send;

    /// What it has counted for a customer from one full minute up to but not including another.
    ///
    /// # Errors
    /// Why that could not be read.
    fn counted(
        &self,
        customer: &str,
        span: (Timestamp, Timestamp),
    ) -> impl Future<Output = Result<Credits, String>> + Send;
}
