//! Another plan, or none, for a tenant with a subscription. <https://docs.stripe.com/billing/subscriptions/change-price>

use std::collections::HashMap;
use std::time::Duration;

use miniserde::Deserialize;
use serde::Serialize;
use stripe_billing::subscription::{
    CancelSubscription, UpdateSubscription, UpdateSubscriptionItems,
    UpdateSubscriptionProrationBehavior as Proration,
};
use stripe_client::StripeRequest;

use super::super::stripe::Key;
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

impl Shop {
    /// Puts a tenant on a plan: one that costs nothing by itself at once, where there is no subscription; any other by
    /// [changing](Self::change_plan) the subscription.
    ///
    /// # Errors
    /// As [`change_plan`](Self::change_plan).
    pub async fn put_on(
        &self,
        actor: Actor,
        tenant: TenantId,
        plan: &PlanName,
        lead: Duration,
    ) -> Result<Change> {
        let version = self.offered(plan).await?;
        let (open, _) = self.subscription(tenant).await?;
        if version.terms.is_subscribed() || open.is_some() {
            return self.change_plan(tenant, plan).await;
        }
        tenants::set_plan(&self.db, &self.clock, actor, tenant, plan, lead).await?;
        Ok(Change { plan: plan.clone(), from: self.clock.now().plus(lead) })
    }

    /// Changes the plan of a tenant's subscription. To one that costs as much or more: at once, and Stripe reckons the rest of
    /// the month; to one that costs less: when the month is over, because its credits are paid for. The plan that the
    /// tenant is on already takes back what was to follow.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a plan that cannot be taken so, [`Error::Conflict`] without a subscription, [`Error::Away`] where
    /// Stripe does not answer, [`Error::Internal`], [`Error::Database`].
    pub async fn change_plan(&self, tenant: TenantId, plan: &PlanName) -> Result<Change> {
        let version = self.offered(plan).await?;
        if !version.terms.is_subscribed() {
            return Err(Error::Invalid(format!(
                "plan: {plan} needs no subscription; cancel the one there is, and take it then"
            )));
        }
        let subscription = self.subscribed(tenant).await?;
        let now = self.clock.now();
        let current = subscription.plan_at(now).unwrap_or_default().to_owned();
        let end = subscription.current_period_end.filter(|end| *end > now);
        // Where another plan is to follow, the item has its price already, and the month is paid for at the one before.
        let waits = subscription.plan_from.is_some_and(|from| from > now);
        let running = if waits { self.running(&subscription, &current).await? } else { None };
        let paid = match &running {
            Some(running) => i64::from(running.terms.base_fee),
            None => subscription.base_amount.unwrap_or(0),
        };
        let is_new = current != plan.as_str();
        let later = end.filter(|_| is_new && i64::from(version.terms.base_fee) < paid);
        if let Some(running) = running.filter(|_| is_new && later.is_none()) {
            // So that what Stripe reckons begins with what is paid for.
            let request = UpdateSubscription::new(subscription.id.as_str())
                .items(self.new_items(&subscription, &running).await?)
                .proration_behavior(Proration::None);
            self.update("the plan of a subscription cannot be changed", request).await?;
        }
        let mut marks = vec![("plan", plan.to_string())];
        match later {
            Some(end) => {
                marks.extend([("plan_before", current), ("plan_from", end.as_seconds().to_string())])
            }
            // An empty value takes one away. <https://docs.stripe.com/api/metadata>
            None => marks.extend([("plan_before", String::new()), ("plan_from", String::new())]),
        }
        let marks: Vec<_> = marks.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let proration = if later.is_none() && is_new { Proration::CreateProrations } else { Proration::None };
        let request = UpdateSubscription::new(subscription.id.as_str())
            .cancel_at_period_end(false)
            .items(self.new_items(&subscription, &version).await?)
            .proration_behavior(proration)
            .metadata(self.marks(tenant, &marks));
        self.update("the plan of a subscription cannot be changed", request).await?;
        Ok(Change { plan: plan.clone(), from: later.unwrap_or(now) })
    }

    /// The prices by which the running month of a subscription is paid.
    async fn running(&self, subscription: &Subscription, plan: &str) -> Result<Option<PriceVersion>> {
        let at = subscription.current_period_start.unwrap_or_else(|| self.clock.now());
        super::offers::version(&self.db, &plan.parse()?, at).await
    }

    /// Ends a tenant's subscription when the month that is paid for is over; what it used until then is billed. Until then
    /// [`change_plan`](Self::change_plan) to the plan that it is on takes it back.
    ///
    /// # Errors
    /// As [`change_plan`](Self::change_plan).
    pub async fn cancel(&self, tenant: TenantId) -> Result<Change> {
        let subscription = self.subscribed(tenant).await?;
        let request = UpdateSubscription::new(subscription.id.as_str()).cancel_at_period_end(true);
        self.update("a subscription cannot be cancelled", request).await?;
        let from = subscription.current_period_end.unwrap_or_else(|| self.clock.now());
        Ok(Change { plan: self.config.after_plan.parse()?, from })
    }

    /// Ends a subscription at once; what was used until now is billed, and what is left of the month is not given back.
    ///
    /// # Errors
    /// As [`change_plan`](Self::change_plan).
    pub async fn end(&self, subscription: &Subscription) -> Result<()> {
        let request = CancelSubscription::new(subscription.id.as_str()).invoice_now(true).prorate(false);
        let done = self.stripe.send_raw::<Changed>(request.build(), Key::Fresh).await;
        match done {
            Err(error) if error.is_missing() => Ok(()),
            done => done.map(drop).map_err(|error| trouble("a subscription cannot be ended", &error)),
        }
    }

    /// Gives a subscription the price that its plan has from its next month on, where it has another one. Says whether.
    ///
    /// # Errors
    /// As [`change_plan`](Self::change_plan).
    pub async fn align(&self, tenant: TenantId, subscription: &Subscription) -> Result<bool> {
        let (Some(end), Some(plan)) = (subscription.current_period_end, &subscription.plan) else {
            return Ok(false);
        };
        if subscription.cancel_at_period_end || subscription.cancel_at.is_some() {
            return Ok(false);
        }
        let Some(version) = super::offers::version(&self.db, &plan.parse()?, end).await? else {
            return Ok(false);
        };
        if i64::from(version.terms.base_fee) == subscription.base_amount.unwrap_or(0) {
            return Ok(false);
        }
        tracing::info!(%tenant, plan, base_fee = version.terms.base_fee, "a subscription gets the price of its plan");
        let request = UpdateSubscription::new(subscription.id.as_str())
            .items(self.new_items(subscription, &version).await?)
            .proration_behavior(Proration::None);
        self.update("a subscription cannot get another price", request).await?;
        Ok(true)
    }

    async fn update(&self, what: &str, request: UpdateSubscription) -> Result<()> {
        let done = self.stripe.send_raw::<Changed>(request.build(), Key::Fresh).await;
        done.map(drop).map_err(|error| trouble(what, &error))
    }

    /// What is to be done to the items of a subscription so that they are those of a plan.
    async fn new_items(
        &self,
        subscription: &Subscription,
        version: &PriceVersion,
    ) -> Result<Vec<UpdateSubscriptionItems>> {
        let wanted: HashMap<bool, (String, Option<u64>)> =
            self.items(version).await?.into_iter().map(|item| (item.1.is_none(), item)).collect();
        let there = [
            (false, subscription.base_item.as_deref(), subscription.base_price.as_deref()),
            (true, subscription.metered_item.as_deref(), None),
        ];
        let mut items = Vec::new();
        for (is_metered, item, price) in there {
            let mut change = UpdateSubscriptionItems::new();
            match (item, wanted.get(&is_metered)) {
                (None, None) => continue,
                // What is used goes on being billed by the price that it has; what was used before a change, too.
                (Some(_), _) if is_metered => continue,
                (Some(_), Some((wanted, _))) if price == Some(wanted.as_str()) => continue,
                (Some(item), Some((wanted, quantity))) => {
                    change.id = Some(item.to_owned());
                    (change.price, change.quantity) = (Some(wanted.clone()), *quantity);
                }
                (Some(item), None) => {
                    change.id = Some(item.to_owned());
                    change.deleted = Some(true);
                }
                (None, Some((wanted, quantity))) => {
                    (change.price, change.quantity) = (Some(wanted.clone()), *quantity);
                }
            }
            items.push(change);
        }
        Ok(items)
    }
}
