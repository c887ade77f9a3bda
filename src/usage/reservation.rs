//! Proof that a permitted call is within all limits and can be paid for.

use std::sync::Arc;

use super::keys::Key;
use super::purse::{Hold, Part, Purse};
use crate::caller::Caller;
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::id::{PeriodId, PriceVersionId};
use crate::limits::Place;
use crate::mcp::content::ToolResult;
use crate::policy::Permit;
use crate::prices::{Measured, Price};
use crate::providers::{Outcome, Reply};

/// Proof that a permitted call is within all limits and can be paid for. Gives its place, its credits and its key back when
/// dropped.
pub struct Reservation<'a, T> {
    pub(super) permit: Permit<'a, T>,
    pub(super) place: Place,
    pub(super) tariff: Tariff,
    pub(super) key: Option<Key>,
    pub(super) begun_at: Timestamp,
}

impl<T> Reservation<'_, T> {
    /// Who calls.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        self.permit.caller()
    }

    /// When the call began, for its price and for its record.
    #[must_use]
    pub fn begun_at(&self) -> Timestamp {
        self.begun_at
    }

    /// What is called.
    #[must_use]
    pub fn tool(&self) -> &T {
        self.permit.tool()
    }

    /// The result that is kept for whoever comes with the key of this call again: none without a key, and none of a call
    /// that failed, which may be made again.
    #[must_use]
    pub fn kept(&self, outcome: &Outcome) -> Option<ToolResult> {
        match (&self.key, outcome) {
            (Some(_), Outcome::Answered(Reply::Done(result))) => Some(result.clone()),
            _ => None,
        }
    }
}

/// By which price a call goes.
pub(super) enum Tariff {
    /// The tenant's calls have no prices.
    None,
    /// This one.
    Priced {
        period: PeriodId,
        version: Option<PriceVersionId>,
        price: Price,
        /// What was set aside; nothing for what is free.
        hold: Option<Hold>,
        purse: Arc<Purse>,
    },
}

/// Credits that a call has used and that are to be settled. They can be used again when this is dropped before that.
pub(super) struct Used {
    pub purse: Arc<Purse>,
    pub period: PeriodId,
    pub parts: Vec<Part>,
}

impl Used {
    pub fn left(&self, now: Timestamp) -> Option<Credits> {
        self.purse.left(self.period, now)
    }

    /// They have left their slabs.
    pub fn settled(&mut self) -> Vec<Part> {
        let parts = std::mem::take(&mut self.parts);
        parts.iter().for_each(|part| self.purse.release(*part, part.credits));
        parts
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        for part in std::mem::take(&mut self.parts) {
            self.purse.release(part, Credits::ZERO);
        }
    }
}

impl Tariff {
    /// Period and price version that the call's record names.
    pub fn stamp(&self) -> (Option<PeriodId>, Option<PriceVersionId>) {
        match self {
            Self::None => (None, None),
            Self::Priced { period, version, .. } => (Some(*period), *version),
        }
    }

    /// What the call costs, where it has a price, and what it uses; the rest of what was set aside goes back.
    pub fn charge(self, call: Measured) -> (Option<Credits>, Option<Used>) {
        let Self::Priced { period, price, hold, purse, .. } = self else { return (None, None) };
        let credits = price.charge(call);
        let parts = hold.map_or(Vec::new(), |hold| hold.into_used(credits));
        (Some(credits), Some(Used { purse, period, parts }))
    }
}
