//! Daily sums of the ledger: what is kept of calls when they themselves are gone, and what makes reports quick.
//!
//! A day is summed ten minutes after its end. Calls that are written later, and corrections, mark their day as stale in the
//! transaction that writes them, and it is summed again. Days of which calls may be gone already keep the sums that they have.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::civil::Date;

use super::days;
use super::retention::Floor;
use crate::clock::{Clock, Timestamp};
use crate::db::{Db, Tx, usage_days};
use crate::error::Result;

/// How long after its end a day is summed: far longer than a transaction takes.
const GRACE: Duration = Duration::from_secs(600);

/// Sums every day that is over and has no sums, or sums that are not right. Days that were summed here. Any number of
/// processes may do this at once.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database); days that were summed before stay so.
pub async fn keep(db: &Db, clock: &Clock) -> Result<Vec<Date>> {
    let mut summed = Vec::new();
    for day in due(db, clock.now()).await? {
        let mut tx = db.begin().await?;
        let text = day.to_string();
        if usage_days::claim(&mut tx, &text, clock.now()).await? {
            usage_days::roll(&mut tx, &text, &days::span(day)).await?;
            tx.commit().await?;
            summed.push(day);
        }
    }
    Ok(summed)
}

/// Sums days anew, as far as they were over and all their calls are there.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database).
pub async fn recompute(db: &Db, clock: &Clock, range: RangeInclusive<Date>) -> Result<Vec<Date>> {
    let known = usage_days::rolled(db).await?;
    let known = known.iter().filter_map(|rolled| rolled.day.parse().ok());
    for day in known.filter(|day| range.contains(day)) {
        let mut tx = db.begin().await?;
        mark_stale(&mut tx, day).await?;
        tx.commit().await?;
    }
    keep(db, clock).await
}

/// Says that the sums of a day are not right any more, because this transaction writes calls or corrections of it. To be
/// done last: whoever writes of the same day waits for this transaction.
pub(crate) async fn mark_stale(tx: &mut Tx, day: Date) -> Result<()> {
    usage_days::mark_stale(tx, &day.to_string()).await
}

/// The days that are to be summed, in their order.
pub(super) async fn due(db: &Db, now: Timestamp) -> Result<BTreeSet<Date>> {
    let today = days::day_of(now.minus(GRACE));
    let rolled = usage_days::rolled(db).await?;
    let of = |text: &str| text.parse::<Date>().ok();
    let fresh: BTreeSet<_> =
        rolled.iter().filter(|day| day.stale.is_none()).filter_map(|day| of(&day.day)).collect();
    let first_call = usage_days::first_call(db).await?.map(days::day_of);
    let stale: Vec<_> = usage_days::stale(db).await?.iter().filter_map(|text| of(text)).collect();
    let floor = Floor::read(db).await?;
    let mut due = BTreeSet::new();
    if let Some(first) = first_call.into_iter().chain(fresh.first().copied()).min() {
        due.extend(first.series(jiff::Span::new().days(1)).take_while(|day| *day < today));
    }
    due.extend(stale.into_iter().filter(|day| *day < today));
    due.retain(|day| !fresh.contains(day) && floor.has_all_of(*day));
    Ok(due)
}
