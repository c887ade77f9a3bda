//! A plan with prices and tenants on it.

use std::time::Duration;

use serde_json::Value;
use weir::accounts::grants::{self, GrantKind, NewGrant};
use weir::audit::Actor;
use weir::clock::{Clock, Timestamp};
use weir::credits::Credits;
use weir::db::Db;
use weir::id::TenantId;
use weir::ledger::verify::{self, Options};
use weir::plans::PlanName;
use weir::prices::{self, PriceVersion, Terms};
use weir::tenants;

use super::gateway::{self, Key};

/// How far ahead changes of plan hold in tests.
pub const LEAD: Duration = Duration::from_millis(500);

/// Where plans and tenants are made.
pub struct Shop<'a> {
    pub db: &'a Db,
    pub clock: &'a Clock,
}

/// A plan of this name.
pub fn plan(name: &str) -> PlanName {
    name.parse().expect("a name")
}

/// So many credits.
pub fn credits(text: &str) -> Credits {
    text.parse().expect("credits")
}

impl Shop<'_> {
    /// Publishes prices.
    pub async fn publish(&self, name: &str, terms: Value) -> PriceVersion {
        let terms: Terms = serde_json::from_value(terms).expect("terms");
        prices::publish(self.db, self.clock, Actor::Cli, &plan(name), &terms, (None, LEAD))
            .await
            .expect("prices")
    }

    /// Puts a tenant on a plan.
    pub async fn put_on(&self, tenant: TenantId, name: &str) {
        tenants::set_plan(self.db, self.clock, Actor::Cli, tenant, &plan(name), LEAD).await.expect("on it");
    }

    /// A new tenant on this plan, and a key of it.
    pub async fn customer(&self, name: &str) -> Key {
        let tenant = TenantId::new();
        let tenant =
            tenants::create(self.db, self.clock, Actor::Cli, &tenant.to_string()).await.expect("a tenant");
        self.put_on(tenant.id, name).await;
        gateway::key(self.db, self.clock, tenant.id).await
    }

    /// Whether `weir ledger verify` finds nothing wrong.
    pub async fn is_verified(&self) {
        let options = Options { tenant: None, free: &[], replay: Duration::from_secs(86_400) };
        let report = verify::verify(self.db, self.clock, &options).await.expect("a report");
        assert!(report.is_clean(), "{report:#?}");
    }

    /// Gives a tenant credits.
    pub async fn give(
        &self,
        tenant: TenantId,
        kind: GrantKind,
        amount: &str,
        until: Option<Timestamp>,
    ) -> grants::Grant {
        let new =
            NewGrant { kind, credits: credits(amount), source: None, note: String::new(), expires_at: until };
        grants::add(self.db, self.clock, Actor::Cli, tenant, new).await.expect("a grant")
    }
}
