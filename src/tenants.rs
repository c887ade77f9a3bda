//! Tenants: the customer organisations of the operator. Each change writes its audit entry and tells every
//! process to forget what it knew, in one transaction.

use std::time::Duration;

use serde_json::json;

use crate::accounts;
use crate::audit::{self, Actor, By, Subject};
use crate::clock::Clock;
use crate::db::invalidations::{self, Kind};
use crate::db::{self, Db, Listed, Page, Tx};
use crate::error::{Error, Result};
use crate::id::TenantId;
use crate::plans::{self, PlanName};

pub use crate::db::tenants::{Status, Tenant};

/// Longest name of a tenant or a key, in characters.
pub const MAX_NAME_CHARS: usize = 100;

/// Creates a tenant.
///
/// # Errors
/// [`Error::Invalid`] for a bad name, [`Error::Conflict`] where a tenant of this name exists,
/// [`Error::Database`].
pub async fn create(db: &Db, clock: &Clock, actor: Actor, name: &str) -> Result<Tenant> {
    let name = checked_name(name)?;
    let by = By { actor, at: clock.now() };
    let id = TenantId::new();
    let mut tx = db.begin().await?;
    let tenant = db::tenants::insert(&mut tx, id, &name, by.at).await.map_err(|error| match error {
        Error::Database(sqlx::Error::Database(refusal)) if refusal.is_unique_violation() => Error::Conflict(
            format!("a tenant named {name:?} exists; choose another name, or delete that tenant first"),
        ),
        other => other,
    })?;
    audit::record(&mut tx, by, "tenant.create", Subject::Tenant(id), &json!({ "name": name })).await?;
    tx.commit().await?;
    Ok(tenant)
}

/// One tenant. A deleted one is not found.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Database`].
pub async fn get(db: &Db, id: TenantId) -> Result<Tenant> {
    db::tenants::get(db, id).await?.ok_or(Error::NotFound("tenant"))
}

/// The tenant of this name, unless it is deleted.
///
/// # Errors
/// [`Error::Database`].
pub async fn find_by_name(db: &Db, name: &str) -> Result<Option<Tenant>> {
    let name = name.trim();
    if name.contains('\0') {
        return Ok(None);
    }
    db::tenants::find_by_name(db, name).await
}

/// One page of the tenants that are not deleted, oldest first.
///
/// # Errors
/// [`Error::Database`].
pub async fn list(db: &Db, page: Page<TenantId>) -> Result<Listed<Tenant>> {
    db::tenants::list(db, page).await
}

/// Refuses the tenant's credentials until [`resume`]. Done already, it changes nothing.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Database`].
pub async fn suspend(db: &Db, clock: &Clock, actor: Actor, id: TenantId) -> Result<Tenant> {
    move_to(db, By { actor, at: clock.now() }, id, Status::Suspended).await
}

/// Ends a suspension. Where there is none, it changes nothing.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Database`].
pub async fn resume(db: &Db, clock: &Clock, actor: Actor, id: TenantId) -> Result<Tenant> {
    move_to(db, By { actor, at: clock.now() }, id, Status::Active).await
}

/// Puts a tenant on a plan: within a second its limits hold, and its prices `lead` later, when a period on it begins. It is
/// on it already: changes nothing.
///
/// # Errors
/// [`Error::Invalid`] where there is no such plan, [`Error::Conflict`] where the tenant has a subscription,
/// [`Error::NotFound`], [`Error::Internal`] for a price version that is not what was published, [`Error::Database`].
pub async fn set_plan(
    db: &Db,
    clock: &Clock,
    actor: Actor,
    id: TenantId,
    plan: &PlanName,
    lead: Duration,
) -> Result<Tenant> {
    let mut tx = db.begin().await?;
    let before = db::tenants::lock(&mut tx, id).await?.ok_or(Error::NotFound("tenant"))?;
    if before.plan == plan.as_str() {
        return Ok(before);
    }
    if plan.as_str() != plans::DEFAULT && db::plans::lock(&mut tx, plan).await?.is_none() {
        return Err(Error::Invalid(format!("plan: there is none named {plan}; create it first")));
    }
    if accounts::hold(&mut tx, id, clock.now()).await?.is_some_and(|account| account.subscription.is_some()) {
        let text = "this tenant pays for its plan by a subscription; change or cancel that one";
        return Err(Error::Conflict(text.to_owned()));
    }
    // After everything that may have to be waited for: the lead begins here.
    let by = By { actor, at: clock.now() };
    let after = db::tenants::set_plan(&mut tx, id, plan.as_str(), by.at).await?;
    accounts::plan_changed(&mut tx, id, (&before.plan.parse()?, plan), by.at, lead).await?;
    let detail = json!({ "before": before.plan, "plan": after.plan });
    audit::record(&mut tx, by, "tenant.plan", Subject::Tenant(id), &detail).await?;
    forget(&mut tx, by, id).await?;
    tx.commit().await?;
    Ok(after)
}

/// Deletes a tenant for good: its keys are revoked, its name is free again, its history is kept.
///
/// # Errors
/// [`Error::NotFound`] (also where it is deleted already), [`Error::Database`].
pub async fn delete(db: &Db, clock: &Clock, actor: Actor, id: TenantId) -> Result<Tenant> {
    move_to(db, By { actor, at: clock.now() }, id, Status::Deleted).await
}

async fn move_to(db: &Db, by: By, id: TenantId, status: Status) -> Result<Tenant> {
    let mut tx = db.begin().await?;
    let before = db::tenants::lock(&mut tx, id).await?.ok_or(Error::NotFound("tenant"))?;
    if before.status == status {
        return Ok(before);
    }
    let after = db::tenants::set_status(&mut tx, id, status, by.at).await?;
    let (action, detail) = match status {
        Status::Active => ("tenant.resume", json!({})),
        Status::Suspended => ("tenant.suspend", json!({})),
        Status::Deleted => {
            let revoked = db::api_keys::revoke_all(&mut tx, id, by.at).await?;
            accounts::tenant_deleted(&mut tx, id, by.at).await?;
            ("tenant.delete", json!({ "name": before.name, "keys_revoked": revoked }))
        }
    };
    audit::record(&mut tx, by, action, Subject::Tenant(id), &detail).await?;
    forget(&mut tx, by, id).await?;
    tx.commit().await?;
    Ok(after)
}

async fn forget(tx: &mut Tx, by: By, id: TenantId) -> Result<()> {
    invalidations::insert(tx, by.at, Kind::Tenant, id.to_string()).await
}

/// A name without the blanks around it.
pub(crate) fn checked_name(name: &str) -> Result<String> {
    let name = name.trim();
    let chars = name.chars().count();
    if chars == 0 || chars > MAX_NAME_CHARS {
        return Err(Error::Invalid(format!(
            "name: expected 1 to {MAX_NAME_CHARS} characters, found {chars}; blanks around it do not count"
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(Error::Invalid(
            "name: control characters, such as line breaks and tabs, are not allowed".to_owned(),
        ));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::db::testing::on_every_engine;
    use crate::id::OperatorKeyId;

    fn clock() -> Clock {
        Clock::manual(Timestamp::from_micros(1_700_000_000_000_000))
    }

    #[test]
    fn names_are_trimmed_and_checked() {
        assert_eq!(checked_name("  Acme GmbH\n").expect("a name"), "Acme GmbH");
        assert_eq!(checked_name(&"é".repeat(100)).expect("a name").chars().count(), 100);
        for bad in ["", "   ", "a\tb", "a\0b", "a\u{85}b", &"x".repeat(101)] {
            assert!(matches!(checked_name(bad), Err(Error::Invalid(_))), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_tenant_lives_and_ends() {
        on_every_engine(async |db| {
            let clock = clock();
            let made = create(&db, &clock, Actor::Cli, " Acme ").await.expect("a tenant");
            assert_eq!(
                (made.name.as_str(), made.status, made.plan.as_str()),
                ("Acme", Status::Active, "default")
            );
            let again = create(&db, &clock, Actor::Cli, "Acme").await.expect_err("a conflict");
            assert!(matches!(again, Error::Conflict(_)), "{again}");

            clock.advance(std::time::Duration::from_secs(5));
            let held = suspend(&db, &clock, Actor::Dev, made.id).await.expect("suspended");
            assert_eq!((held.status, held.updated_at), (Status::Suspended, clock.now()));
            suspend(&db, &clock, Actor::Dev, made.id).await.expect("nothing to do");
            assert_eq!(
                resume(&db, &clock, Actor::Cli, made.id).await.expect("resumed").status,
                Status::Active
            );

            delete(&db, &clock, Actor::Cli, made.id).await.expect("deleted");
            assert!(matches!(get(&db, made.id).await, Err(Error::NotFound("tenant"))));
            assert!(matches!(delete(&db, &clock, Actor::Cli, made.id).await, Err(Error::NotFound(_))));
            assert!(matches!(resume(&db, &clock, Actor::Cli, made.id).await, Err(Error::NotFound(_))));
            assert!(find_by_name(&db, "Acme").await.expect("an answer").is_none());
            assert!(list(&db, Page::first(10)).await.expect("a list").rows.is_empty());
            let heir = create(&db, &clock, Actor::Cli, "Acme").await.expect("the name is free");
            assert_eq!(find_by_name(&db, "Acme").await.expect("an answer").map(|t| t.id), Some(heir.id));
        })
        .await;
    }

    #[tokio::test]
    async fn changes_are_audited_and_announced() {
        on_every_engine(async |db| {
            let operator = Actor::Operator(OperatorKeyId::new());
            let a = create(&db, &clock(), operator, "a").await.expect("a tenant").id;
            let b = create(&db, &clock(), Actor::Cli, "b").await.expect("a tenant").id;
            suspend(&db, &clock(), operator, a).await.expect("suspended");
            suspend(&db, &clock(), operator, a).await.expect("nothing to do");
            delete(&db, &clock(), operator, b).await.expect("deleted");

            let actions = async |tenant| {
                let page = audit::list(&db, tenant, Page::first(100)).await.expect("a list");
                assert!(!page.more);
                page.rows.into_iter().map(|entry| (entry.action, entry.actor)).collect::<Vec<_>>()
            };
            let by = operator.to_string();
            let of_a = vec![("tenant.create".to_owned(), by.clone()), ("tenant.suspend".to_owned(), by)];
            assert_eq!(actions(Some(a)).await, of_a);
            assert_eq!(actions(Some(b)).await.len(), 2);
            assert_eq!(actions(None).await.len(), 4);

            let told = invalidations::after(&db, 0, 100).await.expect("changes");
            let told: Vec<_> = told.into_iter().map(|row| row.subject).collect();
            assert_eq!(told, [a.to_string(), b.to_string()]);
        })
        .await;
    }

    #[tokio::test]
    async fn lists_come_in_pages() {
        on_every_engine(async |db| {
            let mut made = Vec::new();
            for n in 0..5 {
                made.push(create(&db, &clock(), Actor::Cli, &format!("t{n}")).await.expect("a tenant").id);
            }
            let mut seen = Vec::new();
            let mut page = Page::first(2);
            loop {
                let part = list(&db, page).await.expect("a page");
                seen.extend(part.rows.iter().map(|tenant| tenant.id));
                page.after = seen.last().copied();
                if !part.more {
                    break;
                }
            }
            assert_eq!(seen, made);
        })
        .await;
    }

    #[tokio::test]
    async fn a_rolled_back_change_leaves_nothing() {
        on_every_engine(async |db| {
            let id = TenantId::new();
            let mut tx = db.begin().await.expect("a transaction");
            db::tenants::insert(&mut tx, id, "gone", clock().now()).await.expect("a row");
            drop(tx);
            assert!(matches!(get(&db, id).await, Err(Error::NotFound(_))));
            create(&db, &clock(), Actor::Cli, "gone").await.expect("the writer is free");
        })
        .await;
    }
}
