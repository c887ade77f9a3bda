//! Plans: what the tenants on one may use. A plan says what differs from the configuration; a tenant on a plan that is not
//! there has what is configured.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::audit::{self, Actor, By, Subject};
use crate::clock::Clock;
use crate::db::invalidations::{self, Kind};
use crate::db::{self, Db, Listed, Page, Tx};
use crate::error::{Error, Result};
use crate::limits::PlanLimits;

pub use crate::db::plans::Plan;

/// The plan that new tenants are on.
pub const DEFAULT: &str = "default";

/// Longest name, in characters.
const MAX_NAME: usize = 64;

/// A plan's name: letters of lower case, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PlanName(String);

impl PlanName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PlanName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for PlanName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PlanName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(good) {
            return Err(Error::Invalid(format!(
                "plan: expected 1 to {MAX_NAME} characters of a-z, 0-9, - and _"
            )));
        }
        Ok(Self(text))
    }
}

impl FromStr for PlanName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.to_owned().try_into()
    }
}

impl From<PlanName> for String {
    fn from(name: PlanName) -> Self {
        name.0
    }
}

impl<DB: sqlx::Database> sqlx::Type<DB> for PlanName
where
    String: sqlx::Type<DB>,
{
    fn type_info() -> DB::TypeInfo {
        <String as sqlx::Type<DB>>::type_info()
    }
    fn compatible(ty: &DB::TypeInfo) -> bool {
        <String as sqlx::Type<DB>>::compatible(ty)
    }
}

impl<'r, DB: sqlx::Database> sqlx::Decode<'r, DB> for PlanName
where
    String: sqlx::Decode<'r, DB>,
{
    fn decode(value: <DB as sqlx::Database>::ValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
        Ok(<String as sqlx::Decode<'r, DB>>::decode(value)?.try_into()?)
    }
}

/// One plan.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Database`].
pub async fn get(db: &Db, name: &PlanName) -> Result<Plan> {
    db::plans::get(db, name).await?.ok_or(Error::NotFound("plan"))
}

/// One page of the plans, by name.
///
/// # Errors
/// [`Error::Database`].
pub async fn list(db: &Db, page: Page<PlanName>) -> Result<Listed<Plan>> {
    db::plans::list(db, page).await
}

/// Creates a plan, or gives the plan of this name other limits: within a second they hold for every tenant on it.
///
/// # Errors
/// [`Error::Invalid`] for limits that are none, [`Error::Database`].
pub async fn put(db: &Db, clock: &Clock, actor: Actor, name: &PlanName, limits: &PlanLimits) -> Result<Plan> {
    limits.validate()?;
    let by = By { actor, at: clock.now() };
    let mut tx = db.begin().await?;
    let before = db::plans::lock(&mut tx, name).await?;
    if let Some(same) = before.as_ref().filter(|before| before.limits == *limits) {
        return Ok(same.clone());
    }
    let plan = db::plans::put(&mut tx, name, limits, by.at).await?;
    let (action, detail) = match before {
        None => ("plan.create", json!({ "limits": limits })),
        Some(before) => ("plan.change", json!({ "before": before.limits, "limits": limits })),
    };
    audit::record(&mut tx, by, action, Subject::Plan(name), &detail).await?;
    forget(&mut tx, by, name).await?;
    tx.commit().await?;
    Ok(plan)
}

/// Deletes a plan that no tenant is on, or will be by its subscription; the default one at any time, and its tenants then have what is configured.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Conflict`] where tenants are on it or will be, [`Error::Database`].
pub async fn delete(db: &Db, clock: &Clock, actor: Actor, name: &PlanName) -> Result<()> {
    let by = By { actor, at: clock.now() };
    let mut tx = db.begin().await?;
    let plan = db::plans::lock(&mut tx, name).await?.ok_or(Error::NotFound("plan"))?;
    let tenants = db::plans::tenants_on(&mut tx, name).await?;
    if tenants > 0 && name.as_str() != DEFAULT {
        let text = format!("{tenants} tenants are on this plan; put them on another one first");
        return Err(Error::Conflict(text));
    }
    let coming = db::plans::tenants_coming(&mut tx, name).await?;
    if coming > 0 && name.as_str() != DEFAULT {
        let text = format!(
            "{coming} tenants will be on this plan when their month ends; change their subscriptions first"
        );
        return Err(Error::Conflict(text));
    }
    db::plans::delete(&mut tx, name).await?;
    let detail = json!({ "limits": plan.limits });
    audit::record(&mut tx, by, "plan.delete", Subject::Plan(name), &detail).await?;
    forget(&mut tx, by, name).await?;
    tx.commit().await
}

async fn forget(tx: &mut Tx, by: By, name: &PlanName) -> Result<()> {
    invalidations::insert(tx, by.at, Kind::Plan, name.to_string()).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Timestamp;
    use crate::db::testing::on_every_engine;
    use crate::tenants;

    fn clock() -> Clock {
        Clock::manual(Timestamp::from_micros(1_700_000_000_000_000))
    }

    fn name(text: &str) -> PlanName {
        text.parse().expect("a name")
    }

    fn limits(text: &str) -> PlanLimits {
        serde_json::from_str(text).expect("limits")
    }

    #[tokio::test]
    async fn a_plan_is_made_changed_and_deleted() {
        on_every_engine(async |db| {
            let (clock, gold) = (clock(), name("gold"));
            let of = |text| (limits(text), text);
            let (small, _) =
                of(r#"{"streams": 3, "tools": [{"name": "dns_*", "per_second": 1, "burst": 2}]}"#);
            let made = put(&db, &clock, Actor::Cli, &gold, &small).await.expect("a plan");
            assert_eq!((made.name.as_str(), &made.limits), ("gold", &small));
            assert_eq!(get(&db, &gold).await.expect("a plan"), made);
            clock.advance(Duration::from_secs(1));
            let same = put(&db, &clock, Actor::Cli, &gold, &small).await.expect("nothing to do");
            assert_eq!(same.updated_at, made.updated_at);
            let (large, _) = of(r#"{"streams": 300}"#);
            let changed = put(&db, &clock, Actor::Cli, &gold, &large).await.expect("a plan");
            assert_eq!((changed.created_at, changed.updated_at), (made.created_at, clock.now()));
            let wrong = put(&db, &clock, Actor::Cli, &gold, &limits(r#"{"streams": 0}"#)).await;
            assert!(matches!(wrong, Err(Error::Invalid(_))));

            let tenant = tenants::create(&db, &clock, Actor::Cli, "Acme").await.expect("a tenant").id;
            tenants::set_plan(&db, &clock, Actor::Cli, tenant, &gold, Duration::ZERO).await.expect("on it");
            assert!(matches!(delete(&db, &clock, Actor::Cli, &gold).await, Err(Error::Conflict(_))));
            tenants::set_plan(&db, &clock, Actor::Cli, tenant, &name(DEFAULT), Duration::ZERO)
                .await
                .expect("off it");
            delete(&db, &clock, Actor::Cli, &gold).await.expect("deleted");
            assert!(matches!(delete(&db, &clock, Actor::Cli, &gold).await, Err(Error::NotFound("plan"))));
            let gone = tenants::set_plan(&db, &clock, Actor::Cli, tenant, &gold, Duration::ZERO).await;
            assert!(matches!(gone, Err(Error::Invalid(_))));
            put(&db, &clock, Actor::Cli, &name(DEFAULT), &large).await.expect("a plan");
            delete(&db, &clock, Actor::Cli, &name(DEFAULT)).await.expect("at any time");

            let told = invalidations::after(&db, 0, 100).await.expect("changes");
            let told = told.iter().filter(|row| row.kind == Kind::Plan).count();
            assert_eq!(told, 5);
            let trail = audit::list(&db, None, Page::first(100)).await.expect("a list").rows;
            let of_plans = trail.iter().filter(|entry| entry.subject_kind == "plan");
            let actions: Vec<_> =
                of_plans.map(|entry| (entry.action.as_str(), entry.subject_id.as_str())).collect();
            let expected = ["create", "change", "delete"].map(|what| (format!("plan.{what}"), "gold"));
            let expected: Vec<_> = expected.iter().map(|(action, name)| (action.as_str(), *name)).collect();
            assert_eq!(actions[..3], expected[..]);
        })
        .await;
    }

    #[tokio::test]
    async fn plans_are_listed_by_name() {
        on_every_engine(async |db| {
            for text in ["silver", "bronze", "gold", "gold-2"] {
                let none = PlanLimits::default();
                put(&db, &clock(), Actor::Cli, &name(text), &none).await.expect("a plan");
            }
            let first = list(&db, Page::first(3)).await.expect("a page");
            let names: Vec<_> = first.rows.iter().map(|plan| plan.name.as_str()).collect();
            assert_eq!((names, first.more), (vec!["bronze", "gold", "gold-2"], true));
            let page = Page { after: Some(name("gold-2")), limit: 3 };
            let rest = list(&db, page).await.expect("a page");
            assert_eq!((rest.rows.len(), rest.more), (1, false));
        })
        .await;
    }

    #[test]
    fn names_are_plain() {
        for bad in ["", "Gold", "a b", "ü", &"x".repeat(65), "a/b"] {
            assert!(bad.parse::<PlanName>().is_err(), "{bad}");
        }
    }
}
