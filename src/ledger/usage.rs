//! What a tenant used: sums over days, credentials, servers or tools, and the calls themselves.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use jiff::civil::Date;

use super::days;
use crate::clock::Timestamp;
use crate::db::{self, Db, Listed, Page, Tx, usage_days};
use crate::error::{Error, Result};
use crate::id::{CallId, TenantId};

pub use crate::db::ledger::Entry;
pub use crate::db::usage_days::{By, Sums};

/// Most lines of one report.
const MOST_LINES: usize = 10_000;
/// Most days of one report.
const MOST_DAYS: i32 = 3660;

/// The sums of one day, credential, server or tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The server of a tool.
    pub server: Option<String>,
    /// The day (`YYYY-MM-DD`, UTC), the credential (`key_...` or `jwt_...`), the server, or the tool.
    pub name: String,
    /// What was used.
    pub sums: Sums,
}

/// What a tenant used on these days, in the order of the lines' names.
///
/// # Errors
/// [`Error::Invalid`] for too many days, and where there were more than 10,000 lines; [`Error::Database`].
pub async fn sums(db: &Db, tenant: TenantId, range: RangeInclusive<Date>, by: By) -> Result<Vec<Line>> {
    let length = range.start().until(*range.end()).map_or(i32::MAX, |span| span.get_days());
    if length >= MOST_DAYS {
        return Err(Error::Invalid(format!("from, to: expected at most {MOST_DAYS} days")));
    }
    let mut tx = db.begin_reading().await?;
    let span = days::span(*range.start()).start..days::span(*range.end()).end;
    let lines = sums_in(&mut tx, tenant, &span, by).await?;
    tx.commit().await?;
    Ok(lines)
}

/// One page of a tenant's calls that began on these days, in the order in which they began.
///
/// # Errors
/// [`Error::Database`].
pub async fn calls(
    db: &Db,
    tenant: TenantId,
    range: RangeInclusive<Date>,
    page: Page<CallId>,
) -> Result<Listed<Entry>> {
    let span = days::span(*range.start()).start..days::span(*range.end()).end;
    db::ledger::list(db, tenant, span, page).await
}

/// Whether there is, or was, such a tenant: what a deleted one used stays.
///
/// # Errors
/// [`Error::Database`].
pub async fn has_tenant(db: &Db, tenant: TenantId) -> Result<bool> {
    db::ledger::has_tenant(db, tenant).await
}

/// Sums within any span of time, as a transaction sees it.
pub(super) async fn sums_in(
    tx: &mut Tx,
    tenant: TenantId,
    span: &Range<Timestamp>,
    by: By,
) -> Result<Vec<Line>> {
    let limit = i64::try_from(MOST_LINES).unwrap_or(i64::MAX) + 1;
    let mut lines = BTreeMap::<(String, String), Sums>::new();
    for part in parts(tx, span).await? {
        let groups = match part {
            Part::Kept(from, to) => {
                usage_days::kept(tx, tenant, (&from.to_string(), &to.to_string()), by, limit).await?
            }
            Part::Counted(span) => usage_days::counted(tx, tenant, &span, by, limit).await?,
        };
        for group in groups {
            let name =
                if group.day_number < 0 { group.name } else { days::of_number(group.day_number).to_string() };
            *lines.entry((group.server, name)).or_default() += group.sums;
        }
        if lines.len() > MOST_LINES {
            return Err(Error::Invalid(format!(
                "by: there are more than {MOST_LINES} lines; ask for fewer days, or by day"
            )));
        }
    }
    let line = |((server, name), sums): ((String, String), Sums)| Line {
        server: Some(server).filter(|server| !server.is_empty()),
        name,
        sums,
    };
    Ok(lines.into_iter().map(line).collect())
}

/// Where the sums of a part of a span come from.
enum Part {
    /// Days that were summed, both included.
    Kept(Date, Date),
    /// The calls.
    Counted(Range<Timestamp>),
}

/// Cuts a span into days that were summed, and the rest.
async fn parts(tx: &mut Tx, span: &Range<Timestamp>) -> Result<Vec<Part>> {
    let (first, last) =
        (days::day_of(span.start), days::day_of(span.end.minus(std::time::Duration::from_micros(1))));
    let rolled = usage_days::rolled_in(tx, (&first.to_string(), &last.to_string())).await?;
    let floor = super::retention::Floor::read_in(tx).await?;
    // Sums that are not right are better than those of calls of which some are gone.
    let good = rolled.iter().filter_map(|rolled| {
        let day = rolled.day.parse::<Date>().ok()?;
        let whole = days::span(day);
        let good = rolled.stale.is_none() || !floor.has_all_of(day);
        (good && span.start <= whole.start && whole.end <= span.end).then_some(day)
    });
    let (mut parts, mut at) = (Vec::new(), span.start);
    for day in good {
        let whole = days::span(day);
        if at < whole.start {
            parts.push(Part::Counted(at..whole.start));
        }
        match parts.last_mut() {
            Some(Part::Kept(_, to)) if at == whole.start => *to = day,
            _ => parts.push(Part::Kept(day, day)),
        }
        at = whole.end;
    }
    if at < span.end {
        parts.push(Part::Counted(at..span.end));
    }
    Ok(parts)
}
