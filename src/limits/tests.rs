//! Several replicas in one process, on the twin of what they share in Redis: no schedule lets in more than was promised.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64};

use futures_util::future::join_all;
use proptest::prelude::*;
use tokio::sync::watch;
use tokio::task::yield_now;

use super::*;
use crate::caller::{CallerData, Credential, Principal};
use crate::clock::Timestamp;
use crate::config::{Layers, Rate};
use crate::id::{KeyId, TenantId};
use crate::policy::Scopes;
use crate::redis::limits::twin::Twin;

/// What becomes of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    /// It never gets there.
    Lost,
    /// It gets there, and its answer is lost.
    Unheard,
}

/// What the replicas share.
struct World {
    twin: Mutex<Twin>,
    clock: Clock,
    replicas: AtomicU32,
    up: AtomicBool,
    fates: Mutex<VecDeque<Fate>>,
    recalled: Mutex<Vec<TenantId>>,
    trips: AtomicU64,
    connected: watch::Sender<u64>,
}

/// It, as one replica reaches it.
pub struct Fake {
    world: Arc<World>,
    me: u32,
    number: AtomicU64,
}

impl Fake {
    pub(super) fn replicas(&self) -> u32 {
        self.world.replicas.load(Ordering::Relaxed)
    }

    pub(super) fn is_up(&self) -> bool {
        self.world.up.load(Ordering::Relaxed)
    }

    pub(super) fn connected(&self) -> watch::Receiver<u64> {
        self.world.connected.subscribe()
    }

    pub(super) fn recall(&self, tenant: TenantId) {
        self.world.recalled.lock().expect("no panic").push(tenant);
    }

    pub(super) async fn lease(&self, lease: &Lease<'_>) -> Result<Leased, Down> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        self.world.trips.fetch_add(1, Ordering::Relaxed);
        let fate = self.world.fates.lock().expect("no panic").pop_front().unwrap_or(Fate::Answered);
        yield_now().await;
        if fate == Fate::Lost {
            return Err(Down);
        }
        let now = self.world.clock.monotonic_micros();
        let leased = self.world.twin.lock().expect("no panic").lease(now, self.me, number, lease);
        yield_now().await;
        if fate == Fate::Unheard { Err(Down) } else { Ok(leased) }
    }
}

/// So many replicas that share what they may use.
struct Cluster {
    world: Arc<World>,
    replicas: Vec<Limits>,
}

impl Cluster {
    fn new(replicas: u32, without: WithoutRedis) -> Self {
        let clock = Clock::manual(Timestamp::from_micros(1_790_000_000_000_000));
        let world = Arc::new(World {
            twin: Mutex::default(),
            clock: clock.clone(),
            replicas: AtomicU32::new(replicas),
            up: AtomicBool::new(true),
            fates: Mutex::default(),
            recalled: Mutex::default(),
            trips: AtomicU64::new(0),
            connected: watch::Sender::new(0),
        });
        let config = config::Limits { without_redis: without, ..defaults() };
        let metrics = Arc::new(Metrics::new(clock.now()).expect("metrics"));
        let replica = |me| {
            let fake = Fake { world: world.clone(), me, number: AtomicU64::new(1) };
            Limits::new(&config, clock.clone(), Some(Shared::Twin(fake)), metrics.clone())
        };
        Self { replicas: (0..replicas).map(replica).collect(), world }
    }

    fn advance(&self, micros: u32) {
        self.world.clock.advance(Duration::from_micros(micros.into()));
    }

    fn now(&self) -> i64 {
        self.world.clock.monotonic_micros()
    }

    fn trips(&self) -> u64 {
        self.world.trips.load(Ordering::Relaxed)
    }

    /// What upkeep does in its turn, and what the other replicas do when one asks for their places.
    async fn turn(&self) {
        let recalled = std::mem::take(&mut *self.world.recalled.lock().expect("no panic"));
        for replica in &self.replicas {
            recalled.iter().for_each(|tenant| replica.give_back(*tenant));
            replica.settle_all(replica.shared.as_ref().expect("shared")).await;
        }
    }
}

fn defaults() -> config::Limits {
    Layers::default().load().expect("the defaults").limits
}

fn caller(tenant: TenantId, limits: EffectiveLimits) -> Caller {
    Caller::new(CallerData {
        principal: Principal { tenant, credential: Credential::ApiKey(KeyId::new()) },
        tenant_name: "t".to_owned(),
        plan: "p".to_owned(),
        credential_name: "k".to_owned(),
        scopes: Scopes::default(),
        expires_at: None,
        limits: Arc::new(limits),
        metered: false,
    })
}

fn limits(tenant: (u32, u32), key: (u32, u32)) -> EffectiveLimits {
    let rate = |(per_second, burst)| Rate { per_second, burst };
    EffectiveLimits {
        tenant: rate(tenant),
        key: rate(key),
        concurrency: 1_000_000,
        ..EffectiveLimits::new(&defaults(), None, None)
    }
}

fn run<T>(story: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(story)
}

/// Tokens that all replicas together may have ahead.
fn ahead(burst: u32, replicas: u32) -> u64 {
    u64::from(replicas * (burst / (8 * replicas)))
}

/// Whether some span of time has seen more than was promised.
fn excess(admitted: &[i64], (per_second, burst): (u32, u32), replicas: u32) -> Option<String> {
    for (at, from) in admitted.iter().enumerate() {
        for (count, until) in (1_u64..).zip(&admitted[at..]) {
            let refilled = u64::try_from(until - from).expect("in order") * u64::from(per_second) / 1_000_000;
            let promised = u64::from(burst) + refilled + ahead(burst, replicas);
            if count > promised {
                return Some(format!("{count} of {promised} within {} us", until - from));
            }
        }
    }
    None
}

const PLAIN: Asked<'static> = Asked { bytes: 0, tool: None, runs: false };

proptest! {
    #![proptest_config(crate::fuzz::config(150))]

    /// Requests of two credentials of a tenant, several at once, on several replicas: whatever the schedule, no span of time
    /// sees more than was promised, and nobody asks twice for one request.
    #[test]
    fn rates_are_kept_over_all_replicas(
        replicas in 1_u32..6,
        tenant in (1_u32..400, 1_u32..300),
        key in (1_u32..400, 1_u32..300),
        steps in proptest::collection::vec((0_u32..30_000, 0_usize..6, 0_usize..2, 1_usize..9), 1..80),
    ) {
        let wrong = run(async {
            let cluster = Cluster::new(replicas, WithoutRedis::Refuse);
            let (id, limits) = (TenantId::new(), limits(tenant, key));
            let callers = [caller(id, limits.clone()), caller(id, limits)];
            let (mut of_tenant, mut of_key) = (Vec::new(), [Vec::new(), Vec::new()]);
            let mut asked = 0;
            for (pause, replica, who, at_once) in steps {
                cluster.advance(pause);
                let replica = &cluster.replicas[replica % cluster.replicas.len()];
                let all = join_all((0..at_once).map(|_| replica.admit(&callers[who], PLAIN))).await;
                asked += at_once as u64;
                let admitted = all.iter().filter(|one| one.is_ok()).count();
                of_tenant.extend(std::iter::repeat_n(cluster.now(), admitted));
                of_key[who].extend(std::iter::repeat_n(cluster.now(), admitted));
            }
            let wrong = excess(&of_tenant, tenant, replicas);
            let wrong = wrong.or(of_key.iter().find_map(|of_key| excess(of_key, key, replicas)));
            wrong.or((cluster.trips() > asked).then(|| format!("{} trips for {asked}", cluster.trips())))
        });
        prop_assert_eq!(wrong, None);
    }

    /// Places taken and given back, by requests that may be given up half-way, over a connection that loses things: never
    /// more in use than there are. When all are free again, one replica can have all.
    #[test]
    fn places_are_never_more_than_there_are(
        replicas in 1_u32..5,
        limit in 1_u32..40,
        steps in proptest::collection::vec((0_usize..5, 0_u32..8, 0_u32..200_000, 0_usize..4), 1..150),
        fates in proptest::collection::vec(prop_oneof![8 => Just(Fate::Answered), 1 => Just(Fate::Lost), 1 => Just(Fate::Unheard)], 0..60),
    ) {
        run(async {
            let cluster = Cluster::new(replicas, WithoutRedis::Refuse);
            *cluster.world.fates.lock().expect("no panic") = fates.into();
            let caller = caller(TenantId::new(), EffectiveLimits { streams: limit, ..limits((1, 1), (1, 1)) });
            let mut used: Vec<Vec<Place>> = (0..replicas).map(|_| Vec::new()).collect();
            for (number, action, pause, polls) in steps {
                cluster.advance(pause);
                let at = number % used.len();
                let replica = &cluster.replicas[at];
                match action {
                    0..3 => used[at].extend(replica.place(&caller, Scope::Streams).await.ok()),
                    3 => {
                        let mut many: Vec<_> = Vec::new();
                        many.extend((0..4).map(|_| Box::pin(replica.place(&caller, Scope::Streams))));
                        for _ in 0..polls {
                            let mut left = Vec::new();
                            for mut one in many {
                                if futures_util::poll!(&mut one).is_pending() {
                                    left.push(one);
                                }
                            }
                            many = left;
                            yield_now().await;
                        }
                    }
                    4..7 => drop(used[at].pop()),
                    _ => cluster.turn().await,
                }
                let all: usize = used.iter().map(Vec::len).sum();
                assert!(all <= limit as usize, "{all} of {limit}");
            }
            used.clear();
            cluster.world.fates.lock().expect("no panic").clear();
            let mut all = Vec::new();
            for _ in 0..20 {
                cluster.advance(1_000_000);
                cluster.turn().await;
                while let Ok(place) = cluster.replicas[0].place(&caller, Scope::Streams).await {
                    all.push(place);
                }
            }
            assert_eq!(all.len(), limit as usize, "some places were lost");
        });
    }
}

#[test]
fn far_below_the_limit_few_requests_ask_and_at_it_none_twice() {
    run(async {
        let cluster = Cluster::new(3, WithoutRedis::Refuse);
        let runs = Asked { runs: true, ..PLAIN };
        let caller =
            caller(TenantId::new(), EffectiveLimits { concurrency: 32, ..limits((100, 200), (50, 100)) });
        for number in 0..1_000 {
            cluster.advance(100_000);
            cluster.replicas[number % 3].admit(&caller, runs).await.expect("far below");
            cluster.turn().await;
        }
        let trips = cluster.trips();
        assert!(trips <= 205, "{trips} trips for 1000 requests");

        // Ten times as many as are allowed.
        let mut admitted = 0;
        for number in 0..5_000 {
            cluster.advance(2_000);
            admitted += usize::from(cluster.replicas[number % 3].admit(&caller, runs).await.is_ok());
        }
        assert!((500..=100 + 500 + 12).contains(&admitted), "{admitted} in ten seconds at 50 a second");
        let asked = cluster.trips() - trips;
        assert!(asked <= 2_500, "{asked} trips for 5000 requests");
    });
}

#[test]
fn those_who_wait_are_leased_for_together() {
    run(async {
        let cluster = Cluster::new(3, WithoutRedis::Refuse);
        let caller = caller(TenantId::new(), limits((10, 11), (10, 11)));
        let all = join_all((0..30).map(|_| cluster.replicas[0].admit(&caller, PLAIN))).await;
        assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 11);
        assert_eq!(cluster.trips(), 3, "the first for itself, the next for ten, one that finds nothing");
        let refused = all.into_iter().find_map(Result::err).expect("refusals");
        assert_eq!((refused.scope, refused.retry_after), (Scope::Key, Duration::from_millis(100)));
        assert!(cluster.replicas[0].look(&caller).is_err());
        cluster.advance(100_000);
        assert!(cluster.replicas[0].look(&caller).is_ok());
        let standing = cluster.replicas[1].admit(&caller, PLAIN).await.expect("a token").standing;
        assert_eq!((standing.limit, standing.remaining), (11, 0));
    });
}

#[test]
fn another_rate_counts_at_once() {
    run(async {
        let cluster = Cluster::new(1, WithoutRedis::Refuse);
        let (tenant, wide, narrow) =
            (TenantId::new(), limits((10, 400), (10, 400)), limits((10, 5), (10, 5)));
        let caller = caller(tenant, wide);
        let data = caller.data();
        let narrowed = Caller::new(CallerData {
            principal: data.principal.clone(),
            tenant_name: String::new(),
            plan: String::new(),
            credential_name: String::new(),
            scopes: Scopes::default(),
            expires_at: None,
            limits: Arc::new(narrow),
            metered: false,
        });
        let replica = &cluster.replicas[0];
        for _ in 0..10 {
            replica.admit(&caller, PLAIN).await.expect("plenty");
        }
        assert!(replica.admit(&narrowed, PLAIN).await.is_err(), "what was leased ahead counts no more");
        assert!(replica.admit(&caller, PLAIN).await.is_ok(), "a refusal counts for its own rate only");
    });
}

#[test]
fn bytes_are_known_everywhere_and_charged_whole() {
    run(async {
        let cluster = Cluster::new(2, WithoutRedis::Refuse);
        let rate = Rate { per_second: 1_000, burst: 10_000 };
        let caller = caller(
            TenantId::new(),
            EffectiveLimits { bytes: Some(rate), ..limits((1000, 1000), (1000, 1000)) },
        );
        let of = |bytes| Asked { bytes, ..PLAIN };
        cluster.replicas[0].admit(&caller, of(50_000)).await.expect("nobody is cut off half-way");
        let refused = cluster.replicas[1].admit(&caller, of(1)).await.expect_err("too much");
        assert_eq!(refused.scope, Scope::Bytes);
        assert!(
            (Duration::from_secs(40)..Duration::from_secs(41)).contains(&refused.retry_after),
            "{refused:?}"
        );
        cluster.advance(60_000_000);
        cluster.replicas[1].admit(&caller, of(0)).await.expect("drained");
        // Answers count as well: those within what was leased ahead, and the rest as soon as it is told.
        cluster.replicas[0].charge(&caller, 30_000);
        cluster.turn().await;
        assert_eq!(
            cluster.replicas[1].admit(&caller, of(2_000)).await.expect_err("too much").scope,
            Scope::Bytes
        );
    });
}

#[test]
fn without_the_others_each_has_its_share() {
    run(async {
        let cluster = Cluster::new(4, WithoutRedis::Local);
        let caller = caller(TenantId::new(), EffectiveLimits { streams: 9, ..limits((100, 40), (100, 400)) });
        cluster.world.up.store(false, Ordering::Relaxed);
        for replica in &cluster.replicas {
            let mut admitted = 0;
            while replica.admit(&caller, PLAIN).await.is_ok() {
                admitted += 1;
            }
            assert_eq!(admitted, 10, "40 / 4");
            let first = replica.place(&caller, Scope::Streams).await.expect("one of two");
            let _second = replica.place(&caller, Scope::Streams).await.expect("the other");
            assert_eq!(
                replica.place(&caller, Scope::Streams).await.expect_err("9 / 4").scope,
                Scope::Streams
            );
            drop(first);
        }
        cluster.advance(40_000);
        assert!(cluster.replicas[0].admit(&caller, PLAIN).await.is_ok(), "a quarter of the rate");
        assert!(cluster.replicas[0].admit(&caller, PLAIN).await.is_err());

        // Back together: what was let in meanwhile counts.
        cluster.world.up.store(true, Ordering::Relaxed);
        let mut admitted = 0;
        while cluster.replicas[0].admit(&caller, PLAIN).await.is_ok() {
            admitted += 1;
        }
        assert!(admitted <= 40, "{admitted}");
        for replica in &cluster.replicas[1..] {
            let _ = replica.admit(&caller, PLAIN).await;
        }
        cluster.advance(100_000);
        let more = join_all((0..40).map(|_| cluster.replicas[0].admit(&caller, PLAIN))).await;
        assert!(more.iter().filter(|one| one.is_ok()).count() <= 10, "nobody got a second burst");
    });
}

#[test]
fn without_the_others_nobody_is_let_in_where_that_is_configured() {
    run(async {
        let cluster = Cluster::new(2, WithoutRedis::Refuse);
        let caller = caller(TenantId::new(), limits((100, 4), (100, 4)));
        cluster.world.fates.lock().expect("no panic").push_back(Fate::Lost);
        let refused = cluster.replicas[0].admit(&caller, PLAIN).await.expect_err("nobody knows");
        assert_eq!(refused.scope, Scope::Unavailable);
        assert_eq!(
            cluster.replicas[0].admit(&caller, PLAIN).await.expect_err("nobody asks").scope,
            Scope::Unavailable
        );
        assert_eq!(cluster.trips(), 1, "one who found nobody there speaks for all, for a moment");
        cluster.advance(100_000);
        assert!(cluster.replicas[0].admit(&caller, PLAIN).await.is_ok());
    });
}

#[test]
fn what_was_in_use_is_known_again_after_everything_was_forgotten() {
    run(async {
        let cluster = Cluster::new(2, WithoutRedis::Refuse);
        let caller = caller(TenantId::new(), EffectiveLimits { streams: 4, ..limits((1, 1), (1, 1)) });
        let [a, b] = &cluster.replicas[..] else { panic!("two") };
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(a.place(&caller, Scope::Streams).await.expect("free"));
        }
        cluster.world.twin.lock().expect("no panic").flush();
        a.reassert();
        b.reassert();
        cluster.turn().await;
        let _last = b.place(&caller, Scope::Streams).await.expect("one is left");
        assert!(b.place(&caller, Scope::Streams).await.is_err());
        // One that died has them no more, and saying so twice changes nothing.
        for _ in 0..2 {
            cluster.world.twin.lock().expect("no panic").forget(0);
        }
        let mut free = 0;
        while let Ok(place) = b.place(&caller, Scope::Streams).await {
            held.push(place);
            free += 1;
        }
        assert_eq!(free, 3);
    });
}

#[test]
fn idle_places_are_given_back() {
    run(async {
        let cluster = Cluster::new(2, WithoutRedis::Refuse);
        let caller = caller(TenantId::new(), EffectiveLimits { streams: 8, ..limits((1, 1), (1, 1)) });
        let [a, b] = &cluster.replicas[..] else { panic!("two") };
        drop(a.place(&caller, Scope::Streams).await.expect("free"));
        cluster.turn().await;
        let mut held = Vec::new();
        while let Ok(place) = b.place(&caller, Scope::Streams).await {
            held.push(place);
        }
        assert_eq!(held.len(), 7, "the other keeps one at hand");
        cluster.turn().await;
        held.push(b.place(&caller, Scope::Streams).await.expect("it was asked for it"));
        held.clear();
        cluster.turn().await;
        drop(a.place(&caller, Scope::Streams).await.expect("free"));
        for _ in 0..2 {
            [a, b].iter().for_each(|replica| replica.go_round(false));
            cluster.turn().await;
        }
        [a, b].iter().for_each(|replica| replica.known.each_tenant(|tenant| assert!(!tenant.is_held())));
    });
}
