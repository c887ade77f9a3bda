//! Price versions: rows and SQL. What they mean is in [`crate::prices`]. There is nothing here that changes or deletes one:
//! the database refuses both.

use sqlx::FromRow;

use super::{Db, Listed, Page, Tx, done};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::PriceVersionId;
use crate::plans::PlanName;

/// A row as it is stored; what is in it is checked where it is read.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Row {
    pub(crate) id: PriceVersionId,
    pub(crate) plan: PlanName,
    pub(crate) number: i64,
    pub(crate) effective_at: Timestamp,
    pub(crate) published_at: Timestamp,
    pub(crate) published_by: String,
    /// JSON, exactly as it was hashed.
    pub(crate) terms: String,
    /// SHA-256 of `terms`, in hexadecimal.
    pub(crate) digest: String,
}

pub(crate) async fn insert(tx: &mut Tx, row: &Row) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "insert into price_versions
                 (id, plan, number, effective_at, published_at, published_by, terms, digest)
             values ($1, $2, $3, $4, $5, $6, $7, $8)"
        )
        .bind(row.id)
        .bind(row.plan.as_str())
        .bind(row.number)
        .bind(row.effective_at)
        .bind(row.published_at)
        .bind(row.published_by.as_str())
        .bind(row.terms.as_str())
        .bind(row.digest.as_str())
        .execute(conn)
    ))
    .map(|_| ())
}

pub(crate) async fn get(db: &Db, id: PriceVersionId) -> Result<Option<Row>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select id, plan, number, effective_at, published_at, published_by, terms, digest
         from price_versions
         where id = $1"
    )
    .bind(id)
    .fetch_optional(conn))
}

/// Every version of a plan, in the order in which they come into force.
pub(crate) async fn history(db: &Db, plan: &PlanName) -> Result<Vec<Row>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select id, plan, number, effective_at, published_at, published_by, terms, digest
         from price_versions
         where plan = $1
         order by effective_at, number"
    )
    .bind(plan.as_str())
    .fetch_all(conn))
}

/// The same, as a transaction sees it.
pub(crate) async fn history_in(tx: &mut Tx, plan: &PlanName) -> Result<Vec<Row>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "select id, plan, number, effective_at, published_at, published_by, terms, digest
         from price_versions
         where plan = $1
         order by effective_at, number"
    )
    .bind(plan.as_str())
    .fetch_all(conn))
}

/// One page of a plan's versions, by number.
pub(crate) async fn list(db: &Db, plan: &PlanName, page: Page<i64>) -> Result<Listed<Row>> {
    let rows = on_reader!(db, |conn| sqlx::query_as(
        "select id, plan, number, effective_at, published_at, published_by, terms, digest
         from price_versions
         where plan = $1 and number > $2
         order by number
         limit $3"
    )
    .bind(plan.as_str())
    .bind(page.after.unwrap_or(0))
    .bind(page.fetch())
    .fetch_all(conn))?;
    Ok(page.cut(rows))
}

/// The plans of which a version comes into force after this instant.
pub(crate) async fn plans_ahead(db: &Db, now: Timestamp) -> Result<Vec<PlanName>> {
    on_reader!(db, |conn| sqlx::query_scalar(
        "select distinct plan from price_versions where effective_at > $1 order by plan"
    )
    .bind(now)
    .fetch_all(conn))
}

/// The plans that have prices at this instant, by name.
pub(crate) async fn plans_of(db: &Db, now: Timestamp) -> Result<Vec<PlanName>> {
    on_reader!(db, |conn| sqlx::query_scalar(
        "select distinct plan from price_versions where effective_at <= $1 order by plan"
    )
    .bind(now)
    .fetch_all(conn))
}

/// Whether somebody is charged by this plan's prices: a tenant is on it, or still in a period of it.
pub(crate) async fn in_use(tx: &mut Tx, plan: &PlanName, now: Timestamp) -> Result<bool> {
    let users: i64 = in_tx!(tx, |conn| sqlx::query_scalar(
        "select (select count(*) from tenants where plan = $1 and status <> 'deleted')
              + (select count(*) from periods where plan = $1 and closed_at is null and ends_at > $2)"
    )
    .bind(plan.as_str())
    .bind(now)
    .fetch_one(conn))?;
    Ok(users > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing::on_every_engine;

    #[tokio::test]
    async fn a_version_stays_what_it_is() {
        on_every_engine(async |db| {
            let row = Row {
                id: PriceVersionId::new(),
                plan: "gold".parse().expect("a name"),
                number: 1,
                effective_at: Timestamp::from_micros(1),
                published_at: Timestamp::from_micros(1),
                published_by: "cli".to_owned(),
                terms: "{}".to_owned(),
                digest: "0".to_owned(),
            };
            let mut tx = db.begin().await.expect("a transaction");
            insert(&mut tx, &row).await.expect("a row");
            tx.commit().await.expect("committed");
            let changed = on_writer!(&db, |conn| done(
                sqlx::query("update price_versions set effective_at = 2").execute(conn)
            ));
            let deleted =
                on_writer!(&db, |conn| done(sqlx::query("delete from price_versions").execute(conn)));
            for refused in [changed, deleted] {
                let error = refused.map_err(|error| match error {
                    crate::error::Error::Database(error) => error.to_string(),
                    other => other.to_string(),
                });
                assert!(error.expect_err("refused").contains("price versions are immutable"));
            }
            assert_eq!(get(&db, row.id).await.expect("a row").map(|row| row.number), Some(1));
        })
        .await;
    }
}
