//! What accounts promise, on every engine.

mod closing;
mod following;
mod granting;
mod periods;
mod schedules;

use std::time::Duration;

use super::{Account, Keeper, Kept, Period, Standing, keep, overview, set_spend_cap, standing};
use crate::accounts::events::{self, EventKind};
use crate::accounts::grants::{self, Grant, GrantKind, NewGrant};
use crate::audit::Actor;
use crate::clock::{Clock, Timestamp};
use crate::credits::Credits;
use crate::db::testing::{self, on_every_engine};
use crate::db::{self, Db, Page};
use crate::error::Error;
use crate::id::{SlabId, TenantId};
use crate::plans::PlanName;
use crate::{prices, tenants};

const LEAD: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(86_400);

fn name(text: &str) -> PlanName {
    text.parse().expect("a name")
}

fn credits(text: &str) -> Credits {
    text.parse().expect(text)
}

fn at(text: &str) -> Timestamp {
    text.parse::<jiff::Timestamp>().expect("an instant").into()
}

/// One tenant, some plans with prices.
struct World {
    db: Db,
    clock: Clock,
    tenant: TenantId,
}

impl World {
    /// On 11 November 2026 at noon, on the plan `default`, which has no prices.
    async fn new(db: &Db) -> Self {
        let clock = Clock::manual(at("2026-11-11T12:00:00Z"));
        let terms = [
            ("free", r#"{"kind": "free", "included": "30"}"#),
            ("pro", r#"{"kind": "hybrid", "included": "300", "soft_cap": "50", "hard_cap": "100"}"#),
            ("like-pro", r#"{"kind": "hybrid", "included": "300"}"#),
            ("usage", r#"{"kind": "usage"}"#),
            ("prepaid", r#"{"kind": "prepaid"}"#),
            ("anchored", r#"{"kind": "free", "included": "7", "cycle": "anchored"}"#),
        ];
        for (plan, terms) in terms {
            let terms = serde_json::from_str(terms).expect("terms");
            let when = (None, Duration::ZERO);
            prices::publish(db, &clock, Actor::Cli, &name(plan), &terms, when).await.expect("prices");
        }
        Self::tenant(db, &clock).await
    }

    async fn tenant(db: &Db, clock: &Clock) -> Self {
        let name = TenantId::new().to_string();
        let tenant = tenants::create(db, clock, Actor::Cli, &name).await.expect("a tenant").id;
        Self { db: db.clone(), clock: clock.clone(), tenant }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn on(&self, plan: &str) {
        let plan = name(plan);
        let change = tenants::set_plan(&self.db, &self.clock, Actor::Cli, self.tenant, &plan, LEAD);
        Box::pin(change).await.expect("another plan");
    }

    async fn standing(&self) -> Standing {
        Box::pin(standing(&self.db, self.tenant, self.now())).await.expect("a standing")
    }

    async fn current(&self) -> Period {
        self.standing().await.current.expect("a period")
    }

    async fn periods(&self) -> Vec<Period> {
        let mut all = super::periods(&self.db, self.tenant, Page::first(1000)).await.expect("a list").rows;
        all.sort_by_key(|period| period.starts_at);
        all
    }

    async fn grants(&self) -> Vec<Grant> {
        grants::list(&self.db, self.tenant, Page::first(1000)).await.expect("a list").rows
    }

    /// The included credits of a period.
    async fn included(&self, period: &Period) -> Grant {
        let source = format!("period:{}", period.id);
        self.grants().await.into_iter().find(|grant| grant.source == source).expect("a grant")
    }

    async fn grant(&self, id: &Grant) -> Grant {
        self.grants().await.into_iter().find(|grant| grant.id == id.id).expect("a grant")
    }

    async fn give(&self, kind: GrantKind, amount: &str, expires_at: Option<Timestamp>) -> Grant {
        let new = NewGrant { kind, credits: credits(amount), source: None, note: String::new(), expires_at };
        grants::add(&self.db, &self.clock, Actor::Cli, self.tenant, new).await.expect("a grant")
    }

    async fn lease(&self, period: &Period, grant: Option<&Grant>, amount: &str) -> SlabId {
        let grant = grant.map(|grant| grant.id);
        let leased = testing::lease(&self.db, period, grant, credits(amount), self.now()).await;
        leased.expect("as much")
    }

    async fn close(&self, slab: SlabId) {
        testing::close_slab(&self.db, self.tenant, slab, self.now()).await;
    }

    /// Leases, uses and gives back.
    async fn spend(&self, period: &Period, grant: Option<&Grant>, amount: &str) {
        let slab = self.lease(period, grant, amount).await;
        assert!(testing::spend(&self.db, slab, credits(amount)).await);
        self.close(slab).await;
    }

    async fn keep(&self) -> Kept {
        Box::pin(keep(&self.db, &self.clock)).await.expect("a round")
    }

    async fn kinds(&self) -> Vec<EventKind> {
        let listed = events::list(&self.db, self.tenant, Page::first(100)).await.expect("a list");
        listed.rows.into_iter().map(|event| event.kind).collect()
    }
}
