//! Operator keys, `wo_...`: they open the admin API and nothing else. They belong to no tenant.

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde_json::json;

use crate::audit::{self, Actor, By, Subject};
use crate::clock::Clock;
use crate::credentials::token::{self, Kind, Secret};
use crate::db::{self, Db, Listed, Page};
use crate::error::{Error, Result};
use crate::id::OperatorKeyId;
use crate::tenants;

pub use crate::db::operator_keys::OperatorKey;

/// How far the recorded last use may be behind.
const USE_SPACING: Duration = Duration::from_secs(60);

/// Creates an operator key. The secret cannot be had again.
///
/// # Errors
/// [`Error::Invalid`] for a bad name, [`Error::Database`].
pub async fn create(db: &Db, clock: &Clock, actor: Actor, name: &str) -> Result<(OperatorKey, Secret)> {
    let by = By { actor, at: clock.now() };
    let secret = Secret::generate(Kind::Operator)?;
    let key = OperatorKey {
        id: OperatorKeyId::new(),
        name: tenants::checked_name(name)?,
        hint: secret.hint().to_owned(),
        created_at: by.at,
        last_used_at: None,
        revoked_at: None,
    };
    let mut tx = db.begin().await?;
    db::operator_keys::insert(&mut tx, &key, &secret.hash()).await?;
    let detail = json!({ "name": key.name });
    audit::record(&mut tx, by, "operator_key.create", Subject::OperatorKey(key.id), &detail).await?;
    tx.commit().await?;
    Ok((key, secret))
}

/// One page of the operator keys, oldest first, revoked ones included.
///
/// # Errors
/// [`Error::Database`].
pub async fn list(db: &Db, page: Page<OperatorKeyId>) -> Result<Listed<OperatorKey>> {
    db::operator_keys::list(db, page).await
}

/// Revokes an operator key, at once and everywhere: operator keys are not cached. Done already, it changes
/// nothing.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Database`].
pub async fn revoke(db: &Db, clock: &Clock, actor: Actor, id: OperatorKeyId) -> Result<OperatorKey> {
    let by = By { actor, at: clock.now() };
    let mut tx = db.begin().await?;
    let Some(key) = db::operator_keys::revoke(&mut tx, id, by.at).await? else {
        drop(tx);
        return db::operator_keys::get(db, id).await?.ok_or(Error::NotFound("operator key"));
    };
    let detail = json!({ "name": key.name });
    audit::record(&mut tx, by, "operator_key.revoke", Subject::OperatorKey(id), &detail).await?;
    tx.commit().await?;
    Ok(key)
}

/// Whose operator key `token` is; `None` for everything else, without a look-up where the text cannot be one.
///
/// # Errors
/// [`Error::Database`].
pub async fn verify(db: &Db, clock: &Clock, token: &str) -> Result<Option<OperatorKeyId>> {
    if token::kind_of(token) != Some(Kind::Operator) {
        return Ok(None);
    }
    let hash = token::hash(token);
    let Some(known) = db::operator_keys::find_by_hash(db, &hash).await? else { return Ok(None) };
    if verify_slices_are_equal(&known.hash, &hash).is_err() {
        return Ok(None);
    }
    let now = clock.now();
    if known.last_used_at.is_none_or(|last| last < now.minus(USE_SPACING)) {
        // Only informative: a database that reads but cannot write must not lock the operator out.
        if let Err(error) = db::operator_keys::record_use(db, known.id, now, USE_SPACING).await {
            tracing::warn!(?error, key = %known.id, "the last use of an operator key was not recorded");
        }
    }
    Ok(Some(known.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::db::testing::on_every_engine;

    #[tokio::test]
    async fn a_key_opens_until_it_is_revoked() {
        on_every_engine(async |db| {
            let clock = Clock::manual(Timestamp::from_micros(1_700_000_000_000_000));
            let (key, secret) = create(&db, &clock, Actor::Dev, "first").await.expect("a key");
            let found = verify(&db, &clock, secret.expose()).await.expect("an answer");
            assert_eq!(found, Some(key.id));
            let other = Secret::generate(Kind::Operator).expect("a secret");
            assert_eq!(verify(&db, &clock, other.expose()).await.expect("an answer"), None);
            assert_eq!(verify(&db, &clock, "wo_nonsense").await.expect("an answer"), None);

            let listed = list(&db, Page::first(10)).await.expect("a list").rows;
            assert_eq!(listed.len(), 1);
            assert_eq!(listed[0].last_used_at, Some(clock.now()));

            revoke(&db, &clock, Actor::Cli, key.id).await.expect("revoked");
            revoke(&db, &clock, Actor::Cli, key.id).await.expect("nothing to do");
            assert_eq!(verify(&db, &clock, secret.expose()).await.expect("an answer"), None);
            let missing = revoke(&db, &clock, Actor::Cli, OperatorKeyId::new()).await;
            assert!(matches!(missing, Err(Error::NotFound("operator key"))));
            assert_eq!(audit::list(&db, None, Page::first(10)).await.expect("a list").rows.len(), 2);
        })
        .await;
    }
}
