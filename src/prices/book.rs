//! The price book of this process: which prices each plan has, read once and kept until somebody publishes others.

use std::sync::Arc;
use std::time::Duration;

use super::tags::{Tagged, Tags};
use super::{History, PriceVersion, history};
use crate::cache::Fresh;
use crate::clock::Clock;
use crate::db::Db;
use crate::error::Result;
use crate::plans::PlanName;
use crate::providers::ToolEntry;

/// Plans whose prices are kept.
const PLANS: usize = 1024;

/// The price versions of plans, and what they make of descriptors. It is told what to forget: by whoever publishes, and by
/// the poll that hears of other processes ([`crate::credentials`]).
pub struct Book {
    db: Db,
    histories: Fresh<PlanName, Arc<History>>,
    tags: Tags,
}

impl Book {
    /// An empty book, which reads what it is asked for. What was read is read again after `ttl`; while the database is away
    /// it stands in for up to `stale`.
    #[must_use]
    pub fn new(db: Db, clock: Clock, (ttl, stale): (Duration, Duration)) -> Self {
        Self { db, histories: Fresh::new(PLANS, (ttl, stale), clock), tags: Tags::new() }
    }

    /// The price versions of a plan: from memory, or from the database, where of several at once one asks.
    ///
    /// # Errors
    /// As of [`history`].
    pub async fn of(&self, plan: &PlanName) -> Result<Arc<History>> {
        match self.known(plan.as_str()) {
            Some(known) => Ok(known),
            None => {
                let load = || async { history(&self.db, plan).await.map(Arc::new) };
                Box::pin(self.histories.get(plan, load)).await
            }
        }
    }

    /// The price versions of a plan, where they are in memory. Allocates nothing.
    #[must_use]
    pub fn known(&self, plan: &str) -> Option<Arc<History>> {
        self.histories.hit(plan)
    }

    /// Forgets what prices a plan has, and what is being read of them now.
    pub fn forget(&self, plan: &str) {
        self.histories.forget(|name, _| name.as_str() == plan);
    }

    /// The descriptor of a tool of `server` with its price under this version; `None`: under a plan that charges nothing.
    pub(crate) fn tagged(
        &self,
        version: Option<&PriceVersion>,
        server: &Arc<str>,
        entry: &Arc<ToolEntry>,
    ) -> Arc<Tagged> {
        self.tags.of(version, server, entry)
    }
}
