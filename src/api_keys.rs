//! API keys and URL tokens of a tenant. The secret is shown once, by [`create`]; what is kept is its hash.

use serde_json::json;

use crate::audit::{self, Actor, By, Subject};
use crate::clock::{Clock, Timestamp};
use crate::credentials::token::{self, Secret};
use crate::db::invalidations::{self, Kind};
use crate::db::{self, Db, Listed, Page};
use crate::error::{Error, Result};
use crate::id::{KeyId, TenantId};
use crate::limits::KeyLimits;
use crate::policy::Scopes;
use crate::tenants;

pub use crate::db::api_keys::{ApiKey, KeyKind};

/// What a new key shall be.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Which kind.
    pub kind: KeyKind,
    /// What its owner calls it.
    pub name: String,
    /// What it may reach.
    pub scopes: Scopes,
    /// What differs from the tenant's plan.
    pub limits: KeyLimits,
    /// When it ends by itself, if it shall.
    pub expires_at: Option<Timestamp>,
}

impl NewKey {
    /// A key that reaches everything its tenant may, without an end.
    #[must_use]
    pub fn new(kind: KeyKind, name: &str) -> Self {
        let (scopes, limits) = (Scopes::default(), KeyLimits::default());
        Self { kind, name: name.to_owned(), scopes, limits, expires_at: None }
    }
}

/// Creates a key for a tenant that is not deleted. The secret cannot be had again.
///
/// # Errors
/// [`Error::Invalid`] for a bad name, bad scopes or limits, or an expiry in the past, [`Error::NotFound`] without such a
/// tenant, [`Error::Database`].
pub async fn create(
    db: &Db,
    clock: &Clock,
    actor: Actor,
    tenant: TenantId,
    new: NewKey,
) -> Result<(ApiKey, Secret)> {
    let by = By { actor, at: clock.now() };
    let name = tenants::checked_name(&new.name)?;
    new.scopes.validate()?;
    new.limits.validate()?;
    if new.expires_at.is_some_and(|end| end <= by.at) {
        return Err(Error::Invalid(format!("expires_at: must be in the future; it is {} now", by.at)));
    }
    let secret = Secret::generate(match new.kind {
        KeyKind::ApiKey => token::Kind::ApiKey,
        KeyKind::UrlToken => token::Kind::UrlToken,
    })?;
    let key = ApiKey {
        id: KeyId::new(),
        tenant_id: tenant,
        kind: new.kind,
        name,
        hint: secret.hint().to_owned(),
        scopes: new.scopes,
        limits: new.limits,
        created_at: by.at,
        expires_at: new.expires_at,
        last_used_at: None,
        revoked_at: None,
    };
    let mut tx = db.begin().await?;
    db::tenants::lock(&mut tx, tenant).await?.ok_or(Error::NotFound("tenant"))?;
    db::api_keys::insert(&mut tx, &key, &secret.hash()).await?;
    let detail = json!({
        "name": key.name, "kind": key.kind.as_str(), "scopes": key.scopes, "limits": key.limits,
        "expires_at": key.expires_at,
    });
    audit::record(&mut tx, by, "api_key.create", Subject::Key(tenant, key.id), &detail).await?;
    tx.commit().await?;
    Ok((key, secret))
}

/// One key of a tenant, whether or not it is revoked.
///
/// # Errors
/// [`Error::NotFound`] (also for a key of another tenant), [`Error::Database`].
pub async fn get(db: &Db, tenant: TenantId, id: KeyId) -> Result<ApiKey> {
    db::api_keys::get(db, tenant, id).await?.ok_or(Error::NotFound("key"))
}

/// One page of a tenant's keys, oldest first, revoked ones included.
///
/// # Errors
/// [`Error::Database`].
pub async fn list(db: &Db, tenant: TenantId, page: Page<KeyId>) -> Result<Listed<ApiKey>> {
    db::api_keys::list(db, tenant, page).await
}

/// Gives a key other limits: within a second they hold.
///
/// # Errors
/// [`Error::Invalid`] for limits that are none, [`Error::NotFound`] (also for a key of another tenant, and for one that is
/// revoked), [`Error::Database`].
pub async fn set_limits(
    db: &Db,
    clock: &Clock,
    actor: Actor,
    (tenant, id): (TenantId, KeyId),
    limits: &KeyLimits,
) -> Result<ApiKey> {
    limits.validate()?;
    let by = By { actor, at: clock.now() };
    let mut tx = db.begin().await?;
    let key = db::api_keys::set_limits(&mut tx, tenant, id, limits).await?.ok_or(Error::NotFound("key"))?;
    let detail = json!({ "name": key.name, "limits": key.limits });
    audit::record(&mut tx, by, "api_key.limits", Subject::Key(tenant, id), &detail).await?;
    invalidations::insert(&mut tx, by.at, Kind::Credential, id.to_string()).await?;
    tx.commit().await?;
    Ok(key)
}

/// Revokes a key: within a second, no process accepts it. Done already, it changes nothing.
///
/// # Errors
/// [`Error::NotFound`] (also for a key of another tenant), [`Error::Database`].
pub async fn revoke(db: &Db, clock: &Clock, actor: Actor, tenant: TenantId, id: KeyId) -> Result<ApiKey> {
    let by = By { actor, at: clock.now() };
    let mut tx = db.begin().await?;
    let Some(key) = db::api_keys::revoke(&mut tx, tenant, id, by.at).await? else {
        drop(tx);
        return get(db, tenant, id).await;
    };
    let detail = json!({ "name": key.name, "kind": key.kind.as_str() });
    audit::record(&mut tx, by, "api_key.revoke", Subject::Key(tenant, id), &detail).await?;
    invalidations::insert(&mut tx, by.at, Kind::Credential, id.to_string()).await?;
    tx.commit().await?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing::on_every_engine;

    fn clock() -> Clock {
        Clock::manual(Timestamp::from_micros(1_700_000_000_000_000))
    }

    fn new_key(name: &str) -> NewKey {
        NewKey::new(KeyKind::ApiKey, name)
    }

    #[tokio::test]
    async fn a_key_is_made_once_and_revoked_once() {
        on_every_engine(async |db| {
            let clock = clock();
            let tenant = tenants::create(&db, &clock, Actor::Cli, "a").await.expect("a tenant").id;
            let scopes: Scopes =
                serde_json::from_str(r#"{"tools": ["dns_*"], "max_risk": "read_only"}"#).expect("scopes");
            let end = clock.now().plus(std::time::Duration::from_secs(60));
            let wanted = NewKey {
                kind: KeyKind::UrlToken,
                scopes: scopes.clone(),
                expires_at: Some(end),
                ..new_key(" laptop ")
            };
            let (made, secret) = create(&db, &clock, Actor::Cli, tenant, wanted).await.expect("a key");
            assert!(secret.expose().ends_with(&made.hint) && made.hint.len() == 4);
            let read = get(&db, tenant, made.id).await.expect("a key");
            assert_eq!((read.name.as_str(), read.kind), ("laptop", KeyKind::UrlToken));
            assert_eq!((read.scopes, read.expires_at, read.revoked_at), (scopes, Some(end), None));

            let limits = KeyLimits { burst: Some(7), ..KeyLimits::default() };
            let changed = set_limits(&db, &clock, Actor::Cli, (tenant, made.id), &limits).await;
            assert_eq!(changed.expect("a key").limits, limits);
            let none = KeyLimits { burst: Some(0), ..limits };
            let wrong = set_limits(&db, &clock, Actor::Cli, (tenant, made.id), &none).await;
            assert!(matches!(wrong, Err(Error::Invalid(_))));

            let gone = revoke(&db, &clock, Actor::Cli, tenant, made.id).await.expect("revoked");
            clock.advance(std::time::Duration::from_secs(1));
            let still = revoke(&db, &clock, Actor::Cli, tenant, made.id).await.expect("nothing to do");
            assert_eq!((gone.revoked_at, still.revoked_at), (gone.revoked_at, gone.revoked_at));
            let late = set_limits(&db, &clock, Actor::Cli, (tenant, made.id), &limits).await;
            assert!(matches!(late, Err(Error::NotFound("key"))));
            assert_eq!(invalidations::after(&db, 0, 10).await.expect("changes").len(), 2);

            let trail = audit::list(&db, Some(tenant), Page::first(10)).await.expect("a list").rows;
            assert_eq!(trail.len(), 4);
            assert!(trail.iter().all(|entry| !entry.detail.contains(secret.expose())));
        })
        .await;
    }

    #[tokio::test]
    async fn another_tenants_key_is_not_found() {
        on_every_engine(async |db| {
            let mine = tenants::create(&db, &clock(), Actor::Cli, "a").await.expect("a tenant").id;
            let other = tenants::create(&db, &clock(), Actor::Cli, "b").await.expect("a tenant").id;
            let (key, _) = create(&db, &clock(), Actor::Cli, mine, new_key("k")).await.expect("a key");
            assert!(matches!(get(&db, other, key.id).await, Err(Error::NotFound("key"))));
            let limits = KeyLimits::default();
            let changed = set_limits(&db, &clock(), Actor::Cli, (other, key.id), &limits).await;
            assert!(matches!(changed, Err(Error::NotFound("key"))));
            let revoked = revoke(&db, &clock(), Actor::Cli, other, key.id).await;
            assert!(matches!(revoked, Err(Error::NotFound("key"))));
            assert!(list(&db, other, Page::first(10)).await.expect("a list").rows.is_empty());
            let own = list(&db, mine, Page::first(10)).await.expect("a list").rows;
            assert!(own.len() == 1 && own[0].revoked_at.is_none());
        })
        .await;
    }

    #[tokio::test]
    async fn bad_requests_are_refused() {
        on_every_engine(async |db| {
            let clock = clock();
            let tenant = tenants::create(&db, &clock, Actor::Cli, "a").await.expect("a tenant").id;
            let past = NewKey { expires_at: Some(clock.now()), ..new_key("k") };
            let empty = NewKey { scopes: Scopes { tools: Vec::new(), ..Scopes::default() }, ..new_key("k") };
            let limits = KeyLimits { per_second: Some(0), burst: None };
            let none = NewKey { limits, ..new_key("k") };
            for bad in [past, empty, none, new_key(" ")] {
                let refusal = create(&db, &clock, Actor::Cli, tenant, bad).await.expect_err("a refusal");
                assert!(matches!(refusal, Error::Invalid(_)), "{refusal}");
            }
            let nobody = create(&db, &clock, Actor::Cli, TenantId::new(), new_key("k")).await;
            assert!(matches!(nobody, Err(Error::NotFound("tenant"))));
        })
        .await;
    }

    #[tokio::test]
    async fn a_deleted_tenant_has_no_working_key() {
        on_every_engine(async |db| {
            let tenant = tenants::create(&db, &clock(), Actor::Cli, "a").await.expect("a tenant").id;
            let (key, _) = create(&db, &clock(), Actor::Cli, tenant, new_key("k")).await.expect("a key");
            tenants::delete(&db, &clock(), Actor::Cli, tenant).await.expect("deleted");
            assert!(get(&db, tenant, key.id).await.expect("a key").revoked_at.is_some());
            let late = create(&db, &clock(), Actor::Cli, tenant, new_key("late")).await;
            assert!(matches!(late, Err(Error::NotFound("tenant"))));
        })
        .await;
    }
}
