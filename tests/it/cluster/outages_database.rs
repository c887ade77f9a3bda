//! PostgreSQL goes away and comes back. What is known goes on for as long as it may, what needs the database is refused at
//! once and says so, nothing that was recorded is lost, and all is well within five seconds of its return.

use std::process::Command;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;
use weir::calls;
use weir::clock::{Clock, Timestamp};
use weir::db::Page;
use weir::id::CallId;

use crate::support::cluster::{authority, through};
use crate::support::fault::Fault;
use crate::support::gateway::Builder;
use crate::support::services::{Deployment, needed};
use crate::support::{Gateway, Key, Legacy, Modern, Reply, eventually};

/// How long all may take to be well again.
const RECOVERY: Duration = Duration::from_secs(5);
/// What is refused without being tried takes no longer, on a machine that has other things to do.
const AT_ONCE: Duration = Duration::from_secs(1);

/// How the database goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outage {
    /// Connections break, and new ones are refused.
    Refused,
    /// Nothing is said any more; what was open then never works again.
    Silent,
}

use Outage::{Refused, Silent};

fn turn(way: &Fault, how: Outage) {
    match how {
        Refused => way.cut(),
        Silent => way.freeze(),
    }
}

struct World {
    gateway: Gateway,
    way: Fault,
}

impl World {
    /// A gateway on a database that can be cut off.
    async fn start(adjust: impl FnOnce(Builder) -> Builder) -> Self {
        let (deployment, way) = Deployment::behind_a_fault().await;
        Self { gateway: adjust(Gateway::build().on(deployment)).start().await, way }
    }

    /// The database goes away, and Weir notices.
    async fn cut(&self, how: Outage) {
        turn(&self.way, how);
        let up = || self.gateway.metric("weir_database_up");
        eventually("the outage to be noticed", async || up() == 0.0).await;
    }

    async fn ready(&self) -> Reply {
        self.gateway.request(Method::GET, "/ready").send().await
    }

    /// The database is there again, and so does everything else in time.
    async fn heal(&self) {
        self.way.renew();
        let healed = Instant::now();
        eventually("readiness", async || self.ready().await.status == 200).await;
        assert!(healed.elapsed() < RECOVERY, "{:?}", healed.elapsed());
        assert_eq!(self.gateway.metric("weir_database_up"), 1.0);
    }

    async fn calls(&self, key: &Key) -> usize {
        self.gateway.app.usage.flush().await;
        let mut page = Page::<CallId>::first(Page::<CallId>::MAX);
        let all = Timestamp::from_micros(0)..Timestamp::from_micros(i64::MAX);
        let mut count = 0;
        loop {
            let listed = calls::list_day(&self.gateway.app.db, key.tenant, None, all.clone(), page).await;
            let listed = listed.expect("the database");
            count += listed.rows.len();
            page.after = listed.rows.last().map(|row| row.id);
            if !listed.more {
                return count;
            }
        }
    }
}

/// Another process of the same deployment, whose way to the database works.
async fn elsewhere(world: &World) -> Gateway {
    let url = through(world.gateway.database_url(), authority(&needed("WEIR_TEST_POSTGRES")));
    world.gateway.replica().set("database.url", url).start().await
}

fn clock() -> Clock {
    Clock::manual(Timestamp::from_micros(1_790_000_000_000_000))
}

fn unavailable(reply: &Reply) {
    assert_eq!(reply.error(), (503, -31006), "{} {:?}", reply.text, reply.messages);
    assert_eq!(reply.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn known_credentials_work_for_the_configured_time() {
    for how in [Refused, Silent] {
        let clock = clock();
        let adjust = |gateway: Builder| {
            gateway.clock(&clock).set("auth.cache_ttl_ms", 60_000).set("auth.stale_ms", 120_000)
        };
        let world = World::start(adjust).await;
        let gateway = &world.gateway;
        let (key, stranger) = (gateway.caller().await, gateway.caller().await);
        let client = Modern::new(gateway, &key);
        let session = Legacy::open(gateway, &key, "2025-11-25").await;
        assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x");

        world.cut(how).await;
        assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x", "fresh");
        clock.advance(Duration::from_secs(61));
        assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x", "old");
        assert_eq!(session.call("echo", json!({ "text": "y" })).await.tool_text(), "y");
        unavailable(&Modern::new(gateway, &stranger).call("echo", json!({ "text": "x" })).await);
        clock.advance(Duration::from_secs(58));
        assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x", "very old");
        clock.advance(Duration::from_secs(2));
        unavailable(&client.call("echo", json!({ "text": "x" })).await);

        world.heal().await;
        for key in [&key, &stranger] {
            let reply = Modern::new(gateway, key).call("echo", json!({ "text": "x" })).await;
            assert_eq!(reply.tool_text(), "x");
        }
    }
}

#[tokio::test]
async fn known_credentials_do_not_count_as_strangers_while_they_stand_in() {
    let clock = clock();
    let adjust = |gateway: Builder| {
        let gateway = gateway.clock(&clock).set("auth.cache_ttl_ms", 1000);
        gateway.set("limits.ip.per_second", 1).set("limits.ip.burst", 3)
    };
    let world = World::start(adjust).await;
    let client = Modern::new(&world.gateway, &world.gateway.caller().await);
    assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    world.cut(Refused).await;
    for _ in 0..10 {
        clock.advance(Duration::from_secs(2));
        assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    }
}

#[tokio::test]
async fn what_needs_the_database_is_refused_at_once_and_says_so() {
    for how in [Refused, Silent] {
        let world = World::start(|gateway| gateway).await;
        let gateway = &world.gateway;
        let operator = gateway.operator().await;
        let key = gateway.caller().await;
        let known = Modern::new(gateway, &gateway.caller().await);
        assert_eq!(known.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
        let client = Modern::new(gateway, &key);

        // Even before it is known, nobody waits for longer than `database.acquire_timeout_ms` and a look.
        turn(&world.way, how);
        let asked = Instant::now();
        unavailable(&client.call("echo", json!({ "text": "x" })).await);
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        world.cut(how).await;

        let asked = Instant::now();
        unavailable(&client.call("echo", json!({ "text": "x" })).await);
        let create = operator.post("/admin/v1/tenants", json!({ "name": "during the outage" })).await;
        let today = "logs://calls/2026-01-01";
        let read = known.send("resources/read", json!({ "uri": today })).await;
        let ready = world.ready().await;
        let health = gateway.request(Method::GET, "/health").send().await;
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());

        assert_eq!((create.status, &create.json()["code"]), (503, &json!("unavailable")));
        let detail = create.json()["detail"].as_str().expect("a sentence");
        assert_eq!(detail, "the database is not available, so nothing was done; try again");
        let kind = create.header("content-type");
        assert_eq!((create.header("retry-after"), kind), (Some("1"), Some("application/problem+json")));
        assert_eq!(read.json()["error"]["code"], -31006, "{:?}", read.messages);
        assert_eq!(read.json()["error"]["data"]["retryable"], true);
        let down = json!({ "database": { "engine": "postgres", "state": "down" } });
        let expected = json!({ "status": "unavailable", "dependencies": down });
        assert_eq!((ready.status, ready.json()), (503, &expected));
        assert_eq!((health.status, &health.json()["status"]), (200, &json!("degraded")));
        assert_eq!(health.json()["dependencies"], down);
        assert!(gateway.metric("weir_database_refused_total") >= 3.0);

        world.heal().await;
        let create = operator.post("/admin/v1/tenants", json!({ "name": "after the outage" })).await;
        assert_eq!(create.status, 201);
        let names = operator.get("/admin/v1/tenants").await;
        assert!(!names.text.contains("during the outage"), "{}", names.text);
        assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
        assert!(known.send("resources/read", json!({ "uri": today })).await.result().is_object());
        // More than there are connections: none of them is lost to what was open when the network failed.
        let all = (0..20).map(|_| operator.get("/admin/v1/tenants"));
        assert!(futures_util::future::join_all(all).await.iter().all(|reply| reply.status == 200));
    }
}

#[tokio::test]
async fn no_record_of_a_call_is_lost_to_an_outage() {
    for how in [Refused, Silent] {
        let world = World::start(|gateway| gateway.set("limits.key.per_second", 100_000)).await;
        let key = world.gateway.caller().await;
        let client = Modern::new(&world.gateway, &key);
        let mut made = 0;
        let mut call = async || {
            let reply = client.call("echo", json!({ "text": "x" })).await;
            assert_eq!(reply.tool_text(), "x", "a free call is answered");
            made += 1;
        };
        call().await;
        turn(&world.way, how);
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            call().await;
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        assert_eq!(world.gateway.metric("weir_database_up"), 0.0);
        assert!(world.gateway.metric("weir_calls_queue_length") > 0.0);
        world.heal().await;
        call().await;
        eventually("every record", async || world.calls(&key).await == made).await;
        assert_eq!(world.gateway.metric("weir_calls_dropped_total"), 0.0);
    }
}

#[tokio::test]
async fn a_revocation_made_during_an_outage_is_heard_after_it() {
    let world = World::start(|gateway| gateway).await;
    let key = world.gateway.caller().await;
    let client = Modern::new(&world.gateway, &key);
    assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    let elsewhere = elsewhere(&world).await;
    let operator = elsewhere.operator().await;
    world.cut(Silent).await;
    let path = format!("/admin/v1/tenants/{}/keys/{}", key.tenant, key.id);
    assert_eq!(operator.delete(&path).await.status, 200);
    assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x", "it cannot know yet");
    world.way.renew();
    let healed = Instant::now();
    eventually("the refusal", async || {
        client.call("echo", json!({ "text": "x" })).await.error() == (401, -31002)
    })
    .await;
    assert!(healed.elapsed() < RECOVERY, "{:?}", healed.elapsed());
}

#[tokio::test]
async fn a_stop_during_an_outage_ends() {
    for how in [Refused, Silent] {
        // Each of the last tries takes so long.
        let mut world = World::start(|gateway| gateway.set("database.acquire_timeout_ms", 300)).await;
        let client = Modern::new(&world.gateway, &world.gateway.caller().await);
        client.call("echo", json!({ "text": "x" })).await.result();
        world.cut(how).await;
        client.call("echo", json!({ "text": "x" })).await.result();
        world.gateway.begin_stop();
        world.gateway.stopped().await;
        assert!(world.gateway.metric("weir_calls_dropped_total") > 0.0, "what is lost is counted");
    }
}

#[tokio::test]
async fn commands_say_what_is_wrong() {
    let (deployment, way) = Deployment::behind_a_fault().await;
    let url = deployment.database_url();
    for (how, why) in [(Refused, "Connection refused"), (Silent, "it does not answer")] {
        turn(&way, how);
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(["tenant", "create", "x"]).env_clear();
        command.env("WEIR_DATABASE__URL", url).env("WEIR_DATABASE__ACQUIRE_TIMEOUT_MS", "500");
        let ran = tokio::task::spawn_blocking(move || command.output().expect("the binary runs"));
        let output = ran.await.expect("no panic");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(text.starts_with("error: the database is not available: ") && text.contains(why), "{text}");
        assert!(!text.contains(url), "{text}");
    }
}
