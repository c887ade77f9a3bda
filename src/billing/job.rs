//! The work beside requests: what is owed is told to Stripe, and what Stripe counts is compared. Every process does it; a
//! tenant is worked on by one at a time.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::consequences::Follower;
use super::credits_meter::CreditsMeter;
use super::customers;
use super::export::{Exporter, Meter, Proof, Round, Rules, SINCE, Verdict};
use super::inbox;
use super::mirror::Subject;
use super::shop::Shop;
use super::stripe::Stripe;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::db::mirror::{invoices, subscriptions};
use crate::db::proofs::Ending;
use crate::db::stripe_events::ObjectKind;
use crate::db::{self, Db};
use crate::error::{Error, Result, bearable};
use crate::id::{ReplicaId, TenantId};
use crate::telemetry::billing::Billing as Metrics;

/// Tenants, and periods, that are asked for at once.
const BATCH: i64 = 200;
/// So long before an invoice becomes final its period is compared once more.
const LEAD: Duration = Duration::from_secs(1800);
/// So long after Stripe did not say what it counts it is asked again.
const UNREADABLE: Duration = Duration::from_secs(300);
/// So long after a subscription of a deleted tenant was to be ended that is tried again, where it is still there.
const ENDING: Duration = Duration::from_secs(600);
/// Tries in vain to end one, after which a round leaves the others to the next.
const IN_VAIN: u32 = 5;
/// Invoices of a tenant that are asked for again in an hour.
const UNPAID: i64 = 20;

/// What the work is done with.
#[derive(Clone)]
pub struct Job {
    /// The ledger.
    pub db: Db,
    /// The time.
    pub clock: Clock,
    /// The account at Stripe.
    pub stripe: Stripe,
    /// `[billing]`.
    pub config: config::Billing,
    /// Counts.
    pub metrics: Metrics,
    /// In whose name tenants are claimed.
    pub process: ReplicaId,
    /// What follows from what Stripe says.
    pub follower: Follower,
    /// What is sold.
    pub shop: Shop,
}

impl Job {
    /// What is needed to work with the account of `billing.stripe_key`; nothing, where there is no Stripe. Asks Stripe for nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the database belongs to the other mode of Stripe; [`Error::Internal`] where the system has no
    /// certificate authorities; [`Error::Database`], [`Error::Away`].
    pub async fn connect(config: &Config, db: &Db, clock: &Clock, metrics: &Metrics) -> Result<Option<Self>> {
        let (public_url, lead, config) = (config.public_url(), config.metering.lead.get(), &config.billing);
        if !config.is_configured() {
            return Ok(None);
        }
        let stripe =
            Stripe::new(config, clock, metrics).map_err(|error| Error::Internal(error.to_string()))?;
        customers::check_mode(db, &stripe).await?;
        let (db, clock, config, metrics) = (db.clone(), clock.clone(), config.clone(), metrics.clone());
        let follower = Follower {
            db: db.clone(),
            clock: clock.clone(),
            config: config.clone(),
            lead,
            metrics: metrics.clone(),
        };
        let shop = Shop {
            db: db.clone(),
            clock: clock.clone(),
            stripe: stripe.clone(),
            config: config.clone(),
            public_url,
        };
        Ok(Some(Self { follower, shop, db, clock, stripe, config, metrics, process: ReplicaId::new() }))
    }

    /// Works for ever.
    pub async fn run(self) {
        tokio::join!(self.export_for_ever(), self.reconcile_for_ever(), self.follow_for_ever());
    }

    async fn export_for_ever(&self) {
        let mut turns = tokio::time::interval(self.config.export_every.get());
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            if let Err(error) = self.export().await {
                tracing::warn!(%error, "what is owed cannot be told to Stripe now; trying on");
            }
        }
    }

    async fn reconcile_for_ever(&self) {
        let every = self.config.reconcile_every.get().min(self.config.export_every.get());
        let mut turns = tokio::time::interval(every);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            if let Err(error) = self.reconcile_due().await {
                tracing::warn!(%error, "ledger and Stripe cannot be compared now; trying on");
            }
        }
    }

    /// Compares ledger and Stripe for each tenant for whom that was not done for `billing.reconcile_every_ms`, or whose invoice
    /// becomes final soon; of several processes each takes some. Where Stripe does not say what it counts for one, that is tried again
    /// some minutes later, and the others wait for the next round.
    ///
    /// # Errors
    /// As [`export`](Self::export).
    pub async fn reconcile_due(&self) -> Result<()> {
        let done = self.compare_due().await;
        done.and(self.measure().await)
    }

    async fn compare_due(&self) -> Result<()> {
        let every = self.config.reconcile_every.get();
        let ending = Ending { grace: self.config.grace(), lead: LEAD, again: UNREADABLE };
        loop {
            let now = self.clock.now();
            let taken = match db::proofs::claim_ending(&self.db, now, ending).await? {
                None => db::proofs::claim(&self.db, now, every).await?.map(|tenant| (tenant, false)),
                tenant => tenant.map(|tenant| (tenant, true)),
            };
            let Some((tenant, is_ending)) = taken else { return Ok(()) };
            let mut readable = true;
            let each = |proof: Proof| readable &= proof.verdict != Verdict::Unreadable;
            let compared = self.reconcile(Some(tenant), each).await;
            let compared = bearable(compared, tenant, "ledger and Stripe cannot be compared")?;
            readable &= compared.is_some();
            if !readable && !is_ending {
                let again = now.minus(every).plus(UNREADABLE).min(now);
                db::proofs::put_back(&self.db, tenant, now, again).await?;
            }
            bearable(self.keep(tenant).await, tenant, "its subscription cannot be kept")?;
            if !readable {
                return Ok(());
            }
        }
    }

    /// Tells metrics how many periods have which verdict.
    async fn measure(&self) -> Result<()> {
        let mut counts: HashMap<_, _> = Verdict::ALL.iter().map(|verdict| (*verdict, 0)).collect();
        counts.extend(db::proofs::verdicts(&self.db, self.clock.now().minus(SINCE)).await?);
        for (verdict, count) in counts {
            self.metrics.verdicts.with_label_values(&[verdict.as_str()]).set(count);
        }
        Ok(())
    }

    async fn follow_for_ever(&self) {
        let mut turns = tokio::time::interval(self.config.export_every.get());
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            if let Err(error) = self.follow().await {
                tracing::warn!(%error, "accounts cannot follow their subscriptions now; trying on");
            }
        }
    }

    /// What follows from the time: unpaid invoices mean more the longer they are unpaid, and whoever is deleted pays no longer.
    ///
    /// # Errors
    /// As [`export`](Self::export).
    pub async fn follow(&self) -> Result<()> {
        self.follower.unpaid().await?;
        self.follower.measure().await?;
        self.unsubscribe().await
    }

    /// Ends the subscriptions of tenants that are deleted. One process asks for one, and for a while nobody asks again: Stripe tells
    /// of the end by itself, and one that cannot be ended keeps no others waiting.
    async fn unsubscribe(&self) -> Result<()> {
        let (holder, mut after, mut in_vain) = (self.process.to_string(), String::new(), 0);
        loop {
            let batch = subscriptions::of_nobody(&self.db, self.clock.now(), &after, BATCH).await?;
            let Some(last) = batch.last() else { return Ok(()) };
            after.clone_from(&last.object.id);
            for known in batch {
                let (now, name) = (self.clock.now(), subscriptions::ending(&known.object.id));
                let span = (now, now.plus(ENDING));
                if db::stripe_events::claim(&self.db, &name, &holder, span).await?.is_none() {
                    continue;
                }
                let ended = self.shop.end(&known.object).await;
                let ended =
                    bearable(ended, known.tenant, "the subscription of a deleted tenant cannot be ended")?;
                if ended.is_some() {
                    self.ask_again(ObjectKind::Subscription, known.object.id).await?;
                    continue;
                }
                in_vain += 1;
                if in_vain == IN_VAIN {
                    return Ok(());
                }
            }
        }
    }

    async fn ask_again(&self, kind: ObjectKind, id: String) -> Result<()> {
        inbox::ask_again(&self.db, &self.clock, &Subject { kind, id }, self.stripe.is_live()).await
    }

    /// One round of the export: customers for those who owe and have none, then everything that is due.
    ///
    /// # Errors
    /// [`Error::Internal`] with Stripe's words; [`Error::Database`], [`Error::Away`].
    pub async fn export(&self) -> Result<Round> {
        self.make_customers().await?;
        let round = self.exporter().await?.round().await?;
        let Round { begun, sent, verified, drifted, refused } = round;
        for (what, count) in [
            ("begun", begun),
            ("sent", sent),
            ("verified", verified),
            ("drifted", drifted),
            ("refused", refused),
        ] {
            self.metrics.exports.with_label_values(&[what]).inc_by(count as u64);
        }
        Ok(round)
    }

    /// Makes customers for those who owe and have none. Where Stripe does not want one, the others get theirs all the same.
    async fn make_customers(&self) -> Result<()> {
        let since = self.clock.now().minus(SINCE);
        let mut after = None;
        loop {
            let tenants = db::exports::without_customer(&self.db, since, after, BATCH).await?;
            let Some(last) = tenants.last() else { return Ok(()) };
            after = Some(*last);
            for tenant in tenants {
                let made = customers::make(&self.db, &self.clock, &self.stripe, &self.config, tenant).await;
                bearable(made, tenant, "what it owes cannot be exported")?;
            }
        }
    }

    /// Compares ledger and Stripe for all periods of customers that are not long over, or those of one tenant, and gives the
    /// proofs out one by one.
    ///
    /// # Errors
    /// As [`export`](Self::export).
    pub async fn reconcile(&self, tenant: Option<TenantId>, mut each: impl FnMut(Proof)) -> Result<()> {
        let now = self.clock.now();
        let exporter = self.exporter().await?;
        let mut after = None;
        loop {
            let span = (now.minus(SINCE), now);
            let periods = db::proofs::periods(&self.db, tenant, span, after, BATCH).await?;
            let Some(last) = periods.last() else { return Ok(()) };
            after = Some(*last);
            for period in periods {
                if let Some(proof) = exporter.reconcile(period).await? {
                    each(proof);
                }
            }
        }
    }

    /// What else is looked at now and then: invoices that could not be compared for good; the account, should news of it have been lost
    /// here, and what it is not paid by, should they have been lost on the way; and whether the subscription has the price that its
    /// plan will have.
    async fn keep(&self, tenant: TenantId) -> Result<()> {
        self.follower.invoices_again(tenant).await?;
        if db::tenants::get(&self.db, tenant).await?.is_none() {
            return Ok(());
        }
        let followed = Box::pin(self.follower.tenant(tenant)).await;
        bearable(followed, tenant, "its account cannot follow its subscription")?;
        let since = self.clock.now().minus(SINCE);
        for invoice in invoices::to_be_paid(&self.db, tenant, since, UNPAID).await? {
            self.ask_again(ObjectKind::Invoice, invoice).await?;
        }
        for known in subscriptions::of_tenant(&self.db, tenant, BATCH).await? {
            if matches!(known.object.status.as_str(), "past_due" | "unpaid" | "paused") {
                self.ask_again(ObjectKind::Subscription, known.object.id.clone()).await?;
            }
            if known.object.is_open() {
                self.shop.align(tenant, &known.object).await?;
            }
        }
        Ok(())
    }

    async fn exporter(&self) -> Result<Exporter<impl Meter>> {
        let canary = customers::canary(&self.db, &self.stripe, &self.config).await?;
        let meter = CreditsMeter::new(self.stripe.clone(), &self.config);
        Ok(Exporter::new(
            self.db.clone(),
            self.clock.clone(),
            meter,
            Rules { grace: self.config.grace(), canary, holder: self.process.to_string() },
        ))
    }
}
