//! Another plan, or none, for a tenant with a subscription. <https://docs.stripe.com/billing/subscriptions/change-price>

use std::time::Duration;

use miniserde::Deserialize;
use serde::Serialize;
use stripe_billing::subscription::{
    CancelSubscription, UpdateSubscription, UpdateSubscriptionItems,
    UpdateSubscriptionProrationBehavior as Proration,
};
use stripe_client::{RequestBuilder, StripeRequest};

use super::super::mirror::{Current, Paid};
use super::super::stripe::{Key, StripeError};
use super::now::Claim;
use super::{Shop, trouble};
use crate::audit::Actor;
use crate::clock::Timestamp;
use crate::db::mirror::subscriptions::Subscription;
use crate::error::{Error, Result};
use crate::id::TenantId;
use crate::plans::PlanName;
use crate::prices::PriceVersion;
use crate::tenants;

/// What was asked of Stripe.
#[derive(Debug, Clone, Serialize)]
pub struct Change {
    /// The plan that the tenant will be on.
    pub plan: PlanName,
    /// From when on.
    pub from: Timestamp,
}

#[derive(Deserialize)]
struct Changed {
    #[expect(dead_code, reason = "that it is there says that it is a subscription")]
    id: String,
}

/// The prices that a subscription's items are to have.
#[derive(Default)]
struct Wanted {
    base: Option<String>,
    metered: Option<String>,
}

impl Shop {
    /// Puts a tenant on a plan: one that costs nothing by itself at once, where there is no subscription; any other by changing the
    /// subscription. To a plan that costs as much or more: at once, and Stripe reckons the rest of the month; to one that costs less:
    /// when the month is over, because its credits are paid for. The plan that the tenant is on already takes back what was to
    /// follow.
    ///
    /// Several requests to Stripe may belong together: whoever waits for this should not be able to drop it half-way.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a plan that cannot be taken so, [`Error::Conflict`] without a subscription or while another change is
    /// under way, [`Error::Away`] where Stripe does not answer, [`Error::Internal`], [`Error::Database`].
    pub async fn put_on(
        &self,
        actor: Actor,
        tenant: TenantId,
        plan: &PlanName,
        lead: Duration,
    ) -> Result<Change> {
        let version = self.offered(plan).await?;
        let claim = self.claim(tenant).await?;
        let done = self.put_on_alone((actor, tenant), &version, lead, &claim).await;
        self.let_go(claim).await;
        done
    }

    async fn put_on_alone(
        &self,
        (actor, tenant): (Actor, TenantId),
        version: &PriceVersion,
        lead: Duration,
        claim: &Claim,
    ) -> Result<Change> {
        let current = self.going_on(tenant).await?;
        match current {
            Some(_) if !version.terms.is_subscribed() => Err(Error::Invalid(format!(
                "plan: {} needs no subscription; cancel the one there is, and take it then",
                version.plan
            ))),
            Some(current) => Box::pin(self.change_plan(tenant, &current, version, claim)).await,
            None if version.terms.is_subscribed() => Err(super::no_subscription()),
            None => {
                tenants::set_plan(&self.db, &self.clock, actor, tenant, &version.plan, lead).await?;
                Ok(Change { plan: version.plan.clone(), from: self.clock.now().plus(lead) })
            }
        }
    }

    async fn change_plan(
        &self,
        tenant: TenantId,
        current: &Current,
        version: &PriceVersion,
        claim: &Claim,
    ) -> Result<Change> {
        let (now, subscription) = (self.clock.now(), &current.subscription);
        let before = subscription.plan_at(now).unwrap_or_default();
        let end = subscription.current_period_end.filter(|end| *end > now);
        let paid = current.paid_at(now);
        let is_new = before != version.plan.as_str();
        let later = end.filter(|_| is_new && i64::from(version.terms.base_fee) < paid.amount);
        let is_prorated = is_new && later.is_none();
        let wanted = self.wanted(version).await?;
        let mut marks = vec![("plan", version.plan.to_string())];
        // An empty value takes one away. <https://docs.stripe.com/api/metadata>
        let (plan_before, from) = match later {
            Some(end) => (before.to_owned(), end.as_seconds().to_string()),
            None => Default::default(),
        };
        marks.extend([("plan_before", plan_before), ("plan_from", from)]);
        let is_paid = is_prorated || wanted.base == paid.price;
        marks.extend(noted(Some(&paid).filter(|_| !is_paid)));
        let marks: Vec<_> = marks.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let marks = self.marks(tenant, &marks);
        // Where the items have the price of the next month already, they get the one of this month first, so that what Stripe
        // reckons begins with what is paid for.
        let mut begun = subscription.clone();
        if is_prorated && subscription.base_price != paid.price {
            begun = self.repriced(subscription, paid.price.clone(), claim).await?;
        }
        let mut request = with_prices(&begun, &wanted)
            .proration_behavior(if is_prorated { Proration::CreateProrations } else { Proration::None })
            .metadata(marks);
        if subscription.cancel_at_period_end {
            request = request.cancel_at_period_end(false);
        }
        let mut request = request.build();
        if subscription.cancel_at.is_some() && !subscription.cancel_at_period_end {
            unset(&mut request, "cancel_at");
        }
        self.held(claim).await?;
        if let Err(error) = self.stripe.send_raw::<Changed>(request, Key::Fresh).await {
            if begun.base_price != subscription.base_price {
                self.put_back(tenant, &begun, claim).await;
            }
            return Err(trouble("the plan of a subscription cannot be changed", &error));
        }
        Ok(Change { plan: version.plan.clone(), from: later.unwrap_or(now) })
    }

    /// Gives a subscription another price of its base fee, of which nothing is reckoned. The subscription after it.
    async fn repriced(
        &self,
        subscription: &Subscription,
        price: Option<String>,
        claim: &Claim,
    ) -> Result<Subscription> {
        self.held(claim).await?;
        let wanted = Wanted { base: price.clone(), metered: None };
        let request = with_prices(subscription, &wanted).proration_behavior(Proration::None);
        self.update(request).await.map_err(|error| trouble("a price cannot be taken back", &error))?;
        let base_item = subscription.base_item.clone().filter(|_| price.is_some());
        Ok(Subscription { base_price: price, base_item, ..subscription.clone() })
    }

    /// A change failed half-way: the items get back the price that they had, unless it happened after all. Where that cannot be done
    /// either, [`align`](Self::align) does it later.
    async fn put_back(&self, tenant: TenantId, begun: &Subscription, claim: &Claim) {
        let done = async {
            let now = self.needed(tenant).await?.subscription;
            if now.id != begun.id || now.base_price != begun.base_price {
                return Ok(());
            }
            let Some(version) = self.next_version(&now).await? else { return Ok(()) };
            let price = self.wanted(&version).await?.base;
            self.repriced(&now, price, claim).await.map(drop)
        };
        if let Err(error) = Box::pin(done).await {
            tracing::error!(%tenant, %error, "a change of plan failed half-way, and is put back later");
        }
    }

    /// Ends a tenant's subscription when the month that is paid for is over; what it used until then is billed. Until then
    /// [`put_on`](Self::put_on) the plan that it is on takes it back.
    ///
    /// # Errors
    /// As [`put_on`](Self::put_on).
    pub async fn cancel(&self, tenant: TenantId) -> Result<Change> {
        let claim = self.claim(tenant).await?;
        let done = self.cancel_alone(tenant, &claim).await;
        self.let_go(claim).await;
        done
    }

    async fn cancel_alone(&self, tenant: TenantId, claim: &Claim) -> Result<Change> {
        let subscription = self.needed(tenant).await?.subscription;
        let plan = self.config.after_plan.parse()?;
        // One that ends at a time has been cancelled before, in Stripe's portal or its dashboard.
        if let Some(from) = subscription.cancel_at {
            return Ok(Change { plan, from });
        }
        self.held(claim).await?;
        let request = UpdateSubscription::new(subscription.id.as_str()).cancel_at_period_end(true);
        self.update(request).await.map_err(|error| trouble("a subscription cannot be cancelled", &error))?;
        Ok(Change { plan, from: subscription.current_period_end.unwrap_or_else(|| self.clock.now()) })
    }

    /// Ends a subscription at once; what was used until now is billed, and what is left of the month is not given back.
    ///
    /// # Errors
    /// As [`put_on`](Self::put_on).
    pub async fn end(&self, subscription: &Subscription) -> Result<()> {
        let request = CancelSubscription::new(subscription.id.as_str()).invoice_now(true).prorate(false);
        let done = self.stripe.send_raw::<Changed>(request.build(), Key::Fresh).await;
        match done {
            Err(error) if error.is_missing() => Ok(()),
            done => done.map(drop).map_err(|error| trouble("a subscription cannot be ended", &error)),
        }
    }

    /// Gives a subscription what its plan will cost from its next month on, where it has something else: another base fee, or the
    /// price of credits beyond those that are included. One whose plan will need no subscription ends with the month. Says whether
    /// anything was changed.
    ///
    /// The price of credits is never taken away: it bills what was used before, and nothing where nothing may be owed.
    ///
    /// # Errors
    /// As [`put_on`](Self::put_on).
    pub async fn align(&self, tenant: TenantId, subscription: &Subscription) -> Result<bool> {
        // By the mirror first: all is well nearly always, and that is seen without asking Stripe.
        if self.misaligned(subscription).await?.is_none() {
            return Ok(false);
        }
        let claim = match self.claim(tenant).await {
            // Somebody changes it at this moment: there will be another time.
            Err(Error::Conflict(_)) => return Ok(false),
            claim => claim?,
        };
        let done = self.align_alone(tenant, subscription, &claim).await;
        self.let_go(claim).await;
        done
    }

    async fn align_alone(&self, tenant: TenantId, known: &Subscription, claim: &Claim) -> Result<bool> {
        let Some(current) = self.going_on(tenant).await?.filter(|it| it.subscription.id == known.id) else {
            return Ok(false);
        };
        let subscription = &current.subscription;
        let Some(version) = self.misaligned(subscription).await? else { return Ok(false) };
        let (plan, base_fee) = (version.plan.as_str(), version.terms.base_fee);
        let request = if version.terms.is_subscribed() {
            tracing::info!(%tenant, plan, base_fee, "a subscription gets the prices of its plan");
            let (paid, wanted) = (current.paid_at(self.clock.now()), self.wanted(&version).await?);
            let marks = noted(Some(&paid).filter(|paid| wanted.base != paid.price));
            let marks: Vec<_> = marks.iter().map(|(key, value)| (*key, value.as_str())).collect();
            with_prices(subscription, &wanted)
                .proration_behavior(Proration::None)
                .metadata(self.marks(tenant, &marks))
        } else {
            tracing::info!(%tenant, plan, "a plan needs no subscription any more: it ends with the month");
            UpdateSubscription::new(subscription.id.as_str()).cancel_at_period_end(true)
        };
        self.held(claim).await?;
        self.update(request).await.map_err(|error| trouble("a subscription cannot be aligned", &error))?;
        Ok(true)
    }

    /// The prices that a subscription should have from its next month on, where it has others.
    async fn misaligned(&self, subscription: &Subscription) -> Result<Option<PriceVersion>> {
        if subscription.cancel_at_period_end || subscription.cancel_at.is_some() {
            return Ok(None);
        }
        let version = self.next_version(subscription).await?;
        Ok(version.filter(|version| {
            let lacks_price = version.terms.kind.may_owe() && subscription.metered_item.is_none();
            let costs = i64::from(version.terms.base_fee);
            lacks_price || costs != subscription.base_amount.unwrap_or(0) || !version.terms.is_subscribed()
        }))
    }

    /// The prices of a subscription's plan when its next month begins.
    async fn next_version(&self, subscription: &Subscription) -> Result<Option<PriceVersion>> {
        match (subscription.current_period_end, &subscription.plan) {
            (Some(end), Some(plan)) => super::offers::version(&self.db, &plan.parse()?, end).await,
            _ => Ok(None),
        }
    }

    async fn wanted(&self, version: &PriceVersion) -> Result<Wanted> {
        let mut wanted = Wanted::default();
        for (price, quantity) in self.items(version).await? {
            // What is used has no quantity.
            *(if quantity.is_some() { &mut wanted.base } else { &mut wanted.metered }) = Some(price);
        }
        Ok(wanted)
    }

    async fn update(&self, request: UpdateSubscription) -> Result<(), StripeError> {
        self.stripe.send_raw::<Changed>(request.build(), Key::Fresh).await.map(drop)
    }
}

impl Current {
    /// What the month that runs is paid for with: what was noted when its items got another price, or else what they have.
    fn paid_at(&self, now: Timestamp) -> Paid {
        let subscription = &self.subscription;
        self.paid.clone().filter(|paid| paid.until > now).unwrap_or_else(|| Paid {
            until: subscription.current_period_end.unwrap_or(now),
            price: subscription.base_price.clone(),
            amount: subscription.base_amount.unwrap_or(0),
        })
    }
}

/// What is noted at a subscription of what its month is paid for with; nothing takes away what was noted before.
fn noted(paid: Option<&Paid>) -> [(&'static str, String); 3] {
    let (until, price, amount) = paid.map_or_else(Default::default, |paid| {
        let price = paid.price.clone().unwrap_or_default();
        (paid.until.as_seconds().to_string(), price, paid.amount.to_string())
    });
    [("paid_until", until), ("paid_price", price), ("paid_amount", amount)]
}

/// Clears a parameter, for which the crates have no value. <https://docs.stripe.com/api/subscriptions/update>
fn unset(request: &mut RequestBuilder, name: &str) {
    let body = request.body.get_or_insert_default();
    if !body.is_empty() {
        body.push('&');
    }
    body.push_str(name);
    body.push('=');
}

/// What gives the items of a subscription these prices. What is used goes on being billed by the price that it has; what was used
/// before a change, too.
fn with_prices(subscription: &Subscription, wanted: &Wanted) -> UpdateSubscription {
    let mut changes = Vec::new();
    let mut base = UpdateSubscriptionItems::new();
    base.id = subscription.base_item.clone();
    match (&subscription.base_item, &wanted.base) {
        (Some(_), None) => base.deleted = Some(true),
        (_, Some(price)) => (base.price, base.quantity) = (Some(price.clone()), Some(1)),
        (None, None) => {}
    }
    if subscription.base_price != wanted.base {
        changes.push(base);
    }
    if let (None, Some(price)) = (&subscription.metered_item, &wanted.metered) {
        let mut metered = UpdateSubscriptionItems::new();
        metered.price = Some(price.clone());
        changes.push(metered);
    }
    let request = UpdateSubscription::new(subscription.id.as_str());
    // An empty list would go out as an empty value, which is refused.
    if changes.is_empty() { request } else { request.items(changes) }
}
