//! Grants: credits that a tenant is given, and that are taken back. For one source there is one grant, so that whoever is not
//! sure whether a grant was made can ask for it again.

use serde_json::json;

use crate::audit::{self, Actor, By, Subject};
use crate::clock::{Clock, Timestamp};
use crate::credits::Credits;
use crate::db::invalidations::{self, Kind};
use crate::db::{self, Db, Listed, Page};
use crate::error::{Error, Result};
use crate::id::{GrantId, TenantId};

pub use crate::db::grants::{Grant, GrantKind};

/// Longest source and note, in characters.
const MAX_TEXT: usize = 200;

/// A grant to be made.
#[derive(Debug, Clone)]
pub struct NewGrant {
    /// Promotional or prepaid.
    pub kind: GrantKind,
    /// How much; more than nothing.
    pub credits: Credits,
    /// What it is given for; `operator:` and the grant's id where it is left out. Not `period:...`, which is Weir's own.
    pub source: Option<String>,
    /// What the operator says of it.
    pub note: String,
    /// When it ends; in the future.
    pub expires_at: Option<Timestamp>,
}

impl Grant {
    /// A grant of which nothing is used.
    pub(super) fn new(
        tenant_id: TenantId,
        kind: GrantKind,
        source: String,
        granted: Credits,
        granted_at: Timestamp,
    ) -> Self {
        Self {
            id: GrantId::new(),
            tenant_id,
            kind,
            source,
            note: String::new(),
            granted,
            used: Credits::ZERO,
            leased: Credits::ZERO,
            expired: Credits::ZERO,
            voided: Credits::ZERO,
            granted_at,
            expires_at: None,
            voided_at: None,
            used_open: Credits::ZERO,
        }
    }
}

/// Gives credits to a tenant; makes its account where there is none. The grant of this source is there already: changes
/// nothing.
///
/// # Errors
/// [`Error::Invalid`], naming the field; [`Error::Conflict`] where the grant of this source is another one;
/// [`Error::NotFound`] for the tenant, [`Error::Database`].
pub async fn add(db: &Db, clock: &Clock, actor: Actor, tenant: TenantId, new: NewGrant) -> Result<Grant> {
    let by = By { actor, at: clock.now() };
    let new = checked(new)?;
    let mut tx = db.begin().await?;
    db::tenants::lock(&mut tx, tenant).await?.ok_or(Error::NotFound("tenant"))?;
    db::accounts::lock_or_make(&mut tx, tenant, by.at).await?;
    let mut grant = Grant::new(tenant, new.kind, String::new(), new.credits, by.at);
    if let Some(source) = &new.source
        && let Some(known) = db::grants::find(&mut tx, tenant, source).await?
    {
        let of = |grant: &Grant| (grant.kind, grant.granted, grant.expires_at, grant.note.clone());
        if of(&known) == (new.kind, new.credits, new.expires_at, new.note) {
            tx.commit().await?;
            return Ok(known);
        }
        let text =
            format!("source: {source:?} is that of {}, which says something else; choose another", known.id);
        return Err(Error::Conflict(text));
    }
    // Not before: a grant that is there already may have expired since.
    if new.expires_at.is_some_and(|at| at <= by.at) {
        return Err(Error::Invalid("expires_at: expected an instant in the future".to_owned()));
    }
    grant.source = new.source.unwrap_or_else(|| format!("operator:{}", grant.id));
    (grant.note, grant.expires_at) = (new.note, new.expires_at);
    db::grants::insert(&mut tx, &grant).await?;
    let detail = json!({
        "kind": grant.kind, "credits": grant.granted, "source": grant.source, "note": grant.note,
        "expires_at": grant.expires_at,
    });
    audit::record(&mut tx, by, "grant.add", Subject::Grant(tenant, grant.id), &detail).await?;
    invalidations::insert(&mut tx, by.at, Kind::Account, tenant.to_string()).await?;
    tx.commit().await?;
    Ok(grant)
}

fn checked(mut new: NewGrant) -> Result<NewGrant> {
    let wrong = |text: String| Err(Error::Invalid(text));
    if new.kind == GrantKind::Included {
        return wrong(
            "kind: expected promotional or prepaid; what is included comes with the plan's prices".to_owned(),
        );
    }
    if !new.credits.is_positive() || new.credits > Credits::MOST {
        return wrong(format!("credits: expected more than 0 and at most {}", Credits::MOST));
    }
    for (name, text) in [("source", new.source.as_ref()), ("note", Some(&new.note))] {
        let Some(text) = text else { continue };
        if text.chars().count() > MAX_TEXT || text.chars().any(char::is_control) {
            return wrong(format!(
                "{name}: expected at most {MAX_TEXT} characters, and no control characters"
            ));
        }
    }
    if let Some(source) = &mut new.source {
        *source = source.trim().to_owned();
        if source.is_empty() || source.starts_with("period:") {
            return wrong("source: expected some text that does not begin with \"period:\"".to_owned());
        }
    }
    Ok(new)
}

/// Takes a grant back, at once: what is neither used nor held by a process is gone, and what processes hold and do not use
/// follows within seconds. Done already, it changes nothing.
///
/// # Errors
/// [`Error::NotFound`] (also for another tenant's grant), [`Error::Database`].
pub async fn void(db: &Db, clock: &Clock, actor: Actor, tenant: TenantId, id: GrantId) -> Result<Grant> {
    let by = By { actor, at: clock.now() };
    let mut tx = db.begin().await?;
    db::accounts::lock(&mut tx, tenant, by.at).await?.ok_or(Error::NotFound("grant"))?;
    let before = db::grants::get_in(&mut tx, tenant, id).await?.ok_or(Error::NotFound("grant"))?;
    if before.voided_at.is_some() {
        tx.commit().await?;
        return Ok(before);
    }
    db::grants::void(&mut tx, id, by.at).await?;
    let after = db::grants::get_in(&mut tx, tenant, id).await?.ok_or(Error::NotFound("grant"))?;
    let detail = json!({ "voided": after.voided, "leased": after.leased });
    audit::record(&mut tx, by, "grant.void", Subject::Grant(tenant, id), &detail).await?;
    invalidations::insert(&mut tx, by.at, Kind::Account, tenant.to_string()).await?;
    tx.commit().await?;
    Ok(after)
}

/// One page of a tenant's grants, oldest first.
///
/// # Errors
/// [`Error::Database`].
pub async fn list(db: &Db, tenant: TenantId, page: Page<GrantId>) -> Result<Listed<Grant>> {
    db::grants::list(db, tenant, page).await
}
