//! Accounts: what tenants of plans with prices are charged on. An account's periods follow one another without a gap while
//! the tenant's plan has prices, and its grants are credits that it was given.
//!
//! A period that is due is opened by whoever needs it first ([`standing`]), and else by the upkeep ([`Keeper`]), which also
//! closes periods and ends grants. Whoever changes periods or grants holds the account's row, so several processes that do
//! so at once find what the first one did.

mod caps;
mod closing;
pub mod cycle;
pub mod events;
mod following;
pub mod grants;
mod opening;
mod upkeep;
mod view;

#[cfg(test)]
mod tests;

use crate::clock::Timestamp;
use crate::db::{self, Db, Listed, Page};
use crate::error::Result;
use crate::id::{PeriodId, TenantId};

pub use crate::db::accounts::{Access, Account};
pub use crate::db::periods::Period;
pub use caps::set_spend_cap;
pub(crate) use following::{Wanted, follow};
pub(crate) use opening::{hold, plan_changed, tenant_deleted};
pub use upkeep::{Keeper, Kept, keep};
pub use view::{Overview, overview};

/// Where an account stands at an instant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// The period that the instant is in. None: nothing is charged.
    pub current: Option<Period>,
    /// The period after it, where that is known already: after a change of plan, before it takes effect.
    pub next: Option<Period>,
}

impl Standing {
    /// Of the periods that end after `at`, in order.
    fn of(periods: Vec<Period>, at: Timestamp) -> Self {
        let mut periods = periods.into_iter().peekable();
        let current = periods.next_if(|period| period.starts_at <= at);
        Self { current, next: periods.next() }
    }
}

/// Where a tenant's account stands at this instant, which is now or a moment ago. Opens what is due: one statement where
/// nothing is. Both are none for a tenant whose plan has no prices yet, or never.
///
/// # Errors
/// `Internal` for a price version that is not what was published, `Database`, `Away`.
pub async fn standing(db: &Db, tenant: TenantId, at: Timestamp) -> Result<Standing> {
    loop {
        let standing = Standing::of(db::periods::around(db, tenant, at).await?, at);
        if standing.current.is_some() || standing.next.is_some() {
            return Ok(standing);
        }
        if opening::open(db, tenant, at).await? == 0 {
            // Nothing is due, or somebody else opened it since we looked.
            return Ok(Standing::of(db::periods::around(db, tenant, at).await?, at));
        }
    }
}

/// One page of a tenant's periods, oldest first.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database).
pub async fn periods(db: &Db, tenant: TenantId, page: Page<PeriodId>) -> Result<Listed<Period>> {
    db::periods::list(db, tenant, page).await
}
