//! Customers: who Stripe bills for a tenant. Made when a tenant first owes something.
//! <https://docs.stripe.com/api/customers>

use std::collections::HashMap;

use stripe_core::customer::CreateCustomer;

use super::setup::MARK;
use super::stripe::{Key, Stripe};
use crate::clock::Clock;
use crate::config;
use crate::db::{self, Db};
use crate::error::{Error, Result};
use crate::id::TenantId;
use crate::tenants;

/// Where the id of our own customer stands, whom nobody bills.
const CANARY: &str = "billing.canary";
/// Where it stands whether the money is real.
const MODE: &str = "billing.mode";

/// Makes sure that this database belongs to this mode of Stripe: its customers and what was told of them are of one mode, and
/// mean nothing in the other one.
///
/// # Errors
/// [`Error::Invalid`] where it belongs to the other mode; [`Error::Database`], [`Error::Away`].
pub async fn check_mode(db: &Db, stripe: &Stripe) -> Result<()> {
    let mode = if stripe.is_live() { "live" } else { "test" };
    let before = db::settings::get_or_insert(db, MODE, mode).await?;
    if before == mode {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "billing.stripe_key: it is of {mode} mode, and this database has customers of {before} mode; use the other \
         key, or another database"
    )))
}

/// The customer of our own, to whom events are sent to see how far Stripe has counted. Made where there is none.
///
/// # Errors
/// [`Error::Internal`] with Stripe's words where it cannot be made; [`Error::Database`], [`Error::Away`].
pub async fn canary(db: &Db, stripe: &Stripe, config: &config::Billing) -> Result<String> {
    if let Some(id) = db::settings::get(db, CANARY).await? {
        return Ok(id);
    }
    let request = CreateCustomer::new()
        .name("Weir, to see what is counted")
        .metadata(HashMap::from([(MARK.to_owned(), format!("{}_canary", config.prefix))]));
    let id = made(stripe, &request, &format!("{}_canary", config.prefix)).await?;
    // Another process may have made one meanwhile, with the same key and so the same customer.
    db::settings::get_or_insert(db, CANARY, &id).await
}

/// Makes a customer for a tenant, unless it has one.
///
/// Whoever dies between making and noting it makes it again: within a day Stripe gives the same one, and later another, of whom
/// nothing will ever be asked.
///
/// # Errors
/// As [`canary`]; [`Error::NotFound`] without the tenant.
pub async fn make(
    db: &Db,
    clock: &Clock,
    stripe: &Stripe,
    config: &config::Billing,
    tenant: TenantId,
) -> Result<()> {
    if db::exports::customer(db, tenant).await?.is_some() {
        return Ok(());
    }
    let name = tenants::get(db, tenant).await?.name;
    // Customers hang on accounts; who buys before calling anything has none yet.
    let mut tx = db.begin().await?;
    db::tenants::lock(&mut tx, tenant).await?.ok_or(Error::NotFound("tenant"))?;
    db::accounts::lock_or_make(&mut tx, tenant, clock.now()).await?;
    tx.commit().await?;
    let marks = [(MARK.to_owned(), config.prefix.clone()), ("tenant".to_owned(), tenant.to_string())];
    let request = CreateCustomer::new().name(name).metadata(HashMap::from(marks));
    let id = made(stripe, &request, &format!("{}_{tenant}", config.prefix)).await?;
    db::exports::insert_customer(db, tenant, &id, clock.now()).await.map(|_| ())
}

async fn made(stripe: &Stripe, request: &CreateCustomer, who: &str) -> Result<String> {
    let key = format!("customer_{who}");
    let customer = match stripe.send(request, Key::Named(&key)).await {
        // It would say so for a day.
        Err(error) if error.replayed => stripe.send(request, Key::Fresh).await,
        customer => customer,
    };
    customer
        .map(|customer| customer.id.as_str().to_owned())
        .map_err(|error| Error::Internal(format!("a customer cannot be made: {error}")))
}
