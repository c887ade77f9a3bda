//! Saying so when tools begin to cost something else: what `tools/list` shows has changed then, not when it was published.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::App;
use crate::clock::Timestamp;
use crate::id::PriceVersionId;
use crate::mcp::bus::{Change, Changed};
use crate::plans::PlanName;
use crate::prices;

/// How long until prices are looked at again that could not be read.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest that is slept: the system's clock may be put right meanwhile.
const LONGEST: Duration = Duration::from_secs(60);

/// Plans that were changed since this was last asked. Each once, so that there are never more than plans.
#[derive(Default)]
pub(super) struct PlansChanged {
    plans: Mutex<BTreeSet<PlanName>>,
    woken: Notify,
}

impl PlansChanged {
    /// Notes that a plan was changed.
    pub(super) fn changed(&self, plan: PlanName) {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner).insert(plan);
        self.woken.notify_one();
    }

    fn take(&self) -> BTreeSet<PlanName> {
        std::mem::take(&mut *self.plans.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is known of the plans whose prices change while this process runs.
struct Almanac {
    since: Timestamp,
    /// The version of each plan that was in force when it was looked at last.
    shown: HashMap<PlanName, Option<PriceVersionId>>,
    /// When to look at each next.
    due: BTreeMap<PlanName, Timestamp>,
}

/// Tells listeners when prices come into force; `heard` knows of plans that were changed. For ever.
pub(super) async fn announce(app: Arc<App>, heard: Arc<PlansChanged>) {
    let now = app.clock.now();
    let ahead = loop {
        match prices::versions::ahead(&app.db, now).await {
            Ok(ahead) => break ahead,
            Err(error) => tracing::debug!(%error, "which prices are to come is not known yet"),
        }
        tokio::time::sleep(AGAIN).await;
    };
    let due = ahead.into_iter().map(|plan| (plan, now)).collect();
    let mut almanac = Almanac { since: now, shown: HashMap::new(), due };
    loop {
        let next = almanac.due.values().min().map(|at| until(app.clock.now(), *at));
        tokio::select! {
            () = heard.woken.notified() => {
                almanac.due.extend(heard.take().into_iter().map(|plan| (plan, app.clock.now())));
            }
            () = tokio::time::sleep(next.unwrap_or(LONGEST)) => {}
        }
        if almanac.look(&app).await {
            for server in app.registry.servers() {
                // Here alone: every process hears of it by itself.
                app.bus.deliver(None, Change { tenant: None, server, what: Changed::Tools });
            }
        }
    }
}

fn until(now: Timestamp, then: Timestamp) -> Duration {
    let left = then.as_micros().saturating_sub(now.as_micros());
    Duration::from_micros(u64::try_from(left).unwrap_or(0)).min(LONGEST)
}

impl Almanac {
    /// Looks at the plans whose time has come. Whether one of them has other prices now.
    async fn look(&mut self, app: &App) -> bool {
        let now = app.clock.now();
        let plans: Vec<_> =
            self.due.iter().filter(|(_, at)| **at <= now).map(|(plan, _)| plan.clone()).collect();
        let mut changed = false;
        for plan in plans {
            let Ok(history) = app.prices.of(&plan).await else {
                self.due.insert(plan, now.plus(AGAIN));
                continue;
            };
            let at = |instant| history.at(instant).map(|version| version.id);
            let before = self.shown.insert(plan.clone(), at(now)).unwrap_or_else(|| at(self.since));
            changed |= before != at(now);
            let next = history.versions().iter().find(|version| version.effective_at > now);
            match next {
                Some(next) => self.due.insert(plan, next.effective_at),
                None => self.due.remove(&plan),
            };
        }
        changed
    }
}
