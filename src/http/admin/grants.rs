//! `/admin/v1/tenants/{tenant}/grants`: credits that a tenant is given.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::super::caller::Operator;
use super::super::extract::{Json, Path, Query};
use super::super::problem::Problem;
use super::{PageBody, PageQuery};
use crate::accounts::grants::{self, Grant, GrantKind, NewGrant};
use crate::app::App;
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::id::{GrantId, TenantId};

/// A grant as the API shows it.
#[derive(Debug, Serialize)]
pub struct Body {
    id: GrantId,
    tenant_id: TenantId,
    kind: GrantKind,
    source: String,
    note: String,
    granted: Credits,
    used: Credits,
    remaining: Credits,
    expired: Credits,
    voided: Credits,
    granted_at: Timestamp,
    expires_at: Option<Timestamp>,
    voided_at: Option<Timestamp>,
}

impl From<Grant> for Body {
    fn from(grant: Grant) -> Self {
        Self {
            used: grant.used + grant.used_open,
            remaining: grant.remaining(),
            id: grant.id,
            tenant_id: grant.tenant_id,
            kind: grant.kind,
            source: grant.source,
            note: grant.note,
            granted: grant.granted,
            expired: grant.expired,
            voided: grant.voided,
            granted_at: grant.granted_at,
            expires_at: grant.expires_at,
            voided_at: grant.voided_at,
        }
    }
}

/// What `POST /admin/v1/tenants/{tenant}/grants` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Add {
    kind: GrantKind,
    credits: Credits,
    source: Option<String>,
    #[serde(default)]
    note: String,
    expires_at: Option<Timestamp>,
}

/// Lists the tenant's grants, oldest first, used ones included.
pub async fn list(
    _operator: Operator,
    State(app): State<Arc<App>>,
    Path(tenant): Path<TenantId>,
    Query(query): Query<PageQuery>,
) -> Result<Response, Problem> {
    crate::tenants::get(&app.db, tenant).await?;
    let listed = grants::list(&app.db, tenant, query.page()?).await?;
    Ok(Json(PageBody::new(listed, |grant| grant.id.to_string(), Body::from)).into_response())
}

/// Gives credits; those of a source that gave already are not given again.
pub async fn add(
    Operator(actor): Operator,
    State(app): State<Arc<App>>,
    Path(tenant): Path<TenantId>,
    Json(body): Json<Add>,
) -> Result<Response, Problem> {
    let Add { kind, credits, source, note, expires_at } = body;
    let new = NewGrant { kind, credits, source, note, expires_at };
    let grant = grants::add(&app.db, &app.clock, actor, tenant, new).await?;
    Ok((StatusCode::CREATED, Json(Body::from(grant))).into_response())
}

/// Takes a grant back.
pub async fn void(
    Operator(actor): Operator,
    State(app): State<Arc<App>>,
    Path((tenant, grant)): Path<(TenantId, GrantId)>,
) -> Result<Response, Problem> {
    let grant = grants::void(&app.db, &app.clock, actor, tenant, grant).await?;
    Ok(Json(Body::from(grant)).into_response())
}
