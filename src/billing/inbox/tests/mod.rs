//! Whatever comes in which order and how often, and whoever works on it: in the end the mirror says what Stripe says.

mod edges;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use secrecy::SecretString;
use tokio::sync::Barrier;

use super::envelope::Envelope;
use super::*;
use crate::audit::Actor;
use crate::billing::mirror::{Customer, Fetched, Found, Subject};
use crate::db::mirror::invoices::Invoice;
use crate::db::mirror::subscriptions::{self, Subscription};
use crate::db::stripe_events::{ObjectKind, Via};
use crate::db::testing::{execute, number, on_every_engine, open_account};
use crate::fuzz;
use crate::id::{ReplicaId, TenantId};

const START: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
const CUSTOMER: &str = "cus_1";

/// What Stripe says, and how it is to be asked.
#[derive(Default)]
struct Says {
    objects: HashMap<String, Found>,
    /// These are not answered.
    broken: bool,
    /// Whoever asks for it waits twice here: when it was read, and before it is told.
    slow: HashMap<String, Arc<Barrier>>,
    asked: usize,
}

#[derive(Clone, Default)]
struct Provider(Arc<Mutex<Says>>);

impl Provider {
    fn says(&self) -> MutexGuard<'_, Says> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, id: &str, found: Found) {
        self.says().objects.insert(id.to_owned(), found);
    }
}

impl Source for Provider {
    async fn fetch(&self, subject: &Subject) -> Result<Found, String> {
        let (found, slow) = {
            let mut says = self.says();
            says.asked += 1;
            if says.broken {
                return Err("it is broken".to_owned());
            }
            let found = says.objects.get(&subject.id).cloned().unwrap_or(Found::Nothing);
            (found, says.slow.remove(&subject.id))
        };
        if let Some(slow) = slow {
            slow.wait().await;
            slow.wait().await;
        }
        Ok(found)
    }
}

/// A subscription in its so manieth state.
fn state(id: &str, version: i64) -> Subscription {
    Subscription {
        id: id.to_owned(),
        customer: CUSTOMER.to_owned(),
        status: format!("status {version}"),
        plan: (version % 2 == 0).then(|| "plus".to_owned()),
        plan_before: None,
        plan_from: None,
        billing_cycle_anchor: START,
        current_period_start: Some(START),
        current_period_end: None,
        trial_end: None,
        cancel_at: None,
        cancel_at_period_end: version % 3 == 0,
        canceled_at: None,
        ended_at: None,
        base_price: None,
        base_item: None,
        base_amount: Some(version),
        metered_item: None,
        latest_invoice: None,
        created_at: START,
    }
}

fn object(fetched: Fetched) -> Found {
    Found::Object(Box::new(fetched))
}

fn subscription(id: &str, version: i64) -> Found {
    object(Fetched::Subscription(state(id, version)))
}

struct World {
    db: Db,
    clock: Clock,
    provider: Provider,
    tenant: TenantId,
    events: usize,
}

impl World {
    async fn new(db: &Db) -> Self {
        crate::egress::install_crypto();
        let (clock, provider) = (Clock::manual(START), Provider::default());
        let name = ReplicaId::new().to_string();
        let tenant = crate::tenants::create(db, &clock, Actor::Cli, &name).await.expect("a tenant").id;
        open_account(db, tenant).await;
        crate::db::exports::insert_customer(db, tenant, CUSTOMER, START).await.expect("a customer");
        Self { db: db.clone(), clock, provider, tenant, events: 0 }
    }

    fn inbox(&self) -> Inbox<Provider> {
        let metrics = Metrics::register(&prometheus::Registry::new()).expect("metrics");
        let mut config = config::Layers::default().load().expect("the defaults").billing;
        config.stripe_key = SecretString::from("sk_test_0123456789");
        let follower = Follower {
            db: self.db.clone(),
            clock: self.clock.clone(),
            config: config.clone(),
            lead: Duration::ZERO,
            metrics: metrics.clone(),
        };
        Inbox {
            follower,
            stripe: Stripe::new(&config, &self.clock, &metrics).expect("a client"),
            db: self.db.clone(),
            clock: self.clock.clone(),
            source: self.provider.clone(),
            config,
            metrics,
            holder: ReplicaId::new().to_string(),
            bell: Arc::default(),
        }
    }

    /// An event of this id comes in. Whether it is new.
    async fn deliver(&self, id: &str, kind: ObjectKind, object: &str) -> bool {
        let event = Envelope {
            id: id.to_owned(),
            kind: "invoice.updated".to_owned(),
            created: START,
            livemode: false,
            subject: Subject { kind, id: object.to_owned() },
        };
        receive::store(&self.db, &self.clock, event, b"{}", Via::Hook).await.expect("a row")
    }

    /// One more event about an object.
    async fn hears_of(&mut self, kind: ObjectKind, object: &str) {
        self.events += 1;
        assert!(self.deliver(&format!("evt_new_{}", self.events), kind, object).await);
    }

    async fn subscription(&self, id: &str) -> Option<subscriptions::Subscription> {
        let row = subscriptions::get(&self.db, id).await.expect("a row")?;
        assert_eq!(row.tenant, self.tenant);
        Some(row.object)
    }

    /// How many events are how far.
    async fn states(&self) -> BTreeMap<&'static str, usize> {
        let mut states = BTreeMap::new();
        for event in rows::list(&self.db, None, 1000).await.expect("rows") {
            *states.entry(event.state.as_str()).or_default() += 1;
        }
        states
    }
}

/// What may happen in a schedule.
#[derive(Debug, Clone)]
enum Step {
    /// The object changes, and an event says so.
    Change(usize),
    /// One of the events so far comes in, perhaps once more.
    Deliver(proptest::sample::Index),
    /// One of two processes works on what is there.
    Work(usize),
    /// Both do at once.
    WorkTwice,
    /// A process claims an object and dies.
    Die(usize),
    /// A while passes.
    Wait,
}

fn schedule() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_usize..2).prop_map(Step::Change),
        6 => any::<proptest::sample::Index>().prop_map(Step::Deliver),
        3 => (0_usize..2).prop_map(Step::Work),
        1 => Just(Step::WorkTwice),
        1 => (0_usize..2).prop_map(Step::Die),
        1 => Just(Step::Wait),
    ];
    proptest::collection::vec(step, 0..24)
}

#[tokio::test]
async fn any_order_and_number_of_events_gives_the_same_mirror() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        let mut runner = TestRunner::new(fuzz::config(40));
        for case in 0..runner.config().cases {
            let steps = schedule().new_tree(&mut runner).expect("a schedule").current();
            let objects = [0, 1].map(|number| format!("sub_{case}_{number}"));
            play(&world, &objects, &steps).await;
        }
    })
    .await;
}

/// Plays a schedule, and then delivers what is left, newest first.
async fn play(world: &World, objects: &[String; 2], steps: &[Step]) {
    let inboxes = [world.inbox(), world.inbox()];
    let (mut versions, mut seen) = ([1_i64; 2], [0_i64; 2]);
    let mut events: Vec<(String, usize)> = Vec::new();
    for (object, version) in objects.iter().zip(versions) {
        world.provider.set(object, subscription(object, version));
    }
    for step in steps.iter().chain(&[Step::Change(0), Step::Change(1)]) {
        match step {
            Step::Change(which) => {
                versions[*which] += 1;
                let object = &objects[*which];
                world.provider.set(object, subscription(object, versions[*which]));
                events.push((format!("evt_{object}_{}", versions[*which]), *which));
            }
            Step::Deliver(index) if !events.is_empty() => {
                let (id, which) = index.get(&events);
                world.deliver(id, ObjectKind::Subscription, &objects[*which]).await;
            }
            Step::Deliver(_) => {}
            Step::Work(who) => {
                inboxes[*who].round().await.expect("a round");
            }
            Step::WorkTwice => {
                let (a, b) = tokio::join!(inboxes[0].round(), inboxes[1].round());
                a.and(b).expect("two rounds");
            }
            Step::Die(which) => {
                let now = world.clock.now();
                let until = now.plus(Duration::from_secs(300));
                rows::claim(&world.db, &objects[*which], "dead", (now, until)).await.expect("a claim");
            }
            Step::Wait => world.clock.advance(Duration::from_secs(301)),
        }
        for (which, object) in objects.iter().enumerate() {
            let version = world.subscription(object).await.and_then(|row| row.base_amount).unwrap_or(0);
            assert!(version >= seen[which], "an older state came back in {steps:?}");
            seen[which] = version;
        }
    }
    for (id, which) in events.iter().rev() {
        world.deliver(id, ObjectKind::Subscription, &objects[*which]).await;
        assert!(!world.deliver(id, ObjectKind::Subscription, &objects[*which]).await, "it is there");
    }
    world.clock.advance(Duration::from_secs(301));
    let (a, b) = tokio::join!(inboxes[0].round(), inboxes[1].round());
    a.and(b).expect("two rounds");
    inboxes[0].round().await.expect("a round");
    for (object, version) in objects.iter().zip(versions) {
        assert_eq!(world.subscription(object).await, Some(state(object, version)), "{steps:?}");
    }
    assert_eq!(number(&world.db, "select count(*) from stripe_events where state <> 'done'").await, 0);
}

#[tokio::test]
async fn what_was_asked_earlier_never_comes_after_what_was_asked_later() {
    on_every_engine(async |db| {
        let mut world = World::new(&db).await;
        let (slow, quick) = (world.inbox(), world.inbox());
        let gate = Arc::new(Barrier::new(2));
        world.provider.set("sub_1", subscription("sub_1", 1));
        world.provider.says().slow.insert("sub_1".to_owned(), gate.clone());
        world.hears_of(ObjectKind::Subscription, "sub_1").await;
        let provider = world.provider.clone();
        let clock = world.clock.clone();
        let meanwhile = async {
            gate.wait().await;
            // It was read, and not told yet. Nobody else asks as long as the claim holds.
            provider.set("sub_1", subscription("sub_1", 2));
            assert_eq!(quick.round().await.expect("a round"), Round::default());
            clock.advance(Duration::from_secs(301));
            assert_eq!(quick.round().await.expect("a round").done, 1);
            gate.wait().await;
        };
        let (round, ()) = tokio::join!(slow.round(), meanwhile);
        assert_eq!(round.expect("a round"), Round { lost: 1, ..Round::default() });
        let row = subscriptions::get(&world.db, "sub_1").await.expect("a row").expect("a row");
        assert_eq!((row.object.base_amount, row.revision), (Some(2), 1));
        assert_eq!(world.states().await, BTreeMap::from([("done", 1)]));
        assert_eq!(world.provider.says().asked, 2);
    })
    .await;
}

#[tokio::test]
async fn what_comes_while_it_is_asked_for_is_asked_for_again() {
    on_every_engine(async |db| {
        let mut world = World::new(&db).await;
        let inbox = world.inbox();
        let gate = Arc::new(Barrier::new(2));
        world.provider.set("sub_1", subscription("sub_1", 1));
        world.provider.says().slow.insert("sub_1".to_owned(), gate.clone());
        world.hears_of(ObjectKind::Subscription, "sub_1").await;
        world.hears_of(ObjectKind::Subscription, "sub_1").await;
        let meanwhile = async {
            gate.wait().await;
            world.provider.set("sub_1", subscription("sub_1", 2));
            world.hears_of(ObjectKind::Subscription, "sub_1").await;
            gate.wait().await;
        };
        let (round, ()) = tokio::join!(inbox.round(), meanwhile);
        assert_eq!(round.expect("a round").done, 2, "both first ones at once, then the third");
        assert_eq!(world.subscription("sub_1").await.and_then(|row| row.base_amount), Some(2));
        assert_eq!(world.states().await, BTreeMap::from([("done", 3)]));
    })
    .await;
}
