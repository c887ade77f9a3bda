//! `/admin/v1/plans`: what tenants may use, and what it costs.

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
use crate::id::PriceVersionId;
use crate::limits::PlanLimits;
use crate::plans::{self, Plan, PlanName};
use crate::prices::{self, PriceVersion, Terms};

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

/// A plan with what it costs.
#[derive(Debug, Serialize)]
pub struct Shown {
    #[serde(flatten)]
    plan: Body,
    /// The version in force now.
    prices: Option<PricesBody>,
}

/// A price version as the API shows it.
#[derive(Debug, Serialize)]
pub struct PricesBody {
    id: PriceVersionId,
    number: i64,
    effective_at: Timestamp,
    published_at: Timestamp,
    published_by: String,
    terms: Terms,
    digest: String,
}

impl From<PriceVersion> for PricesBody {
    fn from(version: PriceVersion) -> Self {
        let PriceVersion { id, number, effective_at, published_at, published_by, terms, digest, .. } =
            version;
        Self { id, number, effective_at, published_at, published_by, terms, digest }
    }
}

/// What `POST /admin/v1/plans/{name}/prices` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    terms: Terms,
    from: Option<Timestamp>,
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
    let plan = plans::get(&app.db, &name).await?.into();
    let history = prices::history(&app.db, &name).await?;
    let current = history.at(app.clock.now()).map(|version| PriceVersion::clone(version).into());
    Ok(Json(Shown { plan, prices: current }).into_response())
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

/// Lists a plan's price versions, by number.
pub async fn list_prices(
    _operator: Operator,
    State(app): State<Arc<App>>,
    Path(name): Path<PlanName>,
    Query(query): Query<PageQuery>,
) -> Result<Response, Problem> {
    let listed = prices::list(&app.db, &name, query.page()?).await?;
    if listed.rows.is_empty() {
        // Prices outlive their plan; without any, only the plan can say that it is there.
        plans::get(&app.db, &name).await?;
    }
    Ok(Json(PageBody::new(listed, |version| version.number.to_string(), PricesBody::from)).into_response())
}

/// Publishes prices of a plan, which is made where there is none.
pub async fn publish(
    Operator(actor): Operator,
    State(app): State<Arc<App>>,
    Path(name): Path<PlanName>,
    Json(body): Json<Publish>,
) -> Result<Response, Problem> {
    let when = (body.from, app.config.metering.lead.get());
    let version = prices::publish(&app.db, &app.clock, actor, &name, &body.terms, when).await?;
    app.plan_changed(name.as_str());
    Ok(Json(PricesBody::from(version)).into_response())
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
