//! The shop: what tenants buy for themselves. Nothing here charges anybody: it hands out URLs of Stripe's pages, on which people
//! pay, and asks Stripe to change subscriptions that somebody pays for. What follows from it is known when Stripe says so
//! ([`super::consequences`]).

mod adjust;
mod checkout;
mod left;
mod now;
mod offers;
mod plan_change;
mod preview;

use crate::clock::Clock;
use crate::config;
use crate::db::mirror::subscriptions::{self, Subscription};
use crate::db::{self, Db};
use crate::error::{Error, Result, STRIPE};
use crate::id::TenantId;

use super::customers;
use super::report::Problem;
use super::setup::Site;
use super::stripe::{Stripe, StripeError};

pub use adjust::{Adjust, Adjustment, Back};
pub use offers::{Offer, Offers};
pub use plan_change::Change;
pub use preview::{Line, Preview};

/// Subscriptions of a tenant that are looked at: it has one at a time.
const MOST: i64 = 100;

/// What is sold, and where.
#[derive(Clone)]
pub struct Shop {
    /// The ledger.
    pub db: Db,
    /// The time.
    pub clock: Clock,
    /// The account at Stripe.
    pub stripe: Stripe,
    /// `[billing]`.
    pub config: config::Billing,
    /// Where Weir is.
    pub public_url: String,
}

impl Shop {
    fn site(&self) -> Site<'_> {
        Site { stripe: &self.stripe, config: &self.config, public_url: &self.public_url, may_change: true }
    }

    /// Where people come back to.
    fn return_url(&self) -> String {
        match self.config.return_url.as_str() {
            "" => format!("{}/billing/return", self.public_url),
            url => url.to_owned(),
        }
    }

    /// The tenant's customer at Stripe; made where there is none.
    async fn customer(&self, tenant: TenantId) -> Result<String> {
        customers::make(&self.db, &self.clock, &self.stripe, &self.config, tenant).await?;
        db::exports::customer(&self.db, tenant)
            .await?
            .ok_or_else(|| Error::Internal("a customer is gone as soon as it is made".to_owned()))
    }

    /// The subscription that the tenant has by the mirror, if it has one; and whether it ever had any.
    async fn subscription(&self, tenant: TenantId) -> Result<(Option<Subscription>, bool)> {
        let all = subscriptions::of_tenant(&self.db, tenant, MOST).await?;
        let ever = all.iter().any(|known| known.object.has_begun());
        Ok((all.into_iter().map(|known| known.object).find(Subscription::is_open), ever))
    }

    /// The same, where there must be one.
    async fn subscribed(&self, tenant: TenantId) -> Result<Subscription> {
        let (open, _) = self.subscription(tenant).await?;
        open.ok_or_else(no_subscription)
    }
}

fn no_subscription() -> Error {
    Error::Conflict("this tenant has no subscription; POST /billing/checkout begins one".to_owned())
}

/// What went wrong at Stripe, in terms of ours: where it may help to come again later, that is said.
fn trouble(what: &str, error: &StripeError) -> Error {
    let is_away = error.status.is_none_or(|status| status >= 500 || status == 429);
    tracing::warn!(what, %error, "Stripe did not do it");
    if is_away { Error::Away(STRIPE) } else { Error::Internal(format!("{what}: {error}")) }
}

fn problem(what: &str, Problem(text): &Problem) -> Error {
    Error::Internal(format!("{what}: {text}"))
}
