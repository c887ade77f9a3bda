//! What follows from what Stripe says: a tenant's plan and months from its subscription, what it may still do from its unpaid
//! invoices, credits from what it paid for. Everything is a function of the mirror as it is now, read under the account's lock:
//! events in any order, and twice, come to the same.

mod decide;
mod invoices;
#[cfg(test)]
mod tests;

use std::time::Duration;

use decide::{Money, Policy, decide};

use super::export::SINCE;
use super::mirror::{Customer, Fetched};
use crate::accounts::grants::{self, GrantKind, NewGrant};
use crate::accounts::{self, Wanted};
use crate::audit::{Actor, By};
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::db::invoice_proofs::InvoiceVerdict;
use crate::db::mirror::charges::{self, Charge};
use crate::db::mirror::checkouts::{self, Checkout};
use crate::db::mirror::{self, invoices as mirrored, subscriptions};
use crate::db::tenants::Tenant;
use crate::db::{self, Db, Tx};
use crate::error::{Error, Result, bearable};
use crate::id::TenantId;
use crate::plans;
use crate::telemetry::billing::Billing as Metrics;

/// Subscriptions of a tenant that are looked at, newest first; charges of a payment.
const MOST: i64 = 100;
/// Tenants that are asked for at once.
const BATCH: i64 = 200;

/// For what a grant of bought credits was given.
fn source(top_up: &str) -> String {
    format!("top_up:{top_up}")
}

/// Makes of what Stripe says what it means here.
#[derive(Clone)]
pub struct Follower {
    /// The ledger, and the mirror.
    pub db: Db,
    /// The time.
    pub clock: Clock,
    /// `[billing]`.
    pub config: config::Billing,
    /// How long before other prices hold everybody must have heard of them.
    pub lead: Duration,
    /// Counts.
    pub metrics: Metrics,
}

impl Follower {
    /// What follows from an object's being so, after the mirror has it and before the events about it are done: where this fails,
    /// all of it comes again, so it does no harm twice. Another process may have asked later meanwhile: what matters is
    /// read from the mirror, under the lock under which it is acted on.
    ///
    /// # Errors
    /// Whatever keeps it from being done; the events are tried again.
    pub async fn follow(&self, tenant: TenantId, fetched: &Fetched, at: Timestamp) -> Result<()> {
        match fetched {
            Fetched::Subscription(_) => self.account(tenant).await,
            Fetched::Invoice(invoice) => {
                self.invoice(tenant, invoice).await?;
                self.account(tenant).await
            }
            Fetched::Checkout(checkout) => Box::pin(self.checkout(tenant, checkout)).await,
            Fetched::Charge(charge) => {
                self.charge(tenant, charge).await?;
                self.account(tenant).await
            }
            Fetched::Customer(Customer { id, deleted }) => {
                if *deleted && mirror::customer_deleted(&self.db, id, at).await? {
                    // What was told of it cannot be billed any more, and telling it again of another customer might bill it
                    // twice: no new customer is made unasked.
                    tracing::error!(
                        %tenant,
                        customer = id,
                        "a customer was deleted at Stripe: what its tenant owes can no longer be billed; somebody has to look"
                    );
                }
                Ok(())
            }
        }
    }

    /// Makes a tenant's account what it is to be, and says in the log where that is not known: nobody reads why an event is tried again.
    async fn account(&self, tenant: TenantId) -> Result<()> {
        let done = Box::pin(self.tenant(tenant)).await;
        if let Err(error @ Error::Invalid(_)) = &done {
            tracing::error!(%tenant, %error, "a subscription's plan is not known: its tenant's plan and months stay as they are");
        }
        done.map(drop)
    }

    /// Makes a tenant's account what its subscription and its invoices say. Says whether anything changed.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the subscription's plan is none: then plan and months stay as they are, and what the tenant may do follows
    /// all the same; `Internal`, `Database`, `Away`.
    pub async fn tenant(&self, tenant: TenantId) -> Result<bool> {
        let policy = Policy::new(&self.config)?;
        let mut tx = self.db.begin().await?;
        let Some(row) = db::tenants::lock(&mut tx, tenant).await? else {
            tx.commit().await?;
            return Ok(false);
        };
        let mut account = db::accounts::lock_or_make(&mut tx, tenant, self.clock.now()).await?;
        // After everything that may have to be waited for.
        let by = By { actor: Actor::Billing, at: self.clock.now() };
        let known = subscriptions::of_tenant_in(&mut tx, tenant, MOST).await?;
        let unpaid = mirrored::unpaid_since(&mut tx, tenant).await?;
        let is_disputed = charges::is_disputed(&mut tx, tenant).await?;
        let followed = account.subscription.as_deref();
        let decided = decide(&known, Money { followed, unpaid, is_disputed }, &policy, by.at);
        let (wanted, trouble) = possible(&mut tx, &row, decided).await?;
        let changed =
            Box::pin(accounts::follow(&mut tx, (&row, &mut account), by, &wanted, self.lead)).await?;
        tx.commit().await?;
        trouble.map_or(Ok(changed), Err)
    }

    /// Gives a tenant the credits that a checkout was for, once, when it is paid.
    ///
    /// # Errors
    /// `Conflict` where the grant is there and is another one; `NotFound`, `Database`, `Away`.
    pub async fn checkout(&self, tenant: TenantId, checkout: &Checkout) -> Result<()> {
        let Some(id) = checkout.topup.as_ref().and_then(|id| id.parse().ok()) else { return Ok(()) };
        if checkout.mode != "payment" || checkout.payment_status != "paid" {
            return Ok(());
        }
        let mut tx = self.db.begin_reading().await?;
        let top_up = db::top_ups::get_in(&mut tx, tenant, id).await?;
        tx.commit().await?;
        let Some(top_up) = top_up else {
            tracing::error!(%tenant, checkout = checkout.id, "a checkout is paid, and Weir never offered what it is for");
            return Ok(());
        };
        let is_paid = checkout.currency.as_deref() == Some(top_up.currency.as_str())
            && checkout.amount_total.is_some_and(|total| total >= top_up.amount);
        if !is_paid {
            tracing::error!(%tenant, checkout = checkout.id, %id, "less was paid than the credits cost: they are not granted");
            return Ok(());
        }
        let new = NewGrant {
            kind: GrantKind::Prepaid,
            credits: top_up.credits,
            source: Some(source(&id.to_string())),
            note: format!("paid by {}", checkout.id),
            expires_at: None,
        };
        grants::add(&self.db, &self.clock, Actor::Billing, tenant, new).await?;
        // It may be given back, or lost, by now: whoever heard of that first found no grant.
        let Some(intent) = &checkout.payment_intent else { return Ok(()) };
        for charge in charges::of_intent(&self.db, tenant, intent, MOST).await? {
            self.charge(tenant, &charge).await?;
        }
        Ok(())
    }

    /// Takes back what is left of credits whose payment was given back whole, or lost to a dispute.
    async fn charge(&self, tenant: TenantId, charge: &Charge) -> Result<()> {
        let is_lost = charge.dispute_status.as_deref() == Some("lost");
        if is_lost {
            tracing::error!(%tenant, charge = charge.id, "a dispute is lost: what was paid is gone");
        }
        let is_gone = charge.status == "succeeded" && charge.amount_refunded >= charge.amount;
        let Some(intent) = charge.payment_intent.as_deref().filter(|_| is_gone || is_lost) else {
            return Ok(());
        };
        let Some(id) = checkouts::top_up_of(&self.db, tenant, intent).await? else { return Ok(()) };
        let Some(grant) = db::grants::of_source(&self.db, tenant, &source(&id)).await? else { return Ok(()) };
        grants::void(&self.db, &self.clock, Actor::Billing, tenant, grant).await.map(drop)
    }

    /// Looks again at every tenant with an unpaid invoice: what that means depends on the time.
    ///
    /// # Errors
    /// `Database`, `Away`.
    pub async fn unpaid(&self) -> Result<()> {
        let mut after = None;
        loop {
            let tenants = mirrored::unpaid_tenants(&self.db, after, BATCH).await?;
            let Some(last) = tenants.last() else { return Ok(()) };
            after = Some(*last);
            for tenant in tenants {
                let done = Box::pin(self.tenant(tenant)).await;
                bearable(done, tenant, "its account cannot follow its invoices")?;
            }
        }
    }

    /// Tells metrics how invoices compare that were looked at within the time that anything is still compared.
    ///
    /// # Errors
    /// `Database`, `Away`.
    pub async fn measure(&self) -> Result<()> {
        let since = self.clock.now().minus(SINCE);
        let counted = db::invoice_proofs::verdicts(&self.db, since).await?;
        for verdict in InvoiceVerdict::ALL {
            let count = counted.iter().find(|(known, _)| known == verdict).map_or(0, |(_, count)| *count);
            self.metrics.invoices.with_label_values(&[verdict.as_str()]).set(count);
        }
        Ok(())
    }
}

/// What of it can be done: where the plan does not exist, plan and months stay as they are. Where nothing is subscribed any more, the
/// default plan takes its place: on the one before nobody would pay for what is used.
async fn possible(
    tx: &mut Tx,
    row: &Tenant,
    (mut wanted, trouble): (Wanted, Option<Error>),
) -> Result<(Wanted, Option<Error>)> {
    let Some(plan) = wanted.plan.as_ref().filter(|plan| plan.as_str() != plans::DEFAULT) else {
        return Ok((wanted, trouble));
    };
    if plan.as_str() == row.plan || db::plans::lock(tx, plan).await?.is_some() {
        return Ok((wanted, trouble));
    }
    if !matches!(wanted.subscription, Some(Some(_))) {
        tracing::error!(tenant = %row.id, %plan, "billing.after_plan: there is no such plan; the default one takes its place");
        wanted.plan = Some(plans::DEFAULT.parse()?);
        return Ok((wanted, trouble));
    }
    let text = format!("plan: there is none named {plan}; create it first");
    Ok((Wanted { access: wanted.access, ..Wanted::default() }, Some(Error::Invalid(text))))
}
