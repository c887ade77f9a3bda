//! Grants: rows and SQL. What may be done to one is in [`crate::accounts::grants`].

use sqlx::FromRow;

use super::{Db, Listed, Page, Tx, done};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::Result;
use crate::id::{GrantId, PeriodId, TenantId};

text_enum! {
    /// Where credits come from; they are used in this order.
    pub enum GrantKind {
        /// A period begins with them, and they end with it.
        Included = "included",
        /// The operator gave them.
        Promotional = "promotional",
        /// The tenant paid for them.
        Prepaid = "prepaid",
    }
}

/// Credits that a tenant was given.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Grant {
    /// Its id.
    pub id: GrantId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// Where they come from.
    pub kind: GrantKind,
    /// What they were given for; for one source there is one grant.
    pub source: String,
    /// What the operator says of it.
    pub note: String,
    /// How much was given.
    pub granted: Credits,
    /// Used through slabs that are closed.
    pub used: Credits,
    /// What open slabs hold.
    pub leased: Credits,
    /// Not used before it expired.
    pub expired: Credits,
    /// Not used before it was taken back.
    pub voided: Credits,
    /// When it was given; it can be used from then on.
    pub granted_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was taken back.
    pub voided_at: Option<Timestamp>,
    /// Used of what open slabs hold.
    pub used_open: Credits,
}

impl Grant {
    /// What is left to use.
    #[must_use]
    pub fn remaining(&self) -> Credits {
        self.granted - self.used - self.expired - self.voided - self.used_open
    }
}

/// What the included credits of a period were given for.
pub(crate) fn source_of(period: PeriodId) -> String {
    format!("period:{period}")
}

/// Grants with what open slabs used of them. Sums over the tenant's open slabs, of which there are few; a grant has many that
/// are closed.
macro_rules! select_grants {
    ($which:literal) => {
        concat!(
            "select g.id, g.tenant_id, g.kind, g.source, g.note, g.granted, g.used, g.leased, g.expired, g.voided,
                    g.granted_at, g.expires_at, g.voided_at,
                    cast(coalesce((select sum(case when s.grant_id = g.id then s.used else 0 end)
                                   from slabs s
                                   where s.tenant_id = g.tenant_id and s.closed_at is null), 0) as bigint) as used_open
             from grants g ",
            $which
        )
    };
}

/// Adds a grant of which nothing is used.
pub(crate) async fn insert(tx: &mut Tx, grant: &Grant) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "insert into grants (id, tenant_id, kind, source, note, granted, granted_at, expires_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8)"
        )
        .bind(grant.id)
        .bind(grant.tenant_id)
        .bind(grant.kind)
        .bind(grant.source.as_str())
        .bind(grant.note.as_str())
        .bind(grant.granted)
        .bind(grant.granted_at)
        .bind(grant.expires_at)
        .execute(conn)
    ))
    .map(|_| ())
}

/// One of a tenant's grants, as a transaction sees it.
pub(crate) async fn get_in(tx: &mut Tx, tenant: TenantId, id: GrantId) -> Result<Option<Grant>> {
    in_tx!(tx, |conn| {
        sqlx::query_as(select_grants!("where g.tenant_id = $1 and g.id = $2"))
            .bind(tenant)
            .bind(id)
            .fetch_optional(conn)
    })
}

/// The grant that was given for this.
pub(crate) async fn find(tx: &mut Tx, tenant: TenantId, source: &str) -> Result<Option<Grant>> {
    in_tx!(tx, |conn| {
        sqlx::query_as(select_grants!("where g.tenant_id = $1 and g.source = $2"))
            .bind(tenant)
            .bind(source)
            .fetch_optional(conn)
    })
}

/// The id of the grant that was given for this.
pub(crate) async fn of_source(db: &Db, tenant: TenantId, source: &str) -> Result<Option<GrantId>> {
    on_reader!(db, |conn| sqlx::query_scalar("select id from grants where tenant_id = $1 and source = $2")
        .bind(tenant)
        .bind(source)
        .fetch_optional(conn))
}

/// One page of a tenant's grants, oldest first.
pub(crate) async fn list(db: &Db, tenant: TenantId, page: Page<GrantId>) -> Result<Listed<Grant>> {
    let rows = on_reader!(db, |conn| {
        sqlx::query_as(select_grants!(
            "where g.tenant_id = $1 and g.id > $2
         order by g.id
         limit $3"
        ))
        .bind(tenant)
        .bind(page.after_text())
        .bind(page.fetch())
        .fetch_all(conn)
    })?;
    Ok(page.cut(rows))
}

/// Takes a grant back: what is neither used nor leased is gone at once.
pub(crate) async fn void(tx: &mut Tx, id: GrantId, at: Timestamp) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "update grants set voided_at = $2, voided = granted - used - leased - expired
             where id = $1 and voided_at is null"
        )
        .bind(id)
        .bind(at)
        .execute(conn)
    ))
    .map(|_| ())
}

/// Ends the included credits of a period at another instant, and takes back what is more than `entitled`, as far as it is
/// neither used nor leased.
pub(crate) async fn shorten(
    tx: &mut Tx,
    tenant: TenantId,
    period: PeriodId,
    ends_at: Timestamp,
    entitled: Credits,
) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "update grants
             set expires_at = $3,
                 voided = case when granted - expired - voided <= $4 then voided
                               when used + leased > $4 then granted - expired - used - leased
                               else granted - expired - $4 end
             where tenant_id = $1 and source = $2"
        )
        .bind(tenant)
        .bind(source_of(period))
        .bind(ends_at)
        .bind(entitled)
        .execute(conn)
    ))
    .map(|_| ())
}

/// Ends what is left of the included credits of a period.
pub(crate) async fn expire_included(tx: &mut Tx, tenant: TenantId, period: PeriodId) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "update grants set expired = granted - used - leased - voided
             where tenant_id = $1 and source = $2 and used + leased + expired + voided < granted"
        )
        .bind(tenant)
        .bind(source_of(period))
        .execute(conn)
    ))
    .map(|_| ())
}

/// A grant that has expired with credits left.
#[derive(Debug, Clone, Copy, FromRow)]
pub(crate) struct Lapsed {
    pub(crate) id: GrantId,
    pub(crate) tenant_id: TenantId,
    pub(crate) expires_at: Timestamp,
}

/// Up to `limit` grants that expired by `at` with credits left that nobody holds, by the instants when they did, after this
/// one and not before `from`. Not included ones, which expire when their periods are closed.
pub(crate) async fn lapsed(
    db: &Db,
    from: Timestamp,
    at: Timestamp,
    after: Option<Lapsed>,
    limit: i64,
) -> Result<Vec<Lapsed>> {
    let (expired, id) = after.map_or((from, String::new()), |last| (last.expires_at, last.id.to_string()));
    on_reader!(db, |conn| sqlx::query_as(
        "select id, tenant_id, expires_at
         from grants
         where expires_at <= $1 and (expires_at, id) > ($2, $3) and kind <> 'included'
               and used + leased + expired + voided < granted
         order by expires_at, id
         limit $4"
    )
    .bind(at)
    .bind(expired)
    .bind(id)
    .bind(limit)
    .fetch_all(conn))
}

/// Ends what is left of a grant, where it has expired; says whether there was something.
pub(crate) async fn expire(tx: &mut Tx, id: GrantId, at: Timestamp) -> Result<bool> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "update grants set expired = granted - used - leased - voided
             where id = $1 and expires_at <= $2 and used + leased + expired + voided < granted"
        )
        .bind(id)
        .bind(at)
        .execute(conn)
    ))
    .map(|rows| rows > 0)
}

/// A grant that can pay for what a period owes.
#[derive(FromRow)]
pub(crate) struct Payer {
    pub(crate) id: GrantId,
    /// What nobody used, took back or holds. What has expired since the end of the period is in it.
    pub(crate) unused: Credits,
}

/// The grants that were there for the whole of a period and have credits that nobody used, in the order in which they are
/// used.
pub(crate) async fn payers(
    tx: &mut Tx,
    tenant: TenantId,
    period: PeriodId,
    (starts_at, ends_at): (Timestamp, Timestamp),
) -> Result<Vec<Payer>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "select id, granted - used - leased - voided as unused
         from grants
         where tenant_id = $1 and (source = $2 or (kind <> 'included' and granted_at <= $3))
               and (expires_at is null or expires_at >= $4) and (voided_at is null or voided_at >= $4)
               and used + leased + voided < granted
         order by case kind when 'included' then 0 when 'promotional' then 1 else 2 end,
                  coalesce(expires_at, 9223372036854775807), id"
    )
    .bind(tenant)
    .bind(source_of(period))
    .bind(starts_at)
    .bind(ends_at)
    .fetch_all(conn))
}

/// Uses credits of a grant: such as are left, and then such as have expired.
pub(crate) async fn pay(tx: &mut Tx, id: GrantId, credits: Credits) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "update grants
             set used = used + $2,
                 expired = case when granted - used - leased - voided - expired >= $2 then expired
                                else granted - used - leased - voided - $2 end
             where id = $1"
        )
        .bind(id)
        .bind(credits)
        .execute(conn)
    ))
    .map(|_| ())
}
