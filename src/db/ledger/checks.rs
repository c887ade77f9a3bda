//! What `weir ledger verify` reads. Everything in pages, and what belongs to one tenant in one transaction.

use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db::price_versions;
use crate::db::{JsonText, Tx};
use crate::error::Result;
use crate::id::{CallId, CorrectionId, GrantId, MeterId, PeriodId, PriceVersionId, SlabId, TenantId};

/// Rows of a page.
pub(crate) const PAGE: i64 = 1000;
/// Examples that are read of what is wrong.
const EXAMPLES: i64 = 5;

/// A call, as far as it can be wrong.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct CallFacts {
    pub(crate) id: CallId,
    pub(crate) credential: String,
    pub(crate) server: String,
    pub(crate) tool: String,
    pub(crate) outcome: String,
    pub(crate) started_at: Timestamp,
    pub(crate) duration_us: i64,
    pub(crate) request_bytes: i64,
    pub(crate) result_bytes: i64,
    pub(crate) period_id: Option<PeriodId>,
    pub(crate) price_version_id: Option<PriceVersionId>,
    pub(crate) meter_id: Option<MeterId>,
    pub(crate) settled_at: Option<Timestamp>,
    pub(crate) credits: Credits,
    pub(crate) included: Credits,
    pub(crate) promotional: Credits,
    pub(crate) prepaid: Credits,
    pub(crate) overage: Credits,
    pub(crate) draws: Option<String>,
    pub(crate) idempotency_key: Option<String>,
}

/// What a draw has to fit.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct SlabFacts {
    pub(crate) id: SlabId,
    pub(crate) tenant_id: TenantId,
    pub(crate) period_id: PeriodId,
    pub(crate) meter_id: MeterId,
    /// Of its grant; none: owed.
    pub(crate) kind: Option<String>,
}

/// What of a slab was used, as the slab says.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct SlabRow {
    pub(crate) id: SlabId,
    pub(crate) amount: Credits,
    pub(crate) used: Credits,
}

/// A period, with what it should say.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct PeriodFacts {
    pub(crate) id: PeriodId,
    pub(crate) plan: String,
    pub(crate) price_version_id: PriceVersionId,
    pub(crate) starts_at: Timestamp,
    pub(crate) ends_at: Timestamp,
    pub(crate) hard_cap: Option<Credits>,
    pub(crate) overage_used: Credits,
    pub(crate) overage_leased: Credits,
    pub(crate) closed_at: Option<Timestamp>,
    /// The cycle that it was opened in; not known of old ones.
    pub(crate) cycle_starts_at: Option<Timestamp>,
    pub(crate) cycle_ends_at: Option<Timestamp>,
    /// Not 0: it was given all that its plan includes.
    pub(crate) has_all: i64,
    /// Used of closed slabs on which nothing was granted.
    pub(crate) slabs_used: Credits,
    /// What open ones of these hold.
    pub(crate) slabs_leased: Credits,
    /// Slabs of any kind that are open.
    pub(crate) slabs_open: i64,
    /// What corrections changed.
    pub(crate) corrected: Credits,
    /// What was told of it, and left out of a final invoice; negative: billed beyond that.
    pub(crate) carried: Credits,
}

/// A grant, with what it should say.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct GrantFacts {
    pub(crate) id: GrantId,
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) granted: Credits,
    pub(crate) used: Credits,
    pub(crate) leased: Credits,
    pub(crate) expired: Credits,
    pub(crate) voided: Credits,
    pub(crate) granted_at: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) voided_at: Option<Timestamp>,
    pub(crate) slabs_used: Credits,
    pub(crate) slabs_leased: Credits,
    pub(crate) corrected: Credits,
}

/// Something taken back from a call.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct CorrectionFacts {
    pub(crate) id: CorrectionId,
    pub(crate) period_id: PeriodId,
    pub(crate) kind: String,
    pub(crate) call_id: Option<CallId>,
    pub(crate) slab_id: Option<SlabId>,
    pub(crate) grant_id: Option<GrantId>,
    /// Of the grant; none: owed.
    pub(crate) grant_kind: Option<String>,
    pub(crate) booked: String,
    pub(crate) credits: Credits,
    pub(crate) at: Timestamp,
}

/// Rows that refer to what is another tenant's.
#[derive(Debug, Clone)]
pub(crate) struct Strays {
    pub(crate) looked: i64,
    pub(crate) wrong: i64,
    pub(crate) examples: Vec<String>,
}

pub(crate) async fn tenants(tx: &mut Tx, after: &str) -> Result<Vec<TenantId>> {
    in_tx!(tx, |conn| sqlx::query_scalar("select id from tenants where id > $1 order by id limit $2")
        .bind(after)
        .bind(PAGE)
        .fetch_all(conn))
}

/// Price versions after the one with this plan and number.
pub(crate) async fn versions(tx: &mut Tx, (plan, number): (&str, i64)) -> Result<Vec<price_versions::Row>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "select id, plan, number, effective_at, published_at, published_by, terms, digest
         from price_versions where (plan, number) > ($1, $2) order by plan, number limit 100"
    )
    .bind(plan)
    .bind(number)
    .fetch_all(conn))
}

pub(crate) async fn versions_of(tx: &mut Tx, plan: &str) -> Result<Vec<price_versions::Row>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "select id, plan, number, effective_at, published_at, published_by, terms, digest
         from price_versions where plan = $1"
    )
    .bind(plan)
    .fetch_all(conn))
}

/// The calls of a tenant, in the order in which they began, after the one that began then and has this id.
pub(crate) async fn calls(tx: &mut Tx, tenant: TenantId, after: (Timestamp, &str)) -> Result<Vec<CallFacts>> {
    in_tx!(tx, |conn| {
        sqlx::query_as(
        "select id, credential, server, tool, outcome, started_at, duration_us, request_bytes, result_bytes,
                period_id, price_version_id, meter_id, settled_at, credits, included, promotional, prepaid, overage,
                draws, idempotency_key
         from calls
         where tenant_id = $1 and (started_at, id) > ($2, $3)
         order by started_at, id
         limit $4"
    )
    .bind(tenant)
    .bind(after.0)
    .bind(after.1)
    .bind(PAGE)
    .fetch_all(conn)
    })
}

/// The slabs of these ids. The engines read a list from JSON each in its own way.
pub(crate) async fn slabs(tx: &mut Tx, ids: &[SlabId], is_sqlite: bool) -> Result<Vec<SlabFacts>> {
    if is_sqlite {
        in_tx!(tx, |conn| sqlx::query_as(
            "select s.id, s.tenant_id, s.period_id, s.meter_id, g.kind
             from slabs s left join grants g on g.id = s.grant_id
             where s.id in (select value from json_each($1))"
        )
        .bind(JsonText(ids))
        .fetch_all(conn))
    } else {
        in_tx!(tx, |conn| sqlx::query_as(
            "select s.id, s.tenant_id, s.period_id, s.meter_id, g.kind
             from slabs s left join grants g on g.id = s.grant_id
             where s.id in (select json_array_elements_text(cast($1 as json)))"
        )
        .bind(JsonText(ids))
        .fetch_all(conn))
    }
}

/// The slabs of a period, after the one with this id.
pub(crate) async fn slabs_of(tx: &mut Tx, period: PeriodId, after: &str) -> Result<Vec<SlabRow>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "select id, amount, used from slabs where period_id = $1 and id > $2 order by id limit $3"
    )
    .bind(period)
    .bind(after)
    .bind(PAGE)
    .fetch_all(conn))
}

/// The periods of a tenant, of which there are a dozen a year, in their order.
pub(crate) async fn periods(tx: &mut Tx, tenant: TenantId) -> Result<Vec<PeriodFacts>> {
    in_tx!(tx, |conn| {
        sqlx::query_as(
        "select p.id, p.plan, p.price_version_id, p.starts_at, p.ends_at, p.hard_cap, p.overage_used, p.overage_leased,
                p.closed_at, p.cycle_starts_at, p.cycle_ends_at, p.has_all,
                coalesce((select cast(sum(s.used) as bigint) from slabs s
                          where s.period_id = p.id and s.grant_id is null and s.closed_at is not null), 0) as slabs_used,
                coalesce((select cast(sum(s.amount) as bigint) from slabs s
                          where s.period_id = p.id and s.grant_id is null and s.closed_at is null), 0) as slabs_leased,
                (select count(*) from slabs s where s.period_id = p.id and s.closed_at is null) as slabs_open,
                coalesce((select cast(sum(case when k.kind = 'true_up' then -k.credits
                                               when k.grant_id is null and k.booked = 'source' then k.credits
                                               else 0 end) as bigint)
                          from corrections k where k.period_id = p.id), 0) as corrected,
                coalesce((select cast(sum(i.carried) as bigint) from invoice_proofs i where i.period_id = p.id), 0) as carried
         from periods p where p.tenant_id = $1 order by p.starts_at, p.id"
    )
    .bind(tenant)
    .fetch_all(conn)
    })
}

/// The grants of a tenant, after the one with this id.
pub(crate) async fn grants(tx: &mut Tx, tenant: TenantId, after: &str) -> Result<Vec<GrantFacts>> {
    in_tx!(tx, |conn| {
        sqlx::query_as(
        "select g.id, g.kind, g.source, g.granted, g.used, g.leased, g.expired, g.voided, g.granted_at, g.expires_at,
                g.voided_at,
                coalesce((select cast(sum(s.used) as bigint) from slabs s
                          where s.grant_id = g.id and s.closed_at is not null), 0) as slabs_used,
                coalesce((select cast(sum(s.amount) as bigint) from slabs s
                          where s.grant_id = g.id and s.closed_at is null), 0) as slabs_leased,
                coalesce((select cast(sum(k.credits) as bigint) from corrections k
                          where k.grant_id = g.id and k.booked = 'source'), 0) as corrected
         from grants g where g.tenant_id = $1 and g.id > $2 order by g.id limit $3"
    )
    .bind(tenant)
    .bind(after)
    .bind(PAGE)
    .fetch_all(conn)
    })
}

/// What was set right of a period. There is little.
pub(crate) async fn corrections(tx: &mut Tx, period: PeriodId) -> Result<Vec<CorrectionFacts>> {
    in_tx!(tx, |conn| {
        sqlx::query_as(
        "select k.id, k.period_id, k.kind, k.call_id, k.slab_id, k.grant_id, g.kind as grant_kind, k.booked, k.credits,
                k.at
         from corrections k left join grants g on g.id = k.grant_id
         where k.period_id = $1"
    )
    .bind(period)
    .fetch_all(conn)
    })
}

/// The days of which there are sums of a tenant.
pub(crate) async fn summed_days(tx: &mut Tx, tenant: TenantId) -> Result<Vec<String>> {
    in_tx!(tx, |conn| sqlx::query_scalar(
        "select distinct day from usage_days where tenant_id = $1 order by day"
    )
    .bind(tenant)
    .fetch_all(conn))
}

/// Runs one look for rows that refer to what is another tenant's: `$of` is `from ... where`, with the row as `r`.
macro_rules! strays {
    ($tx:ident, $tenant:ident, $table:literal, $joins:literal, $wrong:literal) => {{
        let looked: i64 = in_tx!($tx, |conn| sqlx::query_scalar(concat!(
            "select count(*) from ",
            $table,
            " r where $1 = '' or r.tenant_id = $1"
        ))
        .bind(&*$tenant)
        .fetch_one(conn))?;
        let wrong: i64 = in_tx!($tx, |conn| sqlx::query_scalar(concat!(
            "select count(*) from ",
            $table,
            " r ",
            $joins,
            " where ($1 = '' or r.tenant_id = $1) and (",
            $wrong,
            ")"
        ))
        .bind(&*$tenant)
        .fetch_one(conn))?;
        let examples: Vec<String> = if wrong == 0 {
            Vec::new()
        } else {
            in_tx!($tx, |conn| sqlx::query_scalar(concat!(
                "select r.id from ",
                $table,
                " r ",
                $joins,
                " where ($1 = '' or r.tenant_id = $1) and (",
                $wrong,
                ") order by r.id limit $2"
            ))
            .bind(&*$tenant)
            .bind(EXAMPLES)
            .fetch_all(conn))?
        };
        Ok(Strays { looked, wrong, examples })
    }};
}

/// Calls of tenants that are not there.
pub(crate) async fn stray_calls(tx: &mut Tx, tenant: &str) -> Result<Strays> {
    strays!(tx, tenant, "calls", "left join tenants t on t.id = r.tenant_id", "t.id is null")
}

/// Slabs of periods or grants of another tenant.
pub(crate) async fn stray_slabs(tx: &mut Tx, tenant: &str) -> Result<Strays> {
    strays!(
        tx,
        tenant,
        "slabs",
        "left join periods p on p.id = r.period_id left join grants g on g.id = r.grant_id",
        "p.id is null or p.tenant_id <> r.tenant_id or (r.grant_id is not null and g.id is null) or g.tenant_id <> r.tenant_id"
    )
}

/// Corrections of periods, grants, calls or slabs of another tenant.
pub(crate) async fn stray_corrections(tx: &mut Tx, tenant: &str) -> Result<Strays> {
    strays!(
        tx,
        tenant,
        "corrections",
        "left join periods p on p.id = r.period_id left join grants g on g.id = r.grant_id
         left join calls c on c.id = r.call_id left join slabs s on s.id = r.slab_id",
        "p.id is null or p.tenant_id <> r.tenant_id or (r.grant_id is not null and g.id is null)
         or g.tenant_id <> r.tenant_id or c.tenant_id <> r.tenant_id or s.tenant_id <> r.tenant_id"
    )
}

/// Events of periods of another tenant.
pub(crate) async fn stray_events(tx: &mut Tx, tenant: &str) -> Result<Strays> {
    strays!(
        tx,
        tenant,
        "account_events",
        "left join periods p on p.id = r.period_id",
        "p.id is null or p.tenant_id <> r.tenant_id"
    )
}

/// Exports of periods of another tenant, or of tenants without a customer or an account.
pub(crate) async fn stray_exports(tx: &mut Tx, tenant: &str) -> Result<Strays> {
    strays!(
        tx,
        tenant,
        "exports",
        "left join periods p on p.id = r.period_id left join billing_customers c on c.tenant_id = r.tenant_id
         left join accounts a on a.tenant_id = r.tenant_id",
        "p.id is null or p.tenant_id <> r.tenant_id or c.tenant_id is null or a.tenant_id is null"
    )
}

/// Periods of tenants without an account.
pub(crate) async fn stray_periods(tx: &mut Tx, tenant: &str) -> Result<Strays> {
    strays!(tx, tenant, "periods", "left join accounts a on a.tenant_id = r.tenant_id", "a.tenant_id is null")
}
