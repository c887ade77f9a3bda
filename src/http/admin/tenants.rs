//! `/admin/v1/tenants`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::super::caller::Operator;
use super::super::extract::{Json, Path, Query};
use super::super::problem::Problem;
use super::{PageBody, PageQuery};
use crate::app::App;
use crate::clock::Timestamp;
use crate::credentials::Change;
use crate::id::TenantId;
use crate::plans::PlanName;
use crate::tenants::{self, Tenant};

/// A tenant as the API shows it.
#[derive(Debug, Serialize)]
pub struct Body {
    id: TenantId,
    name: String,
    status: &'static str,
    plan: String,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Tenant> for Body {
    fn from(tenant: Tenant) -> Self {
        Self {
            id: tenant.id,
            name: tenant.name,
            status: tenant.status.as_str(),
            plan: tenant.plan,
            created_at: tenant.created_at,
            updated_at: tenant.updated_at,
        }
    }
}

/// What `POST /admin/v1/tenants` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    name: String,
}

/// Lists tenants, oldest first.
pub async fn list(
    _operator: Operator,
    State(app): State<Arc<App>>,
    Query(query): Query<PageQuery>,
) -> Result<Response, Problem> {
    let listed = tenants::list(&app.db, query.page()?).await?;
    Ok(Json(PageBody::new(listed, |t| t.id.to_string(), Body::from)).into_response())
}

/// Creates a tenant.
pub async fn create(
    Operator(actor): Operator,
    State(app): State<Arc<App>>,
    Json(body): Json<Create>,
) -> Result<Response, Problem> {
    let tenant = tenants::create(&app.db, &app.clock, actor, &body.name).await?;
    Ok((StatusCode::CREATED, Json(Body::from(tenant))).into_response())
}

/// Shows a tenant.
pub async fn show(
    _operator: Operator,
    State(app): State<Arc<App>>,
    Path(id): Path<TenantId>,
) -> Result<Response, Problem> {
    Ok(Json(Body::from(tenants::get(&app.db, id).await?)).into_response())
}

/// What `PUT /admin/v1/tenants/{tenant}/plan` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPlan {
    plan: PlanName,
}

/// Puts the tenant on a plan: here at once, everywhere within a second.
pub async fn set_plan(
    Operator(actor): Operator,
    State(app): State<Arc<App>>,
    Path(id): Path<TenantId>,
    Json(body): Json<SetPlan>,
) -> Result<Response, Problem> {
    let lead = app.config.metering.lead.get();
    let tenant = tenants::set_plan(&app.db, &app.clock, actor, id, &body.plan, lead).await?;
    forget(&app, id);
    Ok(Json(Body::from(tenant)).into_response())
}

/// Refuses every request of the tenant until it is resumed, and ends its sessions and streams.
pub async fn suspend(
    Operator(actor): Operator,
    State(app): State<Arc<App>>,
    Path(id): Path<TenantId>,
) -> Result<Response, Problem> {
    let tenant = tenants::suspend(&app.db, &app.clock, actor, id).await?;
    forget(&app, id);
    Ok(Json(Body::from(tenant)).into_response())
}

/// Lets a suspended tenant in again.
pub async fn resume(
    Operator(actor): Operator,
    State(app): State<Arc<App>>,
    Path(id): Path<TenantId>,
) -> Result<Response, Problem> {
    let tenant = tenants::resume(&app.db, &app.clock, actor, id).await?;
    forget(&app, id);
    Ok(Json(Body::from(tenant)).into_response())
}

/// Deletes a tenant and revokes all its credentials. Its history stays.
pub async fn delete(
    Operator(actor): Operator,
    State(app): State<Arc<App>>,
    Path(id): Path<TenantId>,
) -> Result<Response, Problem> {
    tenants::delete(&app.db, &app.clock, actor, id).await?;
    forget(&app, id);
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Makes the change felt here at once and elsewhere within a second.
fn forget(app: &App, id: TenantId) {
    let change = Change::Tenant(id);
    app.revoke(change);
}
