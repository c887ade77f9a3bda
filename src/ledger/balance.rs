//! What an account has left, and what was used of it, at a moment: from the books, so that it is the same on every replica.

use super::usage::{self, By, Line};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db::Db;
use crate::db::grants::GrantKind;
use crate::db::ledger::balance::{self, LeftRow};
use crate::error::Result;
use crate::id::TenantId;
use crate::prices;

/// What can still be used without owing anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Left {
    /// Included in the plan; gone when the period ends.
    pub included: Credits,
    /// Given away.
    pub promotional: Credits,
    /// Bought.
    pub prepaid: Credits,
}

/// The running period of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeriodBalance {
    /// The plan of the period.
    pub plan: String,
    /// Its beginning.
    pub starts_at: Timestamp,
    /// Its end, which is not in it.
    pub ends_at: Timestamp,
    /// What its calls have cost so far.
    pub used: Credits,
    /// Of that, what is owed.
    pub owed: Credits,
    /// The most that may be owed: none where the plan has no cap, zero where nothing may be.
    pub cap: Option<Credits>,
    /// Whether the plan lets its tenants owe anything.
    pub may_owe: bool,
}

/// What an account has left at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// The period of that moment.
    pub period: PeriodBalance,
    /// What its grants have left.
    pub left: Left,
}

impl Left {
    fn of(grants: &[LeftRow]) -> Self {
        let of = |kind| grants.iter().filter(|row| row.kind == kind).map(|row| row.credits).sum();
        Self {
            included: of(GrantKind::Included),
            promotional: of(GrantKind::Promotional),
            prepaid: of(GrantKind::Prepaid),
        }
    }
}

impl PeriodBalance {
    /// What may still be owed; none where there is no cap.
    #[must_use]
    pub fn cap_left(&self) -> Option<Credits> {
        self.cap.map(|cap| (cap - self.owed).max(Credits::ZERO))
    }

    /// What will have been used at the period's end if it goes on like this: what was used, in proportion to the time that
    /// has passed. None in the period's first hour, which says too little.
    #[must_use]
    pub fn forecast(&self, now: Timestamp) -> Option<Credits> {
        let micros = |from: Timestamp, to: Timestamp| u64::try_from(to.as_micros() - from.as_micros()).ok();
        let passed = micros(self.starts_at, now).filter(|passed| *passed >= 3_600_000_000)?;
        Some(self.used.share(micros(self.starts_at, self.ends_at)?, passed))
    }
}

/// What a tenant's account has left. None where the tenant is not charged.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database).
pub async fn balance(db: &Db, tenant: TenantId, now: Timestamp) -> Result<Option<Balance>> {
    let mut tx = db.begin_reading().await?;
    let period = balance::current_period(&mut tx, tenant, now).await?;
    let grants = balance::left(&mut tx, tenant, now).await?;
    tx.commit().await?;
    let Some(row) = period else { return Ok(None) };
    let may_owe = prices::get(db, row.price_version_id).await?.terms.kind.may_owe();
    Ok(Some(Balance {
        period: PeriodBalance {
            plan: row.plan,
            starts_at: row.starts_at,
            ends_at: row.ends_at,
            used: row.used,
            owed: row.owed,
            cap: row.hard_cap,
            may_owe,
        },
        left: Left::of(&grants),
    }))
}

/// What a tenant's grants have left, whether or not a period runs, and what is owed in the running one.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database).
pub async fn left_and_owed(db: &Db, tenant: TenantId, now: Timestamp) -> Result<(Left, Credits)> {
    let mut tx = db.begin_reading().await?;
    let period = balance::current_period(&mut tx, tenant, now).await?;
    let grants = balance::left(&mut tx, tenant, now).await?;
    tx.commit().await?;
    Ok((Left::of(&grants), period.map(|period| period.owed).unwrap_or_default()))
}

/// What a tenant used since an instant, by tool.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database).
pub async fn by_tool(db: &Db, tenant: TenantId, since: Timestamp, now: Timestamp) -> Result<Vec<Line>> {
    let mut tx = db.begin_reading().await?;
    let end = now.plus(std::time::Duration::from_secs(1));
    let lines = usage::sums_in(&mut tx, tenant, &(since..end), By::Tool).await?;
    tx.commit().await?;
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forecast_goes_by_the_time_that_passed() {
        let at = |hours: i64| Timestamp::from_micros(hours * 3_600_000_000);
        let period = PeriodBalance {
            plan: "p".to_owned(),
            starts_at: at(100),
            ends_at: at(800),
            used: Credits::from_micros(3),
            owed: Credits::from_micros(2),
            cap: Some(Credits::from_micros(5)),
            may_owe: true,
        };
        assert_eq!(period.forecast(at(100)), None);
        assert_eq!(period.forecast(at(101)), Some(Credits::from_micros(2100)));
        assert_eq!(period.forecast(at(109)), Some(Credits::from_micros(234)), "rounded up");
        assert_eq!(period.forecast(at(800)), Some(Credits::from_micros(3)));
        assert_eq!(period.cap_left(), Some(Credits::from_micros(3)));
    }
}
