//! `/admin/v1/tenants/{tenant}/account`, `/periods` and `/events`: what a tenant is charged on.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::caller::Operator;
use super::super::extract::{Json, Path, Query};
use super::super::problem::Problem;
use super::{PageBody, PageQuery};
use crate::accounts::events::{Event, EventKind};
use crate::accounts::{self, Access, Overview, Period};
use crate::app::App;
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::Error;
use crate::id::{AccountEventId, PeriodId, PriceVersionId, TenantId};
use crate::ledger::Left;
use crate::plans::PlanName;
use crate::prices::Cycle;

/// A period as the API shows it.
#[derive(Debug, Serialize)]
pub struct PeriodBody {
    id: PeriodId,
    plan: PlanName,
    price_version_id: PriceVersionId,
    starts_at: Timestamp,
    ends_at: Timestamp,
    hard_cap: Option<Credits>,
    soft_cap: Option<Credits>,
    owed: Credits,
    set_aside: Credits,
    closed_at: Option<Timestamp>,
}

impl From<Period> for PeriodBody {
    fn from(period: Period) -> Self {
        Self {
            id: period.id,
            plan: period.plan,
            price_version_id: period.price_version_id,
            starts_at: period.starts_at,
            ends_at: period.ends_at,
            hard_cap: period.hard_cap,
            soft_cap: period.soft_cap,
            owed: period.overage_used,
            set_aside: period.overage_leased,
            closed_at: period.closed_at,
        }
    }
}

/// An event as the API shows it.
#[derive(Debug, Serialize)]
pub struct EventBody {
    id: AccountEventId,
    period_id: PeriodId,
    kind: EventKind,
    at: Timestamp,
    detail: Box<RawValue>,
}

impl TryFrom<Event> for EventBody {
    type Error = Problem;

    fn try_from(event: Event) -> Result<Self, Problem> {
        let detail = RawValue::from_string(event.detail).map_err(|e| Error::Internal(e.to_string()))?;
        let Event { id, period_id, kind, at, .. } = event;
        Ok(Self { id, period_id, kind, at, detail })
    }
}

/// An account as the API shows it.
#[derive(Debug, Serialize)]
pub struct Body {
    tenant_id: TenantId,
    plan: String,
    cycle: Option<Cycle>,
    spend_cap: Option<Credits>,
    access: Access,
    subscription: Option<String>,
    next_plan: Option<PlanName>,
    next_plan_at: Option<Timestamp>,
    period: Option<PeriodBody>,
    next_period: Option<PeriodBody>,
    left: Left,
    owed: Credits,
    events: Vec<EventBody>,
}

impl Body {
    fn of(tenant_id: TenantId, overview: Overview) -> Result<Self, Problem> {
        let Overview { plan, account, standing, left, owed, events } = overview;
        Ok(Self {
            tenant_id,
            plan,
            cycle: account.as_ref().map(|account| account.cycle),
            spend_cap: account.as_ref().and_then(|account| account.spend_cap),
            access: account.as_ref().map_or(Access::Open, |account| account.access),
            subscription: account.as_ref().and_then(|account| account.subscription.clone()),
            next_plan_at: account.as_ref().and_then(|account| account.next_plan_at),
            next_plan: account.and_then(|account| account.next_plan),
            period: standing.current.map(PeriodBody::from),
            next_period: standing.next.map(PeriodBody::from),
            left,
            owed,
            events: events.into_iter().map(EventBody::try_from).collect::<Result<_, _>>()?,
        })
    }
}

/// What `PUT /admin/v1/tenants/{tenant}/account` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    // Named, so that it must be there: null says that there is no cap.
    #[serde(deserialize_with = "Option::deserialize")]
    spend_cap: Option<Credits>,
}

/// Shows a tenant's account. Opens no period.
pub async fn show(
    _operator: Operator,
    State(app): State<Arc<App>>,
    Path(tenant): Path<TenantId>,
) -> Result<Response, Problem> {
    let overview = accounts::overview(&app.db, tenant, app.clock.now()).await?;
    Ok(Json(Body::of(tenant, overview)?).into_response())
}

/// Caps what the tenant may owe per period.
pub async fn put(
    Operator(actor): Operator,
    State(app): State<Arc<App>>,
    Path(tenant): Path<TenantId>,
    Json(body): Json<Put>,
) -> Result<Response, Problem> {
    accounts::set_spend_cap(&app.db, &app.clock, actor, tenant, body.spend_cap).await?;
    let overview = accounts::overview(&app.db, tenant, app.clock.now()).await?;
    Ok(Json(Body::of(tenant, overview)?).into_response())
}

/// Lists the tenant's periods, oldest first.
pub async fn periods(
    _operator: Operator,
    State(app): State<Arc<App>>,
    Path(tenant): Path<TenantId>,
    Query(query): Query<PageQuery>,
) -> Result<Response, Problem> {
    crate::tenants::get(&app.db, tenant).await?;
    let listed = accounts::periods(&app.db, tenant, query.page()?).await?;
    Ok(Json(PageBody::new(listed, |period| period.id.to_string(), PeriodBody::from)).into_response())
}

/// Lists the tenant's events, oldest first.
pub async fn events(
    _operator: Operator,
    State(app): State<Arc<App>>,
    Path(tenant): Path<TenantId>,
    Query(query): Query<PageQuery>,
) -> Result<Response, Problem> {
    crate::tenants::get(&app.db, tenant).await?;
    let listed = accounts::events::list(&app.db, tenant, query.page()?).await?;
    let PageBody { data, next_cursor } =
        PageBody::new(listed, |event: &Event| event.id.to_string(), EventBody::try_from);
    let data = data.into_iter().collect::<Result<_, Problem>>()?;
    Ok(Json(PageBody::<EventBody> { data, next_cursor }).into_response())
}
