//! API keys and URL tokens: rows and SQL. What may be done to one is in [`crate::api_keys`].

use serde::Serialize;
use sqlx::FromRow;

use super::tenants::Status;
use super::{Db, JsonText, Listed, Page, Tx, done};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::{KeyId, TenantId};
use crate::limits::{KeyLimits, PlanLimits};
use crate::policy::Scopes;

text_enum! {
    /// Which kind of credential a key is.
    pub enum KeyKind {
        /// `wk_...`, for the `Authorization` header.
        ApiKey = "api_key",
        /// `wu_...`, which may stand in a URL, too.
        UrlToken = "url_token",
    }
}

/// An API key or URL token, without its secret.
#[derive(Debug, Clone, FromRow)]
pub struct ApiKey {
    /// Its id.
    pub id: KeyId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// Which kind it is.
    pub kind: KeyKind,
    /// What its owner calls it.
    pub name: String,
    /// The last four characters of the token, so that its owner can tell one from another.
    pub hint: String,
    /// What it may reach.
    #[sqlx(try_from = "JsonText<Scopes>")]
    pub scopes: Scopes,
    /// What differs from the tenant's plan.
    #[sqlx(try_from = "JsonText<KeyLimits>")]
    pub limits: KeyLimits,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was last used; up to a minute behind.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl From<JsonText<Scopes>> for Scopes {
    fn from(text: JsonText<Scopes>) -> Self {
        text.0
    }
}

impl From<JsonText<KeyLimits>> for KeyLimits {
    fn from(text: JsonText<KeyLimits>) -> Self {
        text.0
    }
}

/// A key with what authentication has to know of its tenant.
#[derive(FromRow)]
pub(crate) struct KeyWithTenant {
    #[sqlx(flatten)]
    pub(crate) key: ApiKey,
    pub(crate) hash: Vec<u8>,
    pub(crate) tenant_name: String,
    pub(crate) tenant_status: Status,
    pub(crate) tenant_plan: String,
    pub(crate) plan_limits: Option<JsonText<PlanLimits>>,
    /// Whether the plan has prices, or the tenant an account.
    pub(crate) metered: bool,
}

/// When a key was used.
#[derive(Serialize)]
pub(crate) struct Use {
    pub(crate) id: KeyId,
    pub(crate) at: i64,
}

pub(crate) async fn insert(tx: &mut Tx, key: &ApiKey, hash: &[u8; 32]) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "insert into api_keys (id, tenant_id, kind, name, hash, hint, scopes, limits, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        )
        .bind(key.id)
        .bind(key.tenant_id)
        .bind(key.kind)
        .bind(key.name.as_str())
        .bind(hash.as_slice())
        .bind(key.hint.as_str())
        .bind(JsonText(&key.scopes))
        .bind(JsonText(&key.limits))
        .bind(key.created_at)
        .bind(key.expires_at)
        .execute(conn)
    ))
    .map(|_| ())
}

pub(crate) async fn get(db: &Db, tenant: TenantId, id: KeyId) -> Result<Option<ApiKey>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select id, tenant_id, kind, name, hint, scopes, limits, created_at, expires_at, last_used_at,
             revoked_at
         from api_keys
         where tenant_id = $1 and id = $2"
    )
    .bind(tenant)
    .bind(id)
    .fetch_optional(conn))
}

pub(crate) async fn list(db: &Db, tenant: TenantId, page: Page<KeyId>) -> Result<Listed<ApiKey>> {
    let rows = on_reader!(db, |conn| sqlx::query_as(
        "select id, tenant_id, kind, name, hint, scopes, limits, created_at, expires_at, last_used_at,
             revoked_at
         from api_keys
         where tenant_id = $1 and id > $2
         order by id
         limit $3"
    )
    .bind(tenant)
    .bind(page.after_text())
    .bind(page.fetch())
    .fetch_all(conn))?;
    Ok(page.cut(rows))
}

/// Revokes one key; `None` where there is none that is not revoked already.
pub(crate) async fn revoke(
    tx: &mut Tx,
    tenant: TenantId,
    id: KeyId,
    now: Timestamp,
) -> Result<Option<ApiKey>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "update api_keys set revoked_at = $3
         where tenant_id = $1 and id = $2 and revoked_at is null
         returning id, tenant_id, kind, name, hint, scopes, limits, created_at, expires_at, last_used_at,
             revoked_at"
    )
    .bind(tenant)
    .bind(id)
    .bind(now)
    .fetch_optional(conn))
}

/// Gives a key that is not revoked other limits; `None` where there is none.
pub(crate) async fn set_limits(
    tx: &mut Tx,
    tenant: TenantId,
    id: KeyId,
    limits: &KeyLimits,
) -> Result<Option<ApiKey>> {
    in_tx!(tx, |conn| sqlx::query_as(
        "update api_keys set limits = $3
         where tenant_id = $1 and id = $2 and revoked_at is null
         returning id, tenant_id, kind, name, hint, scopes, limits, created_at, expires_at, last_used_at,
             revoked_at"
    )
    .bind(tenant)
    .bind(id)
    .bind(JsonText(limits))
    .fetch_optional(conn))
}

/// Revokes all keys of a tenant; the number of those that were not revoked before.
pub(crate) async fn revoke_all(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<u64> {
    in_tx!(tx, |conn| done(
        sqlx::query("update api_keys set revoked_at = $2 where tenant_id = $1 and revoked_at is null")
            .bind(tenant)
            .bind(now)
            .execute(conn)
    ))
}

/// The key whose token has this hash, whatever became of it. Authentication only: it takes no tenant.
pub(crate) async fn find_by_hash(db: &Db, hash: &[u8; 32]) -> Result<Option<KeyWithTenant>> {
    on_reader!(db, |conn| {
        sqlx::query_as(
        "select k.id, k.tenant_id, k.kind, k.name, k.hint, k.scopes, k.limits, k.created_at,
                k.expires_at, k.last_used_at, k.revoked_at, k.hash,
                t.name as tenant_name, t.status as tenant_status, t.plan as tenant_plan, p.limits as plan_limits,
                exists (select 1 from price_versions v where v.plan = t.plan)
                or exists (select 1 from accounts a where a.tenant_id = t.id) as metered
         from api_keys k join tenants t on t.id = k.tenant_id left join plans p on p.name = t.plan
         where k.hash = $1"
    )
    .bind(hash.as_slice())
    .fetch_optional(conn)
    })
}

/// Records when keys were used, in one statement; a later use that is known already stays. The engines read a
/// list from JSON each in its own way.
pub(crate) async fn record_uses(db: &Db, uses: &[Use]) -> Result<()> {
    let list =
        serde_json::to_string(uses).map_err(|error| crate::error::Error::Internal(error.to_string()))?;
    match db.pools() {
        super::Pools::Sqlite { write, .. } => on_pool!(db, write, |conn| done(
            sqlx::query(
                "update api_keys set last_used_at = u.at
             from (select value ->> 'id' as id, value ->> 'at' as at from json_each($1)) as u
             where api_keys.id = u.id and (api_keys.last_used_at is null or api_keys.last_used_at < u.at)"
            )
            .bind(list)
            .execute(conn)
        ))
        .map(|_| ()),
        super::Pools::Postgres(pool) => on_pool!(db, pool, |conn| done(
            sqlx::query(
                "update api_keys set last_used_at = u.at
             from json_to_recordset(cast($1 as json)) as u (id text, at bigint)
             where api_keys.id = u.id and (api_keys.last_used_at is null or api_keys.last_used_at < u.at)"
            )
            .bind(list)
            .execute(conn)
        ))
        .map(|_| ()),
    }
}
