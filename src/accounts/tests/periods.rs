//! Periods: when they begin and end, and what they include.

use super::*;

fn bounds(period: &Period) -> (String, String) {
    let short = |at: Timestamp| at.to_string().replace(".000000Z", "");
    (short(period.starts_at), short(period.ends_at))
}

fn texts(from: &str, to: &str) -> (String, String) {
    (from.to_owned(), to.to_owned())
}

#[tokio::test]
async fn the_first_period_begins_when_it_is_asked_for() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        assert_eq!(world.standing().await, Standing::default(), "a plan without prices");
        assert!(db::accounts::get(&db, world.tenant).await.expect("an answer").is_none());
        world.on("free").await;
        let period = world.current().await;
        assert_eq!(bounds(&period), texts("2026-11-11T12:00:00", "2026-12-01T00:00:00"));
        assert_eq!((period.plan.as_str(), period.hard_cap), ("free", Some(Credits::ZERO)));
        let grant = world.included(&period).await;
        assert_eq!((grant.granted, grant.expires_at), (credits("30"), Some(period.ends_at)));
        assert_eq!(world.standing().await.current, Some(period.clone()));
        world.clock.advance(Duration::from_secs(60));
        assert_eq!(world.current().await.id, period.id);
        let seen = Box::pin(overview(&db, world.tenant, world.now())).await.expect("an overview");
        assert_eq!((seen.left.included, seen.owed), (credits("30"), Credits::ZERO));
        assert_eq!(world.periods().await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn months_of_silence_are_made_up_for() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        world.on("anchored").await;
        let first = world.current().await;
        world.clock.advance(DAY * 365 * 3);
        let current = world.current().await;
        let periods = world.periods().await;
        assert_eq!(periods.len(), 36, "{periods:?}");
        assert_eq!(periods.first().map(|p| p.id), Some(first.id));
        assert_eq!(periods.last(), Some(&current));
        assert!(periods.windows(2).all(|pair| pair[0].ends_at == pair[1].starts_at));
        assert!(periods.iter().all(|p| bounds(p).0.ends_with("-11T12:00:00")));
        let grants = world.grants().await;
        assert_eq!(grants.len(), periods.len());
        assert!(grants.iter().all(|grant| grant.granted == credits("7")));
        let kept = world.keep().await;
        assert_eq!((kept.opened, kept.closed), (0, 35));
        let kept = world.keep().await;
        assert_eq!((kept.opened, kept.closed), (0, 0));
        world.clock.advance(DAY * 100);
        let kept = world.keep().await;
        assert_eq!((kept.opened, kept.closed), (4, 4), "nobody called");
        assert_eq!(world.periods().await.iter().filter(|p| p.closed_at.is_none()).count(), 1);
        assert!(world.grants().await[..39].iter().all(|grant| grant.expired == credits("7")));
    })
    .await;
}

#[tokio::test]
async fn prices_that_come_later_are_waited_for() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        let from = world.now().plus(DAY);
        let terms = serde_json::from_str(r#"{"kind": "usage"}"#).expect("terms");
        let when = (Some(from), LEAD);
        prices::publish(&db, &world.clock, Actor::Cli, &name("later"), &terms, when).await.expect("prices");
        world.on("later").await;
        assert_eq!(world.standing().await, Standing::default());
        world.clock.advance(DAY);
        let period = world.current().await;
        assert_eq!((period.starts_at, period.hard_cap), (from, None));
    })
    .await;
}

#[tokio::test]
async fn another_plan_ends_one_period_and_begins_another() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        world.on("free").await;
        let first = world.current().await;
        world.spend(&first, Some(&world.included(&first).await), "6").await;
        world.clock.advance(DAY * 5);
        world.on("pro").await;
        let change = world.now().plus(LEAD);
        let standing = world.standing().await;
        let (old, new) = (standing.current.expect("still free"), standing.next.expect("soon pro"));
        assert_eq!((old.id, old.ends_at, new.starts_at), (first.id, change, change));
        assert_eq!((new.plan.as_str(), bounds(&new).1.as_str()), ("pro", "2026-12-01T00:00:00"));
        assert_eq!((new.hard_cap, new.soft_cap), (Some(credits("100")), Some(credits("50"))));
        // 13.5 days less the lead, of thirty; and of the old plan no more than was used.
        let length = (new.ends_at.as_micros() - change.as_micros()).unsigned_abs();
        let share = credits("300").share(length, 30 * 86_400_000_000);
        assert_eq!(world.included(&new).await.granted, share);
        let rest = world.included(&old).await;
        assert_eq!(rest.granted - rest.voided, credits("6"), "{rest:?}");
        world.clock.advance(LEAD);
        let standing = world.standing().await;
        assert_eq!((standing.current.map(|p| p.id), standing.next), (Some(new.id), None));
        assert_eq!(world.keep().await.closed, 1);
        world.clock.advance(DAY * 20);
        let full = world.current().await;
        assert_eq!(bounds(&full), texts("2026-12-01T00:00:00", "2027-01-01T00:00:00"));
        assert_eq!(world.included(&full).await.granted, credits("300"));
    })
    .await;
}

#[tokio::test]
async fn changing_to_and_fro_is_no_way_to_get_more() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        world.on("pro").await;
        let mut used = Credits::ZERO;
        let mut spend_all = async |period: &Period| {
            for grant in world.grants().await {
                let left = grant.remaining();
                if grant.source == format!("period:{}", period.id) && left.is_positive() {
                    world.spend(period, Some(&grant), &left.to_string()).await;
                    used += left;
                }
            }
        };
        for turn in 0..6 {
            spend_all(&world.current().await).await;
            world.clock.advance(DAY);
            world.on(if turn % 2 == 0 { "like-pro" } else { "pro" }).await;
            // Before it takes effect, and after.
            spend_all(&world.current().await).await;
            world.clock.advance(LEAD);
        }
        spend_all(&world.current().await).await;
        assert_eq!(used, credits("300"), "{:?}", world.grants().await);
        assert_eq!(world.periods().await.len(), 7);

        // Who uses nothing loses nothing.
        let world = World::tenant(&db, &world.clock).await;
        world.on("pro").await;
        world.current().await;
        for turn in 0..6 {
            world.on(if turn % 2 == 0 { "like-pro" } else { "pro" }).await;
            world.clock.advance(LEAD);
        }
        let last = world.current().await;
        let length = (last.ends_at.as_micros() - last.starts_at.as_micros()).unsigned_abs();
        let share = credits("300").share(length, 30 * 86_400_000_000);
        assert_eq!(world.included(&last).await.granted, share);
    })
    .await;
}

#[tokio::test]
async fn several_changes_may_come_before_the_first_takes_effect() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        world.on("free").await;
        world.current().await;
        for plan in ["pro", "usage", "default", "prepaid", "free"] {
            world.clock.advance(Duration::from_secs(1));
            world.on(plan).await;
        }
        let periods = world.periods().await;
        let plans: Vec<_> = periods.iter().map(|p| p.plan.as_str()).collect();
        assert_eq!(plans, ["free", "pro", "usage", "prepaid", "free"]);
        assert!(periods.windows(2).all(|pair| pair[0].ends_at == pair[1].starts_at), "{periods:?}");
        world.clock.advance(LEAD);
        assert_eq!(world.current().await.id, periods[4].id);
        world.on("default").await;
        world.clock.advance(LEAD);
        assert_eq!(world.standing().await, Standing::default(), "no prices, no period");
        world.keep().await;
        world.clock.advance(DAY);
        world.on("free").await;
        let back = world.current().await;
        assert_eq!(back.starts_at, world.now(), "nothing is made up for");
        tenants::delete(&db, &world.clock, Actor::Cli, world.tenant).await.expect("deleted");
        world.clock.advance(Duration::from_secs(5));
        assert_eq!(world.standing().await, Standing::default());
        world.keep().await;
        assert!(world.periods().await.iter().all(|p| p.closed_at.is_some()));
        world.clock.advance(DAY * 60);
        assert_eq!((world.keep().await.opened, world.standing().await), (0, Standing::default()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_processes_open_one_period() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        let tasks = crate::tasks::Tasks::new();
        for round in 0..10 {
            let world = World::tenant(&db, &world.clock).await;
            world.on("free").await;
            let start = |number: usize| {
                let (db, clock, tenant, at) = (db.clone(), world.clock.clone(), world.tenant, world.now());
                tasks.spawn(async move {
                    match number % 4 {
                        0 => drop(keep(&db, &clock).await.expect("a round")),
                        _ => drop(standing(&db, tenant, at).await.expect("a standing")),
                    }
                })
            };
            for _ in 0..2 {
                let all: Vec<_> = (0..8).map(start).collect();
                for one in all {
                    one.await.expect("no panic");
                }
                world.clock.advance(DAY * 45);
            }
            let (periods, grants) = (world.periods().await, world.grants().await);
            assert!(periods.len() > 1 && periods.len() == grants.len(), "round {round}: {periods:?}");
            assert!(periods.windows(2).all(|pair| pair[0].ends_at == pair[1].starts_at), "round {round}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_spend_cap_counts_where_it_is_lower() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        let cap = async |cap: Option<&str>| {
            let set = set_spend_cap(&db, &world.clock, Actor::Cli, world.tenant, cap.map(credits));
            let account: Account = Box::pin(set).await.expect("a cap");
            assert_eq!(account.spend_cap, cap.map(credits));
        };
        let hard = async || world.current().await.hard_cap.map(|cap| cap.to_string());
        cap(Some("60")).await;
        world.on("pro").await;
        assert_eq!(hard().await.as_deref(), Some("60"), "from the beginning");
        cap(Some("500")).await;
        assert_eq!(hard().await.as_deref(), Some("100"), "that of the plan");
        let period = world.current().await;
        world.spend(&period, None, "20").await;
        let held = world.lease(&period, None, "5").await;
        cap(Some("10")).await;
        assert_eq!(hard().await.as_deref(), Some("25"), "what is owed and set aside");
        world.close(held).await;
        cap(None).await;
        assert_eq!(hard().await.as_deref(), Some("100"));
        cap(Some("0")).await;
        world.on("prepaid").await;
        cap(Some("70")).await;
        let next = world.standing().await.next.expect("prepaid");
        assert_eq!(next.hard_cap, Some(Credits::ZERO));
        let nobody = set_spend_cap(&db, &world.clock, Actor::Cli, TenantId::new(), None).await;
        assert!(matches!(nobody, Err(Error::NotFound("tenant"))));
    })
    .await;
}
