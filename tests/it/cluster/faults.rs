//! What a fault takes with it is what `docs/OPERATIONS.md` says, and nothing else; and soon after its end all is well.
//!
//! Under every fault several tenants go on with what they do, and one asks for far more than its limit. What is another
//! tenant's, a second answer, a step that is missing or told twice, and an answer that does not come are never right.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;
use weir::calls;
use weir::clock::Timestamp;
use weir::db::Page;

use super::greed::{Greedy, Rate};
use super::legacy_client::is_legacy;
use super::load::{Entry, Kind, Load, Outcome, RECOVERY};
use crate::support::cluster::Cluster;
use crate::support::{Modern, eventually};

/// Far more than the clients of the load need, and far less than the greedy one wants.
const RATE: Rate = Rate { burst: 80, per_second: 40 };
/// What that one sends.
const WANTED: u32 = 120;
/// How long something is away that comes back.
const OUTAGE: Duration = Duration::from_secs(2);

/// A cluster under load.
struct World {
    cluster: Cluster,
    load: Load,
    greedy: Greedy,
}

impl World {
    async fn start() -> Self {
        let cluster = Cluster::build()
            .with_own_services()
            .set("limits.tenant.burst", RATE.burst.to_string())
            .set("limits.tenant.per_second", RATE.per_second.to_string())
            .set("limits.key.burst", 1000)
            .set("limits.key.per_second", 1000)
            .set("mcp.retry_ms", 100)
            .start()
            .await;
        let load = Load::start(&cluster).await;
        let greedy = Greedy::start(&cluster, &cluster.caller().await, WANTED);
        greedy.is_served(RATE.burst).await;
        Self { cluster, load, greedy }
    }

    /// All is well again, with every replica and every client. Of what went wrong only what is `lost` by right did, and the
    /// greedy one got no more than it may have where its bucket was forgotten so many times. The calls that were
    /// answered.
    async fn ends(self, fault: &str, refills: u32, lost: impl Fn(&Entry) -> bool) -> BTreeSet<String> {
        self.load.recovers(fault).await;
        self.cluster.is_whole().await;
        let (accepted, time, wrong) = self.greedy.stop().await;
        let calls = self.load.stop(lost).await;
        let most = RATE.most(time, refills, 3);
        assert!(accepted <= most, "{accepted} of {most} within {time:?}");
        eprintln!("{fault}: {accepted} of at most {most} requests of the greedy tenant");
        // Of a replica that dies, requests break; everything else is "yes" or "too many".
        let wrong: Vec<_> = wrong.iter().filter(|what| fault != KILL || *what != "Err(Broken)").collect();
        assert_eq!(wrong.len(), 0, "{wrong:?}");
        calls
    }
}

const KILL: &str = "kill -9";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_a_replica_takes_what_ran_in_it() {
    let mut world = World::start().await;
    world.cluster.kill(0).await;
    let killed = Instant::now();
    // Well without it, before it comes back.
    world.load.recovers(KILL).await;
    world.cluster.restart(0).await;
    world
        .ends(KILL, 0, |entry| match entry.outcome {
            // Sessions, and all that was said, live on; only what ran there is lost.
            Outcome::Broken => entry.began <= killed,
            Outcome::Lost => entry.began <= killed && entry.kind == Kind::Legacy,
            // Of a session whose stream it held.
            Outcome::Reloaded => entry.kind == Kind::Stream,
            _ => false,
        })
        .await;
}

/// What becomes of a session whose memory is lost, or cannot be reached, up to a moment.
fn sessions_suffer(until: Instant) -> impl Fn(&Entry) -> bool {
    move |entry| {
        match entry.outcome {
            // Replicas that could not hear each other tell their clients so.
            Outcome::Reloaded => matches!(entry.kind, Kind::Listener | Kind::Stream),
            // Each client finds out by itself, with its next request; and a replica needs a moment to find its way back to
            // Redis, and to write down there what it has to be read elsewhere.
            Outcome::Gone | Outcome::Lost => is_legacy(entry.kind) && entry.began <= until + RECOVERY,
            Outcome::Unavailable | Outcome::Broken => is_legacy(entry.kind) && entry.began <= until,
            Outcome::Good | Outcome::Wrong(_) => false,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_forgets_everything_costs_sessions_at_most() {
    let mut world = World::start().await;
    world.cluster.redis().flush().await;
    let forgotten = Instant::now();
    world.ends("FLUSHALL", 1, sessions_suffer(forgotten)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_restarts_costs_sessions_at_most() {
    let mut world = World::start().await;
    world.cluster.redis().stop().await;
    tokio::time::sleep(OUTAGE).await;
    world.cluster.redis().come_back().await;
    let back = Instant::now();
    // Once when local limits take over, and once when Redis is back and knows nothing.
    world.ends("a restart of Redis", 2, sessions_suffer(back)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stands_still_costs_sessions_at_most() {
    let mut world = World::start().await;
    world.cluster.redis().pause();
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.cluster.redis().go_on().await;
    let back = Instant::now();
    world.ends("a pause of Redis", 2, sessions_suffer(back)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_cannot_reach_redis_costs_sessions_at_most() {
    let world = World::start().await;
    world.cluster.way_to_redis(0).freeze();
    tokio::time::sleep(OUTAGE).await;
    world.cluster.way_to_redis(0).heal();
    let back = Instant::now();
    world.ends("a partition from Redis", 1, sessions_suffer(back)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_cannot_reach_postgresql_costs_nobody_anything() {
    let world = World::start().await;
    world.cluster.way_to_postgres(0).freeze();
    eventually("the replica to say so", async || world.cluster.readiness(0).await == 503).await;
    tokio::time::sleep(OUTAGE).await;
    world.cluster.way_to_postgres(0).heal();
    world.ends("a partition from PostgreSQL", 0, |_| false).await;
}

/// Every recorded call of a tenant.
async fn recorded(world: &Cluster, tenant: weir::id::TenantId) -> BTreeSet<String> {
    let (mut all, mut after) = (BTreeSet::new(), None);
    let ever = Timestamp::from_micros(0)..Timestamp::from_micros(i64::MAX);
    loop {
        let page = Page { after, limit: Page::<weir::id::CallId>::MAX };
        let listed = calls::list_day(&world.db, tenant, None, ever.clone(), page).await.expect("a list");
        after = listed.rows.last().map(|row| row.id);
        all.extend(listed.rows.iter().map(|row| row.id.to_string()));
        if !listed.more {
            return all;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_restarts_costs_nobody_anything_who_is_known() {
    let mut world = World::start().await;
    let unknown = world.cluster.caller().await;
    world.cluster.postgres().stop().await;
    let away = Instant::now();
    let stranger = Modern::new(&world.cluster, &unknown);
    let refused = stranger.send("tools/list", json!({})).await;
    assert_eq!(refused.error(), (503, -31006), "{}", refused.text);
    tokio::time::sleep(OUTAGE.saturating_sub(away.elapsed())).await;
    world.cluster.postgres().come_back().await;
    let tenants: Vec<_> = world.load.tenants().iter().map(|tenant| tenant.key.tenant).collect();
    world.load.recovers("a restart of PostgreSQL").await;
    eventually("the stranger to be known", async || {
        stranger.send("tools/list", json!({})).await.status == 200
    })
    .await;
    // The cluster goes with the end of the story, which the records have to be read before.
    let World { cluster, load, greedy } = world;
    cluster.is_whole().await;
    let (accepted, time, wrong) = greedy.stop().await;
    let answered = load.stop(|_| false).await;
    assert!(accepted <= RATE.most(time, 0, 3), "{accepted} within {time:?}");
    assert_eq!(wrong, Vec::<String>::new());
    eventually("the record of every call that was answered", async || {
        let mut known = BTreeSet::new();
        for tenant in &tenants {
            known.append(&mut recorded(&cluster, *tenant).await);
        }
        answered.is_subset(&known)
    })
    .await;
}
