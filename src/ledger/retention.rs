//! How long calls are kept. What is final about them stays for ever: daily sums, periods, grants, corrections.

use jiff::civil::Date;

use super::{days, rollups};
use crate::clock::{Clock, Timestamp};
use crate::db::ledger::floor::{self, FloorRow};
use crate::db::{Db, Tx, usage_days};
use crate::error::Result;
use crate::id::CallId;

/// Months whose parts are there before they begin.
const AHEAD: i32 = 3;
/// Rows that one statement deletes.
const BATCH: i64 = 1000;
/// Batches of one run; the next one goes on.
const BATCHES: usize = 1000;

/// Below which calls may be gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Floor(Option<FloorRow>);

impl Floor {
    pub(crate) async fn read(db: &Db) -> Result<Self> {
        floor::get(db).await.map(Self)
    }

    pub(crate) async fn read_in(tx: &mut Tx) -> Result<Self> {
        floor::get_in(tx).await.map(Self)
    }

    /// The instant before which calls may be gone.
    pub(crate) fn at(&self) -> Option<Timestamp> {
        self.0.as_ref().map(|floor| floor.at)
    }

    /// Whether this call may be gone.
    pub(crate) fn may_lack(&self, call: CallId) -> bool {
        self.0.as_ref().is_some_and(|floor| call < floor.call_id)
    }

    /// Whether every call of the day is there. The floor's own day may lack one whose id was made before midnight.
    pub(crate) fn has_all_of(&self, day: Date) -> bool {
        self.at().is_none_or(|at| days::span(day).start > at)
    }
}

/// Makes the parts of the months to come, and deletes calls of more than `keep_months` whole months ago, of days that are
/// summed and periods that are final; 0 keeps all. Any number of processes may do this at once.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database); what was deleted before stays so.
pub async fn keep(db: &Db, clock: &Clock, keep_months: u32) -> Result<()> {
    let now = clock.now();
    let this_month = days::month(days::day_of(now), 0);
    for ahead in 0..=AHEAD {
        let month = this_month.saturating_add(jiff::Span::new().months(ahead));
        floor::add_month(db, &month.to_string()).await?;
    }
    if keep_months == 0 {
        return Ok(());
    }
    let month = lowest_kept(db, now, keep_months).await?;
    let at = days::span(month).start;
    floor::raise(db, &FloorRow { call_id: CallId::lowest_at(at), at }).await?;
    delete(db).await
}

/// The first month that has to be kept.
async fn lowest_kept(db: &Db, now: Timestamp, keep_months: u32) -> Result<Date> {
    let wanted = days::month(days::day_of(now), keep_months);
    let open = floor::oldest_open_period(db).await?.map(days::day_of);
    let unsummed = rollups::due(db, now).await?.first().copied();
    let needed = [open, unsummed].into_iter().flatten().map(|day| days::month(day, 0));
    Ok(needed.fold(wanted, Date::min))
}

/// Deletes what is below the floor.
async fn delete(db: &Db) -> Result<()> {
    let Some(row) = floor::get(db).await? else { return Ok(()) };
    for part in floor::parts(db).await? {
        let Some(month) = month_of(&part) else { continue };
        let end = month.saturating_add(jiff::Span::new().months(1));
        if days::span(end).start <= row.at {
            floor::drop_month(db, &month.to_string()).await?;
        }
    }
    for _ in 0..BATCHES {
        if floor::delete_calls(db, &row, BATCH).await? == 0 {
            break;
        }
    }
    for _ in 0..BATCHES {
        if floor::delete_slabs(db, row.at, BATCH).await? == 0 {
            break;
        }
    }
    usage_days::forget_stale(db, &days::day_of(row.at).to_string()).await
}

/// The month of a part of that name.
fn month_of(part: &str) -> Option<Date> {
    let (year, month) = part.strip_prefix("calls_")?.split_once('_')?;
    Date::new(year.parse().ok()?, month.parse().ok()?, 1).ok()
}
