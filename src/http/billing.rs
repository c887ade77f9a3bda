//! `/billing`: what a tenant buys for itself, with a key that may ([`Buyer`]). Answers are URLs of Stripe's pages, on which people pay, or
//! what Stripe was asked to change; nothing here charges anybody.

use std::future::Future;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::caller::Buyer;
use super::extract::Json;
use super::problem::Problem;
use crate::accounts::{self, Access};
use crate::app::App;
use crate::billing::shop::{Change, Offers, Preview, Shop};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::Error;
use crate::ledger::Left;
use crate::plans::PlanName;

/// Where a tenant stands, and what it can buy.
#[derive(Debug, Serialize)]
pub struct Account {
    plan: String,
    access: Access,
    next_plan: Option<PlanName>,
    next_plan_at: Option<Timestamp>,
    has_subscription: bool,
    left: Left,
    owed: Credits,
    offers: Offers,
}

/// A page to be opened in a browser.
#[derive(Debug, Serialize)]
pub struct Page {
    url: String,
}

/// Which plan.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    plan: PlanName,
}

/// How many credits.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopUp {
    credits: Credits,
}

/// Does something that belongs together on a task of its own: a client that hangs up would end it half-way otherwise.
async fn whole<T: Send + 'static>(
    app: &App,
    work: impl Future<Output = crate::error::Result<T>> + Send + 'static,
) -> Result<T, Problem> {
    let done = app.tasks.spawn(work).await;
    let broken = |error: tokio::task::JoinError| Error::Internal(format!("a change broke off: {error}"));
    Ok(done.map_err(broken)??)
}

fn shop(app: &App) -> Result<&Shop, Problem> {
    app.shop.as_ref().ok_or_else(|| Problem::not_found("nothing is sold here: no Stripe is configured"))
}

/// Shows where the tenant stands, and what is sold.
pub async fn show(buyer: Buyer, State(app): State<Arc<App>>) -> Result<Json<Account>, Problem> {
    let offers = shop(&app)?.offers().await?;
    let overview = accounts::overview(&app.db, buyer.tenant, app.clock.now()).await?;
    let account = overview.account;
    Ok(Json(Account {
        plan: overview.plan,
        access: account.as_ref().map_or(Access::Open, |account| account.access),
        next_plan: account.as_ref().and_then(|account| account.next_plan.clone()),
        next_plan_at: account.as_ref().and_then(|account| account.next_plan_at),
        has_subscription: account.is_some_and(|account| account.subscription.is_some()),
        left: overview.left,
        owed: overview.owed,
        offers,
    }))
}

/// Opens a page on which somebody subscribes the tenant to a plan.
pub async fn checkout(
    buyer: Buyer,
    State(app): State<Arc<App>>,
    Json(wanted): Json<Plan>,
) -> Result<Json<Page>, Problem> {
    let shop = shop(&app)?.clone();
    let url = whole(&app, async move { Box::pin(shop.subscribe(buyer.tenant, &wanted.plan)).await }).await?;
    Ok(Json(Page { url }))
}

/// Opens a page on which somebody buys credits for the tenant.
pub async fn top_up(
    buyer: Buyer,
    State(app): State<Arc<App>>,
    Json(wanted): Json<TopUp>,
) -> Result<Json<Page>, Problem> {
    let url = Box::pin(shop(&app)?.top_up(buyer.tenant, wanted.credits)).await?;
    Ok(Json(Page { url }))
}

/// Opens the page on which somebody sees the tenant's invoices, changes how it pays, and cancels.
pub async fn portal(buyer: Buyer, State(app): State<Arc<App>>) -> Result<Json<Page>, Problem> {
    let url = shop(&app)?.portal(buyer.tenant).await?;
    Ok(Json(Page { url }))
}

/// Changes the tenant's plan.
pub async fn change_plan(
    buyer: Buyer,
    State(app): State<Arc<App>>,
    Json(wanted): Json<Plan>,
) -> Result<Json<Change>, Problem> {
    let (shop, lead) = (shop(&app)?.clone(), app.config.metering.lead.get());
    let change = async move { Box::pin(shop.put_on(buyer.actor, buyer.tenant, &wanted.plan, lead)).await };
    Ok(Json(whole(&app, change).await?))
}

/// Cancels the tenant's subscription: it ends with the month that is paid for.
pub async fn cancel(buyer: Buyer, State(app): State<Arc<App>>) -> Result<Json<Change>, Problem> {
    let shop = shop(&app)?.clone();
    Ok(Json(whole(&app, async move { shop.cancel(buyer.tenant).await }).await?))
}

/// Shows what would be billed if the month ended now.
pub async fn invoice(buyer: Buyer, State(app): State<Arc<App>>) -> Result<Json<Preview>, Problem> {
    Ok(Json(shop(&app)?.preview(buyer.tenant).await?))
}

/// Where people come back to from Stripe's pages. Says nothing of what they did there: that is known when Stripe says so.
pub async fn back() -> Response {
    Html(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Back</title><body style=\"font-family:sans-serif;max-width:40em;margin:4em auto;padding:0 1em\">\
         <h1>You are back</h1><p>If you paid or changed something, it holds within a moment. You can close this page.</p>",
    )
    .into_response()
}
