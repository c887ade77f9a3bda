//! `/admin/v1/plans`: what tenants may use.

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
use crate::limits::PlanLimits;
use crate::plans::{self, Plan, PlanName};

/// A plan as the API shows it.
#[derive(Debug, Serialize)]
pub struct Body {
    name: PlanName,
    limits: PlanLimits,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Plan> for Body {
    fn from(plan: Plan) -> Self {
        Self {
            name: plan.name,
            limits: plan.limits,
            created_at: plan.created_at,
            updated_at: plan.updated_at,
        }
    }
}

/// What `PUT /admin/v1/plans/{name}` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    limits: PlanLimits,
}

/// Lists plans, by name.
pub async fn list(
    _operator: Operator,
    State(app): State<Arc<App>>,
    Query(query): Query<PageQuery>,
) -> Result<Response, Problem> {
    let listed = plans::list(&app.db, query.page()?).await?;
    Ok(Json(PageBody::new(listed, |plan| plan.name.to_string(), Body::from)).into_response())
}

/// Shows a plan.
pub async fn show(
    _operator: Operator,
    State(app): State<Arc<App>>,
    Path(name): Path<PlanName>,
) -> Result<Response, Problem> {
    Ok(Json(Body::from(plans::get(&app.db, &name).await?)).into_response())
}

/// Creates a plan, or changes it: here at once, everywhere within a second.
pub async fn put(
    Operator(actor): Operator,
    State(app): State<Arc<App>>,
    Path(name): Path<PlanName>,
    Json(body): Json<Put>,
) -> Result<Response, Problem> {
    let plan = plans::put(&app.db, &app.clock, actor, &name, &body.limits).await?;
    app.plan_changed(name.as_str());
    Ok(Json(Body::from(plan)).into_response())
}

/// Deletes a plan that no tenant is on.
pub async fn delete(
    Operator(actor): Operator,
    State(app): State<Arc<App>>,
    Path(name): Path<PlanName>,
) -> Result<Response, Problem> {
    plans::delete(&app.db, &app.clock, actor, &name).await?;
    app.plan_changed(name.as_str());
    Ok(StatusCode::NO_CONTENT.into_response())
}
