//! Events: what somebody should know about an account, each once per period.

use serde_json::json;

use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db::account_events::Levels;
use crate::db::{self, Db, Listed, Page, Tx};
use crate::error::Result;
use crate::id::{AccountEventId, PeriodId, TenantId};
use crate::telemetry::labels::Label;
use crate::telemetry::metrics::Metrics;

pub use crate::db::account_events::{Event, EventKind};

impl Label for EventKind {
    const NAME: &'static str = "kind";
    const ALL: &'static [Self] = &[
        Self::Included80,
        Self::Included100,
        Self::SoftCap80,
        Self::SoftCap100,
        Self::HardCap80,
        Self::HardCap100,
    ];
    fn text(self) -> &'static str {
        self.as_str()
    }
    fn index(self) -> usize {
        self as usize
    }
}

/// Whether this is at least so many hundredths of `whole`.
fn reaches(part: Credits, whole: Credits, percent: i128) -> bool {
    whole.is_positive() && i128::from(part.micros()) * 100 >= i128::from(whole.micros()) * percent
}

/// The kinds that are due, with what is used and of how much.
fn due(levels: &Levels) -> impl Iterator<Item = (EventKind, Credits, Credits)> {
    let Levels { owed, included, included_used, .. } = *levels;
    let (soft, hard) = (levels.soft_cap.unwrap_or_default(), levels.hard_cap.unwrap_or_default());
    [
        (EventKind::Included80, included_used, included, 80),
        (EventKind::Included100, included_used, included, 100),
        (EventKind::SoftCap80, owed, soft, 80),
        (EventKind::SoftCap100, owed, soft, 100),
        (EventKind::HardCap80, owed, hard, 80),
        (EventKind::HardCap100, owed, hard, 100),
    ]
    .into_iter()
    .filter(|(_, used, of, percent)| reaches(*used, *of, *percent))
    .map(|(kind, used, of, _)| (kind, used, of))
}

/// Writes the events of a period that its numbers call for and that it does not have, and hands back those; they are to be
/// [announced](announce) after the transaction. One statement where there is none.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database).
pub async fn note(tx: &mut Tx, period: PeriodId, at: Timestamp) -> Result<Vec<Event>> {
    let Some(levels) = db::account_events::levels(tx, period).await? else { return Ok(Vec::new()) };
    let mut missing: Vec<_> = due(&levels).collect();
    if !missing.is_empty() {
        let known = db::account_events::kinds(tx, period).await?;
        missing.retain(|(kind, ..)| !known.contains(kind));
    }
    let mut made = Vec::new();
    for (kind, used, of) in missing {
        let (id, tenant_id) = (AccountEventId::new(), levels.tenant_id);
        let detail = json!({ "used": used, "of": of }).to_string();
        let event = Event { id, tenant_id, period_id: period, kind, at, detail };
        if db::account_events::insert(tx, &event).await? {
            made.push(event);
        }
    }
    Ok(made)
}

/// Tells operators of new events: a line in the log and a count for each.
pub fn announce(metrics: &Metrics, events: &[Event]) {
    for event in events {
        metrics.metering.account_events.inc(event.kind);
        let Event { tenant_id: tenant, period_id: period, kind, detail, .. } = event;
        tracing::info!(%tenant, %period, %kind, %detail, "an account came to a mark");
    }
}

/// One page of a tenant's events, oldest first.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database).
pub async fn list(db: &Db, tenant: TenantId, page: Page<AccountEventId>) -> Result<Listed<Event>> {
    db::account_events::list(db, tenant, page).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_reached_at_the_micro_credit() {
        let of = Credits::from_micros;
        for (part, whole, percent, expected) in [
            (79, 100, 80, false),
            (80, 100, 80, true),
            (0, 0, 80, false),
            (4, 6, 80, false),
            (5, 6, 80, true),
            (i64::MAX, i64::MAX, 100, true),
            (i64::MAX - 1, i64::MAX, 100, false),
        ] {
            assert_eq!(reaches(of(part), of(whole), percent), expected, "{part} of {whole}");
        }
    }
}
