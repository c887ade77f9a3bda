//! How a period is closed: what it owes and a grant can pay is set right, what is left of its included credits expires, and
//! its numbers become final.

use super::events::{self, Event};
use super::{Account, Period};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db::{self, Tx};
use crate::error::Result;
use crate::id::PeriodId;

/// Closes a period that is over, unless somebody did already or a process still holds credits of it. The account's row must
/// be held.
pub(super) async fn close(
    tx: &mut Tx,
    account: &Account,
    id: PeriodId,
    at: Timestamp,
) -> Result<Option<Vec<Event>>> {
    let Some(period) = db::periods::get_in(tx, id).await? else { return Ok(None) };
    let is_due = period.closed_at.is_none() && period.ends_at <= at && period.tenant_id == account.tenant_id;
    if !is_due || db::periods::open_slabs(tx, &period).await? > 0 {
        return Ok(None);
    }
    true_up(tx, &period, at).await?;
    db::grants::expire_included(tx, period.tenant_id, id).await?;
    let events = events::note(tx, id, at).await?;
    db::periods::close(tx, id, at).await?;
    Ok(Some(events))
}

/// Credits may be owed although a grant had some left: another process held them and gave them back unused. What grants that
/// were there for the whole period can pay is not owed after all.
async fn true_up(tx: &mut Tx, period: &Period, at: Timestamp) -> Result<()> {
    if !period.overage_used.is_positive() {
        return Ok(());
    }
    let mut owed = period.overage_used;
    let span = (period.starts_at, period.ends_at);
    for payer in db::grants::payers(tx, period.tenant_id, period.id, span).await? {
        let credits = owed.min(payer.unused);
        if !credits.is_positive() {
            continue;
        }
        db::grants::pay(tx, payer.id, credits).await?;
        db::corrections::true_up(tx, period, payer.id, credits, at).await?;
        owed -= credits;
    }
    let paid: Credits = period.overage_used - owed;
    if paid.is_positive() {
        db::periods::owe_less(tx, period.id, paid).await?;
    }
    Ok(())
}
