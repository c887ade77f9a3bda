//! One change at a time for each tenant, begun from what Stripe says at this moment. The mirror is as old as the last event that
//! was worked on: who asks twice in a second would be answered the second time by what was true before the first.

use std::time::Duration;

use uuid::Uuid;

use super::{Shop, trouble};
use crate::billing::mirror::Current;
use crate::billing::mirror::stripe::subscriptions;
use crate::clock::Timestamp;
use crate::db;
use crate::db::mirror::subscriptions as mirrored;
use crate::db::stripe_events::{self as rows, EventRow, EventState, ObjectKind, Via};
use crate::error::{Error, Result};
use crate::id::TenantId;

/// How long a tenant is claimed for a change: longer than one takes. So long nothing is changed when a process dies within one.
const LEASE: Duration = Duration::from_secs(600);
/// Subscriptions of a customer that are asked for: it has one at a time, beside some whose first payment failed.
const MOST: u32 = 10;

/// A tenant for whom nothing else is changed meanwhile.
pub(super) struct Claim {
    name: String,
    holder: String,
    number: i64,
}

impl Shop {
    /// Claims a tenant, until [`let_go`](Self::let_go).
    pub(super) async fn claim(&self, tenant: TenantId) -> Result<Claim> {
        let (name, holder, now) = (format!("change:{tenant}"), Uuid::now_v7().to_string(), self.clock.now());
        let number = rows::claim(&self.db, &name, &holder, (now, now.plus(LEASE))).await?;
        let busy = || Error::Conflict("another change is under way; try again".to_owned());
        number.map(|number| Claim { name, holder, number }).ok_or_else(busy)
    }

    /// Sees that the claim is still the newest: what is sent now follows what was read under it.
    pub(super) async fn held(&self, claim: &Claim) -> Result<()> {
        let mut tx = self.db.begin().await?;
        let is_held = rows::hold(&mut tx, &claim.name, &claim.holder, claim.number).await?;
        tx.commit().await?;
        if is_held { Ok(()) } else { Err(Error::Conflict("this took too long; look again".to_owned())) }
    }

    /// Lets go of a tenant. Where that fails, the claim ends by itself.
    pub(super) async fn let_go(&self, claim: Claim) {
        let Claim { name, holder, number } = claim;
        let done = async {
            let mut tx = self.db.begin().await?;
            rows::release(&mut tx, &name, &holder, number).await?;
            tx.commit().await
        };
        if let Err(error) = done.await {
            tracing::warn!(claim = name, %error, "a claim is not let go, and ends by itself");
        }
    }

    /// The subscription that the tenant has at Stripe now, if it has one. Where the mirror has not heard of it, the inbox asks for it.
    pub(super) async fn going_on(&self, tenant: TenantId) -> Result<Option<Current>> {
        let Some(customer) = db::exports::customer(&self.db, tenant).await? else { return Ok(None) };
        let found = subscriptions(&self.stripe, &customer, MOST).await;
        let found = found.map_err(|error| trouble("subscriptions cannot be listed", &error))?;
        let Some(current) = found.into_iter().find(|current| current.subscription.is_open()) else {
            return Ok(None);
        };
        let known = mirrored::get(&self.db, &current.subscription.id).await?;
        if !known.is_some_and(|known| known.object.is_open()) {
            self.found(&current.subscription.id, current.subscription.created_at).await?;
        }
        Ok(Some(current))
    }

    /// The same, where there must be one.
    pub(super) async fn needed(&self, tenant: TenantId) -> Result<Current> {
        self.going_on(tenant).await?.ok_or_else(super::no_subscription)
    }

    /// Has the inbox ask for a subscription whose events have not come, as if the sweep had found one.
    async fn found(&self, subscription: &str, created_at: Timestamp) -> Result<()> {
        let now = self.clock.now();
        let event = EventRow {
            id: format!("found_{subscription}"),
            kind: "customer.subscription.created".to_owned(),
            mode: if self.stripe.is_live() { "live" } else { "test" }.to_owned(),
            via: Via::Sweep,
            object_kind: ObjectKind::Subscription,
            object_id: subscription.to_owned(),
            created_at,
            received_at: now,
            state: EventState::New,
            tries: 0,
            due_at: now,
            note: String::new(),
        };
        if !rows::insert(&self.db, &event, b"{}").await? {
            rows::again(&self.db, &event.id, now).await?;
        }
        Ok(())
    }
}
