//! `/admin/v1/tenants/{tenant}/keys`: API keys and URL tokens.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::super::caller::Operator;
use super::super::extract::{Json, Path, Query};
use super::super::problem::Problem;
use super::{PageBody, PageQuery};
use crate::api_keys::{self, ApiKey, KeyKind, NewKey};
use crate::app::App;
use crate::clock::Timestamp;
use crate::credentials::Change;
use crate::id::{KeyId, TenantId};
use crate::limits::KeyLimits;
use crate::policy::Scopes;

/// A key as the API shows it. The secret is there only in the answer that creates it.
#[derive(Debug, Serialize)]
pub struct Body {
    id: KeyId,
    tenant_id: TenantId,
    kind: KeyKind,
    name: String,
    hint: String,
    scopes: Scopes,
    limits: KeyLimits,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl From<ApiKey> for Body {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            tenant_id: key.tenant_id,
            kind: key.kind,
            name: key.name,
            hint: key.hint,
            scopes: key.scopes,
            limits: key.limits,
            created_at: key.created_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            revoked_at: key.revoked_at,
            secret: None,
        }
    }
}

/// What `POST /admin/v1/tenants/{tenant}/keys` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    name: String,
    #[serde(default = "api_key")]
    kind: KeyKind,
    #[serde(default)]
    scopes: Scopes,
    #[serde(default)]
    limits: KeyLimits,
    expires_at: Option<Timestamp>,
}

fn api_key() -> KeyKind {
    KeyKind::ApiKey
}

/// Lists the tenant's keys, oldest first, revoked ones included.
pub async fn list(
    _operator: Operator,
    State(app): State<Arc<App>>,
    Path(tenant): Path<TenantId>,
    Query(query): Query<PageQuery>,
) -> Result<Response, Problem> {
    crate::tenants::get(&app.db, tenant).await?;
    let listed = api_keys::list(&app.db, tenant, query.page()?).await?;
    Ok(Json(PageBody::new(listed, |k| k.id.to_string(), Body::from)).into_response())
}

/// Creates a key and shows its secret, once.
pub async fn create(
    Operator(actor): Operator,
    State(app): State<Arc<App>>,
    Path(tenant): Path<TenantId>,
    Json(body): Json<Create>,
) -> Result<Response, Problem> {
    let Create { kind, name, scopes, limits, expires_at } = body;
    let new = NewKey { kind, name, scopes, limits, expires_at };
    let (key, secret) = api_keys::create(&app.db, &app.clock, actor, tenant, new).await?;
    let body = Body { secret: Some(secret.expose().to_owned()), ..Body::from(key) };
    let mut response = (StatusCode::CREATED, Json(body)).into_response();
    let no_store = http::HeaderValue::from_static("no-store");
    response.headers_mut().insert(http::header::CACHE_CONTROL, no_store);
    Ok(response)
}

/// Shows a key.
pub async fn show(
    _operator: Operator,
    State(app): State<Arc<App>>,
    Path((tenant, key)): Path<(TenantId, KeyId)>,
) -> Result<Response, Problem> {
    Ok(Json(Body::from(api_keys::get(&app.db, tenant, key).await?)).into_response())
}

/// Gives a key other limits: here at once, everywhere within a second.
pub async fn set_limits(
    Operator(actor): Operator,
    State(app): State<Arc<App>>,
    Path((tenant, key)): Path<(TenantId, KeyId)>,
    Json(limits): Json<KeyLimits>,
) -> Result<Response, Problem> {
    let key = api_keys::set_limits(&app.db, &app.clock, actor, (tenant, key), &limits).await?;
    app.revoke(Change::Credential(key.id));
    Ok(Json(Body::from(key)).into_response())
}

/// Revokes a key: refused here at once, everywhere within a second; its sessions and streams end.
pub async fn revoke(
    Operator(actor): Operator,
    State(app): State<Arc<App>>,
    Path((tenant, key)): Path<(TenantId, KeyId)>,
) -> Result<Response, Problem> {
    let key = api_keys::revoke(&app.db, &app.clock, actor, tenant, key).await?;
    let change = Change::Credential(key.id);
    app.revoke(change);
    Ok(Json(Body::from(key)).into_response())
}
