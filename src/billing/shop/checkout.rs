//! Checkout: Stripe's page on which somebody pays, for a subscription or for credits. <https://docs.stripe.com/api/checkout/sessions>

use std::collections::HashMap;

use miniserde::Deserialize;
use stripe_billing::billing_portal_session::CreateBillingPortalSession;
use stripe_checkout::checkout_session::{
    CreateCheckoutSession, CreateCheckoutSessionAutomaticTax, CreateCheckoutSessionCustomerUpdate,
    CreateCheckoutSessionCustomerUpdateAddress, CreateCheckoutSessionInvoiceCreation,
    CreateCheckoutSessionLineItems, CreateCheckoutSessionLineItemsPriceData,
    CreateCheckoutSessionPaymentIntentData, CreateCheckoutSessionSubscriptionData, ExpireCheckoutSession,
    ListCheckoutSession, ProductData,
};
use stripe_client::StripeRequest;
use stripe_shared::{CheckoutSessionMode, CheckoutSessionStatus};
use stripe_types::Currency;

use super::super::setup::{MARK, plan, portal, price};
use super::super::stripe::Key;
use super::{Shop, problem, trouble};
use crate::credits::Credits;
use crate::db;
use crate::db::top_ups::TopUp;
use crate::error::{Error, Result};
use crate::id::{TenantId, TopUpId};
use crate::plans::PlanName;
use crate::prices::PriceVersion;

/// What is read of a session, of Checkout or of the portal.
#[derive(Deserialize)]
struct Session {
    id: String,
    url: Option<String>,
}

#[derive(Deserialize)]
struct Sessions {
    data: Vec<OpenSession>,
}

#[derive(Deserialize)]
struct OpenSession {
    id: String,
    mode: String,
}

impl Shop {
    /// A page on which somebody subscribes a tenant to a plan; sessions that were opened for that before are closed, so that nobody
    /// subscribes twice. Stripe forgets it after a day.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a plan that cannot be taken so, [`Error::Conflict`] where the tenant has a subscription or changes one,
    /// [`Error::Away`] where Stripe does not answer, [`Error::NotFound`], [`Error::Internal`], [`Error::Database`].
    pub async fn subscribe(&self, tenant: TenantId, plan: &PlanName) -> Result<String> {
        let version = self.offered(plan).await?;
        if !version.terms.is_subscribed() {
            return Err(Error::Invalid(format!(
                "plan: {plan} needs no subscription; PUT /billing/plan puts the tenant on it"
            )));
        }
        let claim = self.claim(tenant).await?;
        let done = self.subscribe_alone(tenant, &version).await;
        self.let_go(claim).await;
        done
    }

    async fn subscribe_alone(&self, tenant: TenantId, version: &PriceVersion) -> Result<String> {
        let customer = self.customer(tenant).await?;
        self.close_open(&customer).await?;
        // After the pages are closed: what was paid for on one of them before is there by now.
        if self.going_on(tenant).await?.is_some() {
            let text = "this tenant has a subscription; PUT /billing/plan changes its plan";
            return Err(Error::Conflict(text.to_owned()));
        }
        let (_, ever) = self.subscription(tenant).await?;
        let request = self.subscription_request(tenant, &customer, version, ever).await?;
        self.page("a subscription cannot be offered", request).await.map(|session| session.1)
    }

    async fn subscription_request(
        &self,
        tenant: TenantId,
        customer: &str,
        version: &PriceVersion,
        had_one: bool,
    ) -> Result<CreateCheckoutSession> {
        let items = self.items(version).await?;
        let lines = items.into_iter().map(|(price, quantity)| {
            let mut line = CreateCheckoutSessionLineItems::new();
            (line.price, line.quantity) = (Some(price), quantity);
            line
        });
        let mut data = CreateCheckoutSessionSubscriptionData::new();
        data.metadata = Some(self.marks(tenant, &[("plan", version.plan.as_str())]));
        let trial = version.terms.trial_days;
        data.trial_period_days = (trial > 0 && !had_one).then_some(trial);
        Ok(self
            .session(tenant, customer)
            .mode(CheckoutSessionMode::Subscription)
            .line_items(lines.collect::<Vec<_>>())
            .subscription_data(data)
            .metadata(self.marks(tenant, &[("plan", version.plan.as_str())])))
    }

    /// The prices that a subscription to a plan consists of, and how many of each: what the month costs, and what is used.
    pub(super) async fn items(&self, version: &PriceVersion) -> Result<Vec<(String, Option<u64>)>> {
        let site = self.site();
        let mut items = Vec::new();
        if version.terms.base_fee > 0 {
            let price = plan::ensure(&site, &version.plan, version.terms.base_fee).await;
            items.push((price.map_err(|error| problem("a plan has no price at Stripe", &error))?, Some(1)));
        }
        if version.terms.kind.may_owe() {
            let found = price::find(&site, &self.config.credits_name()).await;
            let found = found.map_err(|error| problem("the price of a credit cannot be found", &error))?;
            let missing =
                || Error::Internal("there is no price of a credit; run `weir billing setup`".to_owned());
            items.push((found.ok_or_else(missing)?.id.as_str().to_owned(), None));
        }
        Ok(items)
    }

    /// A page on which somebody buys credits for a tenant, in one of the sizes of `billing.top_ups`. They are granted once, when
    /// that is paid.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another size; the rest as [`subscribe`](Self::subscribe).
    pub async fn top_up(&self, tenant: TenantId, credits: Credits) -> Result<String> {
        let Some(size) = self.config.top_ups.iter().find(|size| size.credits == credits) else {
            let sizes: Vec<_> = self.config.top_ups.iter().map(|size| size.credits.to_string()).collect();
            return Err(Error::Invalid(match sizes.as_slice() {
                [] => "credits: none are sold here".to_owned(),
                sizes => format!("credits: expected one of {}", sizes.join(", ")),
            }));
        };
        let customer = self.customer(tenant).await?;
        let (id, now) = (TopUpId::new(), self.clock.now());
        let amount = i64::from(size.amount);
        let top_up = TopUp { id, tenant_id: tenant, credits, amount, currency: self.config.currency.clone() };
        db::top_ups::insert(&self.db, &top_up, now).await?;
        let marks = self.marks(tenant, &[("topup", &id.to_string())]);
        // Parsing never fails: what the crate does not know goes out as it is.
        let Ok(currency) = self.config.currency.parse::<Currency>();
        let mut price = CreateCheckoutSessionLineItemsPriceData::new(currency);
        price.product_data = Some(ProductData::new(format!("{credits} credits")));
        price.unit_amount = Some(amount);
        let mut line = CreateCheckoutSessionLineItems::new();
        (line.price_data, line.quantity) = (Some(price), Some(1));
        let mut payment = CreateCheckoutSessionPaymentIntentData::new();
        payment.metadata = Some(marks.clone());
        let request = self
            .session(tenant, &customer)
            .mode(CheckoutSessionMode::Payment)
            .line_items(vec![line])
            .payment_intent_data(payment)
            .invoice_creation(CreateCheckoutSessionInvoiceCreation::new(true))
            .metadata(marks);
        self.page("credits cannot be offered", request).await.map(|session| session.1)
    }

    /// Stripe's page on which a customer sees its invoices, changes how it pays, and cancels.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub async fn portal(&self, tenant: TenantId) -> Result<String> {
        let customer = self.customer(tenant).await?;
        let found = portal::find(&self.site()).await;
        let found = found.map_err(|error| problem("the portal cannot be found", &error))?;
        let missing = || Error::Internal("there is no portal; run `weir billing setup`".to_owned());
        let request = CreateBillingPortalSession::new()
            .customer(customer)
            .configuration(found.ok_or_else(missing)?.id.as_str())
            .return_url(self.return_url());
        let session = self.stripe.send_raw::<Session>(request.build(), Key::Fresh).await;
        let session = session.map_err(|error| trouble("the portal cannot be opened", &error))?;
        session.url.ok_or_else(|| Error::Internal("a session of the portal has no URL".to_owned()))
    }

    fn session(&self, tenant: TenantId, customer: &str) -> CreateCheckoutSession {
        let back = self.return_url();
        let session = CreateCheckoutSession::new()
            .customer(customer)
            .client_reference_id(tenant.to_string())
            .success_url(back.as_str())
            .cancel_url(back.as_str());
        if !self.config.automatic_tax {
            return session;
        }
        // Tax is by where somebody lives, which they say on the page. <https://docs.stripe.com/tax/checkout>
        let mut update = CreateCheckoutSessionCustomerUpdate::new();
        update.address = Some(CreateCheckoutSessionCustomerUpdateAddress::Auto);
        session.automatic_tax(CreateCheckoutSessionAutomaticTax::new(true)).customer_update(update)
    }

    async fn page(&self, what: &str, request: CreateCheckoutSession) -> Result<(String, String)> {
        let session = self.stripe.send_raw::<Session>(request.build(), Key::Fresh).await;
        let session = session.map_err(|error| trouble(what, &error))?;
        let url = session.url.ok_or_else(|| Error::Internal(format!("{what}: the page has no URL")))?;
        Ok((session.id, url))
    }

    /// Closes the pages on which the tenant could subscribe. One on which somebody paid in this moment cannot be closed any more.
    async fn close_open(&self, customer: &str) -> Result<()> {
        let request =
            ListCheckoutSession::new().customer(customer).status(CheckoutSessionStatus::Open).limit(100);
        let open = self.stripe.send_raw::<Sessions>(request.build(), Key::Fresh).await;
        let open = open.map_err(|error| trouble("pages of Checkout cannot be listed", &error))?;
        for session in open.data.into_iter().filter(|session| session.mode == "subscription") {
            let request = ExpireCheckoutSession::new(session.id);
            match self.stripe.send_raw::<OpenSession>(request.build(), Key::Fresh).await {
                Err(error) if error.status == Some(400) => {
                    let text = "somebody is paying for a subscription of this tenant; look again in a minute";
                    return Err(Error::Conflict(text.to_owned()));
                }
                Err(error) => return Err(trouble("a page of Checkout cannot be closed", &error)),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    pub(super) fn marks(&self, tenant: TenantId, more: &[(&str, &str)]) -> HashMap<String, String> {
        let own = [(MARK.to_owned(), self.config.prefix.clone()), ("tenant".to_owned(), tenant.to_string())];
        own.into_iter()
            .chain(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
            .collect()
    }
}
