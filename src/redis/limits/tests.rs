//! The script against its twin, in Redis and out of it.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use redis::Script;

use super::twin::Twin;
use super::*;
use crate::redis::testing::on_redis;

/// A bucket's draw, by number: which bucket, and what of it.
type AnyDraw = (usize, (u32, u32), u32, u32, u32);
/// Places of a kind: limit, used, more, spare.
type AnyHold = (u32, u32, u32, u32);
/// Microseconds that pass, the replica, how much older its lease is than its last, and the lease.
type Step = (i64, u32, u64, Vec<AnyDraw>, Vec<AnyHold>);

const NAMES: [Name<'static>; 3] = [Name::Tenant, Name::Key("key_1"), Name::Bytes];
const RATES: [(u32, u32); 5] = [(1, 1), (3, 7), (100, 200), (100, 20), (1_000_000, 1_000_000)];
const BYTES: [(u32, u32); 3] = [(1, 1), (1_000_000, 30_000_000), (u32::MAX, u32::MAX)];

fn draws() -> impl Strategy<Value = Vec<AnyDraw>> {
    let requests = (0_usize..2, proptest::sample::select(RATES.to_vec()), 0_u32..3, 0_u32..6, 0_u32..9);
    let bytes =
        (Just(2_usize), proptest::sample::select(BYTES.to_vec()), 0_u32..5_000_000, 0_u32..99_999, 0_u32..9);
    (proptest::option::of(requests.clone()), proptest::option::of(requests), proptest::option::of(bytes))
        .prop_map(|(a, b, c)| {
            let b = b.filter(|b| a.as_ref().is_none_or(|a| a.0 != b.0));
            [a, b, c].into_iter().flatten().collect()
        })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let time = prop_oneof![4 => 0_i64..50_000, 1 => 0_i64..3_000_000, 1 => -500_000_i64..0];
    let hold = (1_u32..12, 0_u32..8, 0_u32..4, 0_u32..3);
    let older = prop_oneof![6 => Just(0_u64), 1 => 1_u64..4];
    let step = (time, 0_u32..3, older, draws(), proptest::collection::vec(hold, 0..3));
    proptest::collection::vec(step, 1..60)
}

fn lease<'a>(tenant: TenantId, draws: &[AnyDraw], holds: &[AnyHold]) -> Lease<'a> {
    let draw = |(which, (per_second, burst), owed, want, ahead): &AnyDraw| Draw {
        name: NAMES[*which],
        rate: Rate { per_second: *per_second, burst: *burst },
        owed: *owed,
        want: *want,
        ahead: *ahead,
        soft: *which == 2,
    };
    let hold = |((limit, used, more, spare), kind): (&AnyHold, Kind)| Hold {
        kind,
        limit: *limit,
        used: *used,
        more: *more,
        spare: *spare,
    };
    Lease {
        tenant,
        draws: draws.iter().map(draw).collect(),
        holds: holds.iter().zip(Kind::ALL).map(hold).collect(),
    }
}

/// The script on a clock that the test moves.
fn on_a_clock(script: &str, now: i64) -> Script {
    let time = format!("{{ {}, {} }}", now / 1_000_000, now % 1_000_000);
    assert_eq!(script.matches("redis.call('TIME')").count(), 1);
    Script::new(&script.replace("redis.call('TIME')", &time))
}

#[tokio::test]
async fn the_script_and_its_twin_decide_alike() {
    on_redis(async |redis| {
        let config = crate::fuzz::config(60);
        let cases = config.cases;
        let mut runner = TestRunner::new(config);
        for _ in 0..cases {
            let steps = steps().new_tree(&mut runner).expect("steps").current();
            let (tenant, mut twin) = (TenantId::new(), Twin::default());
            let replicas = [ReplicaId::new(), ReplicaId::new(), ReplicaId::new()];
            let mut now = 1_790_000_000_000_000_i64;
            for (number, (passed, replica, older, draws, holds)) in (10_u64..).zip(steps) {
                now += passed;
                let lease = lease(tenant, &draws, &holds);
                let number = number - older;
                let expected = twin.lease(now, replica, number, &lease);
                let store = Store {
                    script: on_a_clock(include_str!("lease.lua"), now),
                    number: AtomicU64::new(number),
                    ..Store::new(redis.clone(), replicas[replica as usize])
                };
                let found = store.lease(&lease).await.expect("Redis");
                assert_eq!(found, expected, "{lease:?} as number {number} of {replica} at {now}");
            }
        }
    })
    .await;
}

async fn keys_of(redis: &Redis, tenant: TenantId) -> Vec<String> {
    let pattern = format!("*{tenant}*");
    redis.run(redis::cmd("KEYS").arg(pattern)).await.expect("Redis")
}

fn plain<'a>(tenant: TenantId, used: u32, more: u32) -> Lease<'a> {
    lease(tenant, &[(0, (10, 10), 0, more, 0)], &[(2, used, more, 0)])
}

#[tokio::test]
async fn every_key_ends_by_itself() {
    on_redis(async |redis| {
        let (tenant, me) = (TenantId::new(), ReplicaId::new());
        let store = Store::new(redis.clone(), me);
        assert!(store.lease(&plain(tenant, 0, 1)).await.expect("Redis").granted);
        store.note(tenant, 1_000).await.expect("Redis");
        let mut keys = keys_of(&redis, tenant).await;
        assert_eq!(keys.len(), 2, "{keys:?}");
        keys.push(redis.keys().held_by(me));
        let mut lives = Vec::new();
        for key in &keys {
            let life: i64 = redis.run(redis::cmd("PTTL").arg(key)).await.expect("Redis");
            assert!(life > 0, "{key} stays for ever");
            lives.push(life);
        }
        lives.sort_unstable();
        assert!(lives[0] <= 1_100, "a bucket with one token missing of ten a second is soon full: {lives:?}");
        assert_eq!(store.lease(&plain(tenant, 0, 0)).await.expect("Redis").holds[0].total, 0);
        let places = redis.keys().of_tenant(tenant, Kind::Calls.name());
        let life: i64 = redis.run(redis::cmd("PTTL").arg(&places)).await.expect("Redis");
        assert!((0..=10_000).contains(&life), "places that nobody has: {life}");
    })
    .await;
}

#[tokio::test]
async fn what_a_dead_replica_had_is_given_back_once_or_twice() {
    on_redis(async |redis| {
        let (dead, living) = (ReplicaId::new(), ReplicaId::new());
        let (a, b) = (Store::new(redis.clone(), dead), Store::new(redis.clone(), living));
        let tenants: Vec<TenantId> = (0..50).map(|_| TenantId::new()).collect();
        for tenant in &tenants {
            assert!(a.lease(&plain(*tenant, 1, 1)).await.expect("Redis").granted);
            a.note(*tenant, 1_000).await.expect("Redis");
            assert!(!b.lease(&plain(*tenant, 0, 1)).await.expect("Redis").granted, "both places are taken");
        }
        for _ in 0..2 {
            b.forget(dead).await.expect("Redis");
            for tenant in &tenants {
                let taken = b.lease(&plain(*tenant, 1, 1)).await.expect("Redis");
                assert_eq!((taken.granted, taken.holds[0].total), (true, 2));
            }
        }
        a.note(tenants[0], 10_000).await.expect("Redis");
        let all: Vec<String> = redis
            .run(redis::cmd("ZRANGE").arg(redis.keys().held_by(dead)).arg(0).arg(-1))
            .await
            .expect("Redis");
        assert_eq!(all, [tenants[0].to_string()]);
        a.note(tenants[1], 10_000 + 3_601).await.expect("Redis");
        let all: Vec<String> = redis
            .run(redis::cmd("ZRANGE").arg(redis.keys().held_by(dead)).arg(0).arg(-1))
            .await
            .expect("Redis");
        assert_eq!(all, [tenants[1].to_string()], "what was noted long ago is dropped");
        a.leave().await.expect("Redis");
    })
    .await;
}
