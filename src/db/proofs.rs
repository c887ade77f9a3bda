//! Proofs: how what periods owe compares with what the provider of invoices counts. Rows and SQL. What is compared is in
//! [`crate::billing::export`].

use std::time::Duration;

use serde::Serialize;
use sqlx::FromRow;

use super::exports::Export;
use super::{Db, done};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::Result;
use crate::id::{PeriodId, TenantId};

text_enum! {
    /// How ledger and provider compare.
    pub enum Verdict {
        /// What is owed was told, and is counted. Nothing else is proof.
        Equal = "equal",
        /// Something was not told yet, or is not proven yet.
        InFlight = "in_flight",
        /// The provider counts less than it was told.
        Missing = "missing",
        /// The provider counts more than it was told.
        Extra = "extra",
        /// What the provider counts cannot be read.
        Unreadable = "unreadable",
    }
}

/// The comparison of one period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Proof {
    /// The period.
    #[serde(rename = "period")]
    pub period_id: PeriodId,
    /// Whose it is.
    #[serde(rename = "tenant")]
    pub tenant_id: TenantId,
    /// What it owes, as far as slabs are closed.
    pub owed: Credits,
    /// How much of that was told, without what final invoices left out.
    pub told: Credits,
    /// Up to where slots are compared: to the first that is not proven, or to the end of the period.
    pub until: Timestamp,
    /// What the slots up to there are worth.
    pub slots: Credits,
    /// What the provider counts up to there; nothing where that cannot be read.
    pub counted: Option<Credits>,
    /// What that means.
    pub verdict: Verdict,
    /// When they were compared.
    pub at: Timestamp,
}

/// Periods that began before `now` and end after `since`, of tenants that have a customer or owe something, or of one tenant
/// only; in order, after this one.
pub(crate) async fn periods(
    db: &Db,
    tenant: Option<TenantId>,
    (since, now): (Timestamp, Timestamp),
    after: Option<PeriodId>,
    limit: i64,
) -> Result<Vec<PeriodId>> {
    on_reader!(db, |conn| sqlx::query_scalar(
        "select p.id from periods p
         where p.ends_at > $1 and p.starts_at <= $2 and p.id > $3 and ($4 = '' or p.tenant_id = $4)
               and (p.overage_used > 0
                    or exists (select 1 from billing_customers c where c.tenant_id = p.tenant_id))
         order by p.id
         limit $5"
    )
    .bind(since)
    .bind(now)
    .bind(after.map(|after| after.to_string()).unwrap_or_default())
    .bind(tenant.map(|tenant| tenant.to_string()).unwrap_or_default())
    .bind(limit)
    .fetch_all(conn))
}

/// What a period owes, what was told of that, and what the slots in its span are worth as far as they are proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub(crate) struct Books {
    pub(crate) tenant_id: TenantId,
    pub(crate) starts_at: Timestamp,
    /// Owed, as far as slabs are closed.
    pub(crate) owed: Credits,
    /// Told of that, in whichever slots, and not left out of a final invoice.
    pub(crate) told: Credits,
    /// The first slot within the span that is neither proven nor frozen; without one, the end of the period.
    pub(crate) until: Timestamp,
    /// Worth of all slots within the span and before that one, of whichever period.
    pub(crate) slots: Credits,
    /// Exports of the period, or in its span, that are neither proven nor frozen.
    pub(crate) in_flight: i64,
}

/// The books of a period, all as of one moment.
pub(crate) async fn books(db: &Db, period: PeriodId) -> Result<Option<Books>> {
    on_reader!(db, |conn| {
        sqlx::query_as(
            "select b.tenant_id, b.starts_at, b.owed, b.told, b.until, b.in_flight,
                    cast(coalesce((select sum(case when e.state = 'frozen' then e.counted else e.credits end)
                                   from exports e
                                   where e.tenant_id = b.tenant_id and e.slot >= b.starts_at and e.slot < b.until), 0)
                         as bigint) as slots
             from (select p.tenant_id, p.starts_at, p.owed, p.told,
                          coalesce((select min(e.slot) from exports e
                                    where e.tenant_id = p.tenant_id and e.state in ('open', 'sent')
                                          and e.slot >= p.starts_at and e.slot < p.ends_at), p.ends_at) as until,
                          (select count(*) from exports e
                           where e.tenant_id = p.tenant_id and e.state in ('open', 'sent')
                                 and (e.period_id = p.id or (e.slot >= p.starts_at and e.slot < p.ends_at))) as in_flight
                   from period_books p
                   where p.id = $1) as b",
        )
        .bind(period)
        .fetch_optional(conn)
    })
}

/// Exports of a tenant that are proven or frozen, with slots within this span and after this one, in order.
pub(crate) async fn proven(
    db: &Db,
    tenant: TenantId,
    (after, to): (Timestamp, Timestamp),
    limit: i64,
) -> Result<Vec<Export>> {
    on_reader!(db, |conn| {
        sqlx::query_as(
        "select id, tenant_id, period_id, slot, credits, generation, state, first_sent_at, last_sent_at, counted,
                due_at, tries, note, revision, cast(null as bigint) as slot_ends_at
         from exports
         where tenant_id = $1 and state in ('verified', 'frozen') and slot > $2 and slot < $3
         order by slot
         limit $4"
    )
    .bind(tenant)
    .bind(after)
    .bind(to)
    .bind(limit)
    .fetch_all(conn)
    })
}

/// Keeps the comparison of a period, in the place of an earlier one.
pub(crate) async fn put(db: &Db, proof: &Proof) -> Result<()> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "insert into proofs (period_id, tenant_id, owed, told, until, slots, counted, verdict, at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             on conflict (period_id) do update
             set owed = excluded.owed, told = excluded.told, until = excluded.until, slots = excluded.slots,
                 counted = excluded.counted, verdict = excluded.verdict, at = excluded.at
             where proofs.at <= excluded.at"
        )
        .bind(proof.period_id)
        .bind(proof.tenant_id)
        .bind(proof.owed)
        .bind(proof.told)
        .bind(proof.until)
        .bind(proof.slots)
        .bind(proof.counted)
        .bind(proof.verdict)
        .bind(proof.at)
        .execute(conn)
    ))
    .map(|_| ())
}

/// How many periods that end after `since` have which verdict.
pub(crate) async fn verdicts(db: &Db, since: Timestamp) -> Result<Vec<(Verdict, i64)>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select r.verdict, count(*) from proofs r join periods p on p.id = r.period_id
         where p.ends_at > $1
         group by r.verdict"
    )
    .bind(since)
    .fetch_all(conn))
}

/// Takes the tenant whose comparison was longest ago, where that is longer than `every`: it was compared now. Nothing, where all
/// were compared since.
pub(crate) async fn claim(db: &Db, now: Timestamp, every: Duration) -> Result<Option<TenantId>> {
    on_writer!(db, |conn| sqlx::query_scalar(
        "update billing_customers set reconciled_at = $1
         where reconciled_at <= $2
               and tenant_id = (select tenant_id from billing_customers where reconciled_at <= $2
                                order by reconciled_at limit 1)
         returning tenant_id"
    )
    .bind(now)
    .bind(now.minus(every))
    .fetch_optional(conn))
}

/// Has a tenant that was taken at `claimed` taken as if it had been compared at `at`, unless it was taken again meanwhile.
pub(crate) async fn put_back(db: &Db, tenant: TenantId, claimed: Timestamp, at: Timestamp) -> Result<()> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "update billing_customers set reconciled_at = $3 where tenant_id = $1 and reconciled_at = $2"
        )
        .bind(tenant)
        .bind(claimed)
        .bind(at)
        .execute(conn)
    ))
    .map(|_| ())
}

/// When the last comparison of a period is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    /// So long after the end of a period its invoice becomes final.
    pub(crate) grace: Duration,
    /// So long before that it is compared once more.
    pub(crate) lead: Duration,
    /// So long after a try in vain it is tried again.
    pub(crate) again: Duration,
}

/// Takes a tenant whose period's invoice becomes final soon, and that was not compared within that time yet, or in vain a while ago: it
/// was compared now. The longest ago first.
pub(crate) async fn claim_ending(db: &Db, now: Timestamp, ending: Ending) -> Result<Option<TenantId>> {
    let Ending { grace, lead, again } = ending;
    let waiting = i64::try_from(grace.saturating_sub(lead).as_micros()).unwrap_or(i64::MAX);
    on_writer!(db, |conn| {
        sqlx::query_scalar(
        "update billing_customers set reconciled_at = $1
         where tenant_id = (select p.tenant_id from periods p join billing_customers c on c.tenant_id = p.tenant_id
                            where p.ends_at > $2 and p.ends_at <= $3
                                  and (c.reconciled_at < p.ends_at + $4
                                       or c.reconciled_at <= $5
                                          and not exists (select 1 from proofs r
                                                          where r.period_id = p.id and r.at >= p.ends_at + $4
                                                                and r.verdict <> 'unreadable'))
                            order by c.reconciled_at, p.tenant_id
                            limit 1)
         returning tenant_id"
    )
    .bind(now)
    .bind(now.minus(grace))
    .bind(Timestamp::from_micros(now.as_micros().saturating_sub(waiting)))
    .bind(waiting)
    .bind(now.minus(again))
    .fetch_optional(conn)
    })
}
