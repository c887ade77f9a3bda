//! Verification: whether the ledger, and everything that was added up from it, is right. It reads and never repairs.
//!
//! What belongs together is read in one transaction per tenant that sees one state of the database, so this may run at any time.
//! Memory is bounded by what one period, one day and one page of one tenant hold.

mod calls;
mod exports;
mod prices;
mod report;
mod sources;
mod sums;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use report::{Check, Finding, Report};

use super::retention::Floor;
use crate::clock::{Clock, Timestamp};
use crate::db::ledger::checks::{self, Strays};
use crate::db::{Db, Tx};
use crate::error::Result;
use crate::id::TenantId;

/// What is verified, and what has to be known for it.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// Only this tenant.
    pub tenant: Option<TenantId>,
    /// Servers and names of tools that are free by themselves.
    pub free: &'a [(&'a str, &'a str)],
    /// For how long a key stands for the same call.
    pub replay: Duration,
}

/// One tenant, and what is known of everything.
struct Scope<'a> {
    tenant: TenantId,
    now: Timestamp,
    floor: Floor,
    free: &'a [(&'a str, &'a str)],
    replay: Duration,
    is_sqlite: bool,
}

impl Scope<'_> {
    /// Whether everything is there that came of what began at this instant.
    fn is_whole(&self, began: Timestamp) -> bool {
        self.floor.at().is_none_or(|at| began > at)
    }
}

/// Verifies everything, or everything of one tenant.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database) where it could not be read. What is wrong is in the report.
pub async fn verify(db: &Db, clock: &Clock, options: &Options<'_>) -> Result<Report> {
    let mut report = Report::default();
    let mut tx = db.begin_reading().await?;
    prices::verify(&mut tx, &mut report).await?;
    let tenants = match options.tenant {
        Some(tenant) => vec![tenant],
        None => all_tenants(&mut tx).await?,
    };
    tx.commit().await?;
    let mut book = prices::Book::default();
    for tenant in tenants {
        let mut tx = db.begin_reading().await?;
        let scope = Scope {
            tenant,
            now: clock.now(),
            floor: Floor::read_in(&mut tx).await?,
            free: options.free,
            replay: options.replay,
            is_sqlite: db.engine() == "sqlite",
        };
        one_tenant(&mut tx, &scope, &mut book, &mut report).await?;
        tx.commit().await?;
    }
    let mut tx = db.begin_reading().await?;
    strays(&mut tx, options.tenant, &mut report).await?;
    let floor = Floor::read_in(&mut tx).await?;
    tx.commit().await?;
    if let Some(at) = floor.at() {
        report.notes.push(format!(
            "calls before {at} may be gone: sums of periods, grants and days that began by then were not checked"
        ));
    }
    Ok(report)
}

async fn all_tenants(tx: &mut Tx) -> Result<Vec<TenantId>> {
    let mut all = Vec::<TenantId>::new();
    loop {
        let after = all.last().map(ToString::to_string).unwrap_or_default();
        let page = checks::tenants(tx, &after).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

async fn one_tenant(
    tx: &mut Tx,
    scope: &Scope<'_>,
    book: &mut prices::Book,
    report: &mut Report,
) -> Result<()> {
    let periods = checks::periods(tx, scope.tenant).await?;
    sources::periods(tx, scope, book, &periods, report).await?;
    sources::grants(tx, scope, book, &periods, report).await?;
    exports::verify(tx, scope, &periods, report).await?;
    calls::Walk::new(tx, scope, &periods).await?.run(tx, book, report).await
}

/// What refers to another tenant's things. Such references never change, so these need not be read together.
async fn strays(tx: &mut Tx, tenant: Option<TenantId>, report: &mut Report) -> Result<()> {
    let tenant = tenant.map(|tenant| tenant.to_string()).unwrap_or_default();
    let found = [
        checks::stray_calls(tx, &tenant).await?,
        checks::stray_slabs(tx, &tenant).await?,
        checks::stray_corrections(tx, &tenant).await?,
        checks::stray_events(tx, &tenant).await?,
        checks::stray_periods(tx, &tenant).await?,
        checks::stray_exports(tx, &tenant).await?,
    ];
    for Strays { looked, wrong, examples } in found {
        let examples =
            examples.into_iter().map(|id| format!("{id}: refers to what is another tenant's, or not there"));
        report.add_all(Check::Tenants, (looked, wrong), examples.collect());
    }
    Ok(())
}
