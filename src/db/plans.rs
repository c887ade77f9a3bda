//! Plans: rows and SQL. What may be done to one is in [`crate::plans`].

use sqlx::FromRow;

use super::{Db, JsonText, Listed, Page, Tx, done};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::limits::PlanLimits;
use crate::plans::PlanName;

/// What a tenant on it may use.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Plan {
    /// Its name.
    pub name: PlanName,
    /// What differs from the configuration.
    #[sqlx(try_from = "JsonText<PlanLimits>")]
    pub limits: PlanLimits,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl From<JsonText<PlanLimits>> for PlanLimits {
    fn from(text: JsonText<PlanLimits>) -> Self {
        text.0
    }
}

pub(crate) async fn get(db: &Db, name: &PlanName) -> Result<Option<Plan>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select name, limits, created_at, updated_at from plans where name = $1"
    )
    .bind(name.as_str())
    .fetch_optional(conn))
}

pub(crate) async fn list(db: &Db, page: Page<PlanName>) -> Result<Listed<Plan>> {
    let rows = on_reader!(db, |conn| sqlx::query_as(
        "select name, limits, created_at, updated_at from plans where name > $1 order by name limit $2"
    )
    .bind(page.after_text())
    .bind(page.fetch())
    .fetch_all(conn))?;
    Ok(page.cut(rows))
}

/// Plans that have prices, now or later, by name, after this one; at most so many.
pub(crate) async fn priced(db: &Db, after: Option<&PlanName>, limit: i64) -> Result<Vec<PlanName>> {
    on_reader!(db, |conn| sqlx::query_scalar(
        "select distinct plan from price_versions where plan > $1 order by plan limit $2"
    )
    .bind(after.map_or("", PlanName::as_str))
    .bind(limit)
    .fetch_all(conn))
}

/// One plan; until the transaction ends, nobody else can change it.
pub(crate) async fn lock(tx: &mut Tx, name: &PlanName) -> Result<Option<Plan>> {
    // An update that changes nothing takes the row's lock on PostgreSQL; SQLite's writer is alone anyway.
    in_tx!(tx, |conn| sqlx::query_as(
        "update plans set updated_at = updated_at where name = $1
         returning name, limits, created_at, updated_at"
    )
    .bind(name.as_str())
    .fetch_optional(conn))
}

/// Locks a plan as [`lock`] does. Where there is none, one without limits is made first; says whether that was so.
pub(crate) async fn lock_or_make(tx: &mut Tx, name: &PlanName, now: Timestamp) -> Result<bool> {
    loop {
        // One that is being made by somebody else is waited for, and left as they made it.
        let made = in_tx!(tx, |conn| done(
            sqlx::query(
                "insert into plans (name, limits, created_at, updated_at) values ($1, '{}', $2, $2)
                 on conflict (name) do nothing"
            )
            .bind(name.as_str())
            .bind(now)
            .execute(conn)
        ))?;
        // One that was there may be gone by now.
        if lock(tx, name).await?.is_some() {
            return Ok(made > 0);
        }
    }
}

/// Creates the plan, or changes the one of that name.
pub(crate) async fn put(tx: &mut Tx, name: &PlanName, limits: &PlanLimits, now: Timestamp) -> Result<Plan> {
    in_tx!(tx, |conn| sqlx::query_as(
        "insert into plans (name, limits, created_at, updated_at) values ($1, $2, $3, $3)
         on conflict (name) do update set limits = excluded.limits, updated_at = excluded.updated_at
         returning name, limits, created_at, updated_at"
    )
    .bind(name.as_str())
    .bind(JsonText(limits))
    .bind(now)
    .fetch_one(conn))
}

/// How many tenants are on a plan.
pub(crate) async fn tenants_on(tx: &mut Tx, name: &PlanName) -> Result<i64> {
    in_tx!(tx, |conn| sqlx::query_scalar(
        "select count(*) from tenants where plan = $1 and status <> 'deleted'"
    )
    .bind(name.as_str())
    .fetch_one(conn))
}

/// How many tenants are to be on a plan later.
pub(crate) async fn tenants_coming(tx: &mut Tx, name: &PlanName) -> Result<i64> {
    in_tx!(tx, |conn| sqlx::query_scalar(
        "select count(*) from accounts a join tenants t on t.id = a.tenant_id
         where a.next_plan = $1 and t.status <> 'deleted'"
    )
    .bind(name.as_str())
    .fetch_one(conn))
}

pub(crate) async fn delete(tx: &mut Tx, name: &PlanName) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query("delete from plans where name = $1").bind(name.as_str()).execute(conn)
    ))
    .map(|_| ())
}
