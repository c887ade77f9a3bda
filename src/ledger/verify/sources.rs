//! Periods, grants and slabs: whether they say what was used of them.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::report::{Check, Report, holds};
use super::{Scope, prices};
use crate::accounts::cycle;
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db::Tx;
use crate::db::grants::source_of;
use crate::db::ledger::checks::{self, AccountRow, CorrectionFacts, GrantFacts, PeriodFacts};
use crate::error::Result;
use crate::id::{PeriodId, SlabId};
use crate::prices::Cycle;

/// How long upkeep may take: a grant may have something left after its end, and a call be taken back in part.
pub(super) const GRACE: std::time::Duration = std::time::Duration::from_secs(60);

/// Checks the periods of a tenant.
pub(super) async fn periods(
    tx: &mut Tx,
    scope: &Scope<'_>,
    book: &mut prices::Book,
    periods: &[PeriodFacts],
    report: &mut Report,
) -> Result<()> {
    for (at, period) in periods.iter().enumerate() {
        let history = book.of(tx, &period.plan).await?;
        let version = history.versions().iter().find(|version| version.id == period.price_version_id);
        let before = at.checked_sub(1).map(|before| &periods[before]);
        let verdict = holds(version.is_some(), || {
            format!(
                "{}: plan {} has no readable price version {}",
                period.id, period.plan, period.price_version_id
            )
        })
        .and_then(|()| one_period(scope, period, before));
        report.add(Check::Periods, verdict);
    }
    Ok(())
}

fn one_period(scope: &Scope<'_>, period: &PeriodFacts, before: Option<&PeriodFacts>) -> Result<(), String> {
    let PeriodFacts { id, overage_used, overage_leased, .. } = period;
    if let Some(before) = before {
        holds(before.ends_at <= period.starts_at, || format!("{id}: overlaps {}", before.id))?;
    }
    holds(period.starts_at < period.ends_at, || format!("{id}: ends before it begins"))?;
    let owed = *overage_used + *overage_leased;
    holds(period.hard_cap.is_none_or(|cap| owed <= cap), || {
        format!(
            "{id}: {owed} used and held to be owed, above the cap of {}",
            period.hard_cap.unwrap_or_default()
        )
    })?;
    holds(*overage_used >= Credits::ZERO && *overage_leased >= Credits::ZERO, || {
        format!("{id}: owes less than nothing")
    })?;
    if let Some(closed) = period.closed_at {
        holds(closed >= period.ends_at, || format!("{id}: was closed before its end"))?;
        holds(period.slabs_open == 0, || format!("{id}: is closed with {} open slabs", period.slabs_open))?;
    }
    if !scope.is_whole(period.starts_at) {
        return Ok(());
    }
    let expected = period.slabs_used + period.corrected;
    holds(*overage_used == expected, || {
        format!("{id}: says {overage_used} are owed, where slabs and corrections say {expected}")
    })?;
    holds(*overage_leased == period.slabs_leased, || {
        format!("{id}: says {overage_leased} are held to be owed, where slabs say {}", period.slabs_leased)
    })
}

/// Checks the grants of a tenant, and that every period was given what it includes.
pub(super) async fn grants(
    tx: &mut Tx,
    scope: &Scope<'_>,
    book: &mut prices::Book,
    periods: &[PeriodFacts],
    report: &mut Report,
) -> Result<()> {
    let by_source: HashMap<String, &PeriodFacts> =
        periods.iter().map(|period| (source_of(period.id), period)).collect();
    let (mut after, mut given) = (String::new(), HashMap::<PeriodId, (GrantFacts, u32)>::new());
    loop {
        let page = checks::grants(tx, scope.tenant, &after).await?;
        let Some(last) = page.last() else { break };
        after = last.id.to_string();
        for grant in page {
            let period = by_source.get(&grant.source).copied();
            report.add(Check::Grants, one_grant(scope, &grant, period));
            match period {
                Some(period) => given.entry(period.id).or_insert_with(|| (grant, 0)).1 += 1,
                None => {
                    if grant.kind == "included" {
                        let text = format!("{}: included credits of no period ({})", grant.id, grant.source);
                        report.add(Check::Included, Err(text));
                    }
                }
            }
        }
    }
    let account = checks::account(tx, scope.tenant).await?;
    for (at, period) in periods.iter().enumerate() {
        let history = book.of(tx, &period.plan).await?;
        let version = history.versions().iter().find(|version| version.id == period.price_version_id);
        let (Some(version), Some(account)) = (version, &account) else { continue };
        let may_be = allowed(version.terms.included, account, &periods[..at], period);
        report.add(Check::Included, included(scope, period, given.get(&period.id), may_be));
    }
    Ok(())
}

fn one_grant(scope: &Scope<'_>, grant: &GrantFacts, period: Option<&PeriodFacts>) -> Result<(), String> {
    let GrantFacts { id, granted, used, leased, expired, voided, .. } = grant;
    let taken = *used + *leased + *expired + *voided;
    holds(taken <= *granted, || format!("{id}: {taken} used, held, expired or voided of {granted}"))?;
    let least = [used, leased, expired, voided].into_iter().min().copied().unwrap_or_default();
    holds(least >= Credits::ZERO, || format!("{id}: something of it is less than nothing"))?;
    // Included credits end when their period is closed.
    let ended = match period {
        Some(period) => period.closed_at.is_some(),
        None => grant.expires_at.is_some_and(|at| at.plus(GRACE) < scope.now),
    };
    let ended = ended || grant.voided_at.is_some_and(|at| at.plus(GRACE) < scope.now);
    holds(!ended || !leased.is_zero() || taken == *granted, || {
        format!("{id}: has {} left after its end", *granted - taken)
    })?;
    if !scope.is_whole(grant.granted_at) {
        return Ok(());
    }
    let expected = grant.slabs_used + grant.corrected;
    holds(*used == expected, || {
        format!("{id}: says {used} were used, where slabs and corrections say {expected}")
    })?;
    holds(*leased == grant.slabs_leased, || {
        format!("{id}: says {leased} are held, where slabs say {}", grant.slabs_leased)
    })
}

/// What a period may have been given whose plan includes `full`: all of it, if it is the account's first; else the share that it
/// then was of its cycle, and up to that much where others before it in the same cycle were given something. A subscription moves
/// the months to those of its invoices, and what begins with a payment is given whole; of how they were counted before nothing is
/// kept, so of such a tenant it is only known what is too much.
fn allowed(
    full: Credits,
    account: &AccountRow,
    before: &[PeriodFacts],
    period: &PeriodFacts,
) -> RangeInclusive<Credits> {
    if account.subscriptions > 0 {
        return Credits::ZERO..=full;
    }
    let Some(last) = before.last() else { return full..=full };
    let cycle = if account.cycle == "anchored" { Cycle::Anchored } else { Cycle::Calendar };
    let whole = cycle::containing(cycle, account.anchor_at, period.starts_at);
    let length = |from: Timestamp| u64::try_from(whole.end.as_micros() - from.as_micros()).unwrap_or(0);
    let share = full.share(length(period.starts_at), length(whole.start));
    let least = if last.starts_at >= whole.start { Credits::ZERO } else { share };
    least..=share
}

fn included(
    scope: &Scope<'_>,
    period: &PeriodFacts,
    given: Option<&(GrantFacts, u32)>,
    may_be: RangeInclusive<Credits>,
) -> Result<(), String> {
    let id = period.id;
    let Some((grant, count)) = given else {
        let due = period.starts_at.plus(GRACE) < scope.now;
        return holds(!due || may_be.start().is_zero(), || {
            format!("{id}: was not given the {} that it includes", may_be.start())
        });
    };
    holds(*count == 1, || format!("{id}: was given its included credits {count} times"))?;
    holds(grant.kind == "included", || {
        format!("{}: the included credits of {id} are {}", grant.id, grant.kind)
    })?;
    holds(may_be.contains(&grant.granted), || {
        format!("{}: {id} was given {}, where its prices say {}", grant.id, grant.granted, may_be.end())
    })?;
    holds(grant.expires_at == Some(period.ends_at), || {
        format!("{}: does not end with its period {id}", grant.id)
    })
}

/// What calls drew from slabs of a period.
pub(super) type Drawn = HashMap<SlabId, Credits>;

/// Checks the slabs of a period against what calls drew from them.
pub(super) async fn slabs(
    tx: &mut Tx,
    period: PeriodId,
    corrections: &[CorrectionFacts],
    mut drawn: Drawn,
    report: &mut Report,
) -> Result<()> {
    for correction in corrections.iter().filter(|correction| correction.booked == "slab") {
        if let Some(slab) = correction.slab_id {
            *drawn.entry(slab).or_default() += correction.credits;
        }
    }
    let mut after = String::new();
    loop {
        let page = checks::slabs_of(tx, period, &after).await?;
        let Some(last) = page.last() else { break };
        after = last.id.to_string();
        for slab in page {
            let expected = drawn.remove(&slab.id).unwrap_or_default();
            let (id, used, amount) = (slab.id, slab.used, slab.amount);
            let verdict =
                holds(used >= Credits::ZERO && used <= amount, || format!("{id}: {used} used of {amount}"))
                    .and_then(|()| {
                        holds(used == expected, || {
                            format!("{id}: says {used} were used, where calls drew {expected}")
                        })
                    });
            report.add(Check::Slabs, verdict);
        }
    }
    Ok(())
}
