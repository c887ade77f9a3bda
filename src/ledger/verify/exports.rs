//! Exports: whether what periods owe was told to the provider of invoices once, in minutes of their own, or waits to be told.
//!
//! This asks the database alone. What the provider counts is for `weir billing reconcile` to compare. Where no provider is
//! configured there are no customers and no exports, and nothing to look at.

use std::collections::HashMap;
use std::time::Duration;

use super::Scope;
use super::report::{Check, Report, holds};
use crate::billing::export::{ExportState, MINUTE, OLDEST, SINCE};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db::Tx;
use crate::db::ledger::checks::PeriodFacts;
use crate::db::ledger::export_checks::{self, ExportFacts};
use crate::error::Result;
use crate::id::{ExportId, PeriodId};

/// The longest that an invoice can be left open for late usage
/// (<https://docs.stripe.com/billing/subscriptions/usage-based/configure-grace-period>).
const LONGEST_GRACE: Duration = Duration::from_secs(72 * 3600);

/// What the exports of a period say.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    /// What they are worth: what was told, or what is counted where that is frozen.
    worth: Credits,
    /// By how much more is counted than was told in minutes that are frozen.
    drifted: Credits,
}

/// Checks the exports of a tenant one by one, and then what they add up to.
pub(super) async fn verify(
    tx: &mut Tx,
    scope: &Scope<'_>,
    periods: &[PeriodFacts],
    report: &mut Report,
) -> Result<()> {
    let customer_since = export_checks::customer_since(tx, scope.tenant).await?;
    let mut told = HashMap::<PeriodId, Told>::new();
    let mut before = None::<(Timestamp, ExportId)>;
    loop {
        let after = before
            .map_or((Timestamp::from_micros(i64::MIN), String::new()), |(slot, id)| (slot, id.to_string()));
        let page = export_checks::exports(tx, scope.tenant, (after.0, &after.1)).await?;
        if page.is_empty() {
            break;
        }
        for export in page {
            report.add(Check::Exports, state(&export));
            report.add(Check::Minutes, minute(&export, periods, before));
            before = Some((export.slot, export.id));
            // Where it is another tenant's, that is said elsewhere.
            if periods.iter().any(|period| period.id == export.period_id) {
                told.entry(export.period_id).or_default().add(&export);
            }
        }
    }
    for period in periods {
        match (told.get(&period.id), customer_since) {
            // Nobody is billed for the tenant.
            (None, None) => {}
            (sums, _) => {
                let sums = sums.copied().unwrap_or_default();
                report.add(Check::Told, owed_and_told(scope.now, period, sums, customer_since));
            }
        }
    }
    Ok(())
}

impl Told {
    fn add(&mut self, export: &ExportFacts) {
        let frozen = export.state == ExportState::Frozen.as_str();
        let worth = if frozen { export.counted.unwrap_or_default() } else { export.credits };
        self.worth += worth;
        self.drifted += (worth - export.credits).max(Credits::ZERO);
    }
}

/// Whether an export has what goes with its state.
fn state(export: &ExportFacts) -> Result<(), String> {
    let ExportFacts { id, state, generation, .. } = export;
    let known = [ExportState::Open, ExportState::Sent, ExportState::Verified, ExportState::Frozen];
    let Some(known) = known.into_iter().find(|known| known.as_str() == state) else {
        return Err(format!("{id}: is {state}, which is no state"));
    };
    holds(!export.credits.is_zero(), || format!("{id}: tells nothing"))?;
    holds(*generation > 0 && (*generation == 1 || export.last_sent_at.is_some()), || {
        format!("{id}: is of generation {generation}, and was never sent")
    })?;
    holds(export.first_sent_at.is_none() || export.last_sent_at.is_some(), || {
        format!("{id}: was sent first, and not last")
    })?;
    // One that was too late for its minute was frozen without being sent.
    let may_be_unsent = matches!(known, ExportState::Open | ExportState::Frozen);
    holds(may_be_unsent || export.first_sent_at.is_some(), || {
        format!("{id}: is {state}, and was never sent")
    })?;
    let is_known = matches!(known, ExportState::Verified | ExportState::Frozen);
    match export.counted {
        None => holds(!is_known, || format!("{id}: is {state}, and nothing says what is counted")),
        Some(counted) => {
            holds(is_known, || format!("{id}: is {state}, although it is known that {counted} are counted"))?;
            holds(known != ExportState::Verified || counted == export.credits, || {
                format!("{id}: is {state}, where {counted} are counted of {}", export.credits)
            })
        }
    }
}

/// Whether an export has a minute of its own, and one that it may have. `before` is the one with the minute before.
fn minute(
    export: &ExportFacts,
    periods: &[PeriodFacts],
    before: Option<(Timestamp, ExportId)>,
) -> Result<(), String> {
    let ExportFacts { id, slot, created_at, .. } = export;
    holds(slot.as_micros().rem_euclid(MINUTE) == 0, || format!("{id}: begins within a minute, at {slot}"))?;
    if let Some((_, other)) = before.filter(|(taken, _)| taken == slot) {
        return Err(format!("{id}: has the minute of {other}, {slot}"));
    }
    let over = Timestamp::from_micros(slot.as_micros().saturating_add(MINUTE));
    holds(over <= *created_at && *slot >= created_at.minus(OLDEST), || {
        format!("{id}: was begun at {created_at}, when the minute of {slot} could not be used")
    })?;
    let Some(own) = periods.iter().find(|period| period.id == export.period_id) else { return Ok(()) };
    let around = periods.iter().find(|period| period.starts_at <= *slot && over <= period.ends_at);
    let around = around.filter(|period| period.starts_at >= own.starts_at);
    holds(around.is_some(), || format!("{id}: the minute of {slot} is not in {} or a later period", own.id))?;
    let is_own = around.is_some_and(|period| period.id == own.id);
    holds(!is_own || *created_at <= own.ends_at.plus(LONGEST_GRACE), || {
        format!("{id}: was begun at {created_at}, after any invoice of {} was final", own.id)
    })
}

/// Whether a period owes what was told, or that is still to be told, or taken back.
fn owed_and_told(
    now: Timestamp,
    period: &PeriodFacts,
    told: Told,
    customer_since: Option<Timestamp>,
) -> Result<(), String> {
    // What final invoices left out counts as not told.
    let (id, owed, worth) = (period.id, period.overage_used, told.worth - period.carried);
    // What it owed once and does not any more.
    let taken_back = Credits::ZERO - period.corrected.min(Credits::ZERO);
    let billed_beyond = Credits::ZERO - period.carried.min(Credits::ZERO);
    holds(worth <= owed + taken_back + told.drifted + billed_beyond, || {
        format!("{id}: {worth} were told, where it owes {owed}, and nothing says why")
    })?;
    let end = period.ends_at.plus(SINCE);
    // Whoever became a customer only then was not told of it, and will not be.
    let never = worth.is_zero() && customer_since.is_none_or(|since| since >= end);
    holds(worth == owed || now < end || never, || {
        format!("{id}: {worth} were told, where it owes {owed}, and it ended too long ago to set that right")
    })
}
