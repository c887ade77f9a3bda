//! What prices promise: tried with many made-up ones, and on every engine.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{History, Measured, Price, PriceVersion, Terms, ToolPrice, get, history, list, publish};
use crate::audit::{self, Actor};
use crate::clock::{Clock, Timestamp};
use crate::credits::Credits;
use crate::db::invalidations::{self, Kind};
use crate::db::testing::on_every_engine;
use crate::db::{Db, Page, price_versions};
use crate::error::{Error, Result};
use crate::id::PriceVersionId;
use crate::plans::{self, PlanName};
use crate::telemetry::labels::{Label, Outcome};
use crate::tenants;

const LEAD: Duration = Duration::from_secs(5);

fn clock() -> Clock {
    Clock::manual(Timestamp::from_micros(1_700_000_000_000_000))
}

fn name(text: &str) -> PlanName {
    text.parse().expect("a name")
}

fn terms(text: &str) -> Terms {
    serde_json::from_str(text).expect(text)
}

fn usage(per_call: &str) -> Terms {
    terms(&format!(r#"{{"kind": "usage", "tools": [{{"name": "*", "per_call": "{per_call}"}}]}}"#))
}

fn credits() -> impl Strategy<Value = Credits> {
    prop_oneof![Just(0), 0..10_i64, 0..100_000_000_i64, 0..=Credits::MOST.micros()]
        .prop_map(Credits::from_micros)
}

prop_compose! {
    /// A good price, half of them flat.
    fn price()(
        amounts in (credits(), credits(), credits(), credits()), flat: bool, errors: bool
    ) -> Price {
        let (per_call, per_kib, per_second, more) = amounts;
        let most = Some((per_call + more).min(Credits::MOST));
        let (none, flat_most) = (Credits::ZERO, most.filter(|_| errors));
        match flat {
            true => Price { per_call, per_kib: none, per_second: none, most: flat_most, errors },
            false => Price { per_call, per_kib, per_second, most, errors },
        }
    }
}

prop_compose! {
    fn rule()(name in "[ab*]{1,4}", server in prop::option::of("[ab*]{1,3}"), price in price()) -> ToolPrice {
        let pattern = |text: String| text.try_into().expect("a pattern");
        ToolPrice { name: pattern(name), server: server.map(pattern), price }
    }
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop::sample::select(Outcome::ALL)
}

proptest! {
    #[test]
    fn a_charge_is_between_nothing_and_the_most(price in price(), outcome in outcome(), result_bytes: u64, duration_us: u64) {
        price.validate().expect("a price");
        let charge = price.charge(Measured { outcome, result_bytes, duration_us });
        prop_assert!(Credits::ZERO <= charge && charge <= price.most(), "{charge:?}");
        let costs = outcome == Outcome::Ok || (outcome == Outcome::ToolError && price.errors);
        prop_assert!(costs || charge.is_zero());
        prop_assert!(!costs || charge >= price.per_call.min(price.most()));
        prop_assert!(!price.is_free() || charge.is_zero());
    }

    #[test]
    fn more_never_costs_less(price in price(), size: (u64, u64), time: (u64, u64)) {
        let charge = |result_bytes, duration_us| price.charge(Measured { outcome: Outcome::Ok, result_bytes, duration_us });
        let (less, more) = (charge(size.0.min(size.1), time.0.min(time.1)), charge(size.0.max(size.1), time.0.max(time.1)));
        prop_assert!(less <= more, "{less:?}, {more:?}");
    }

    #[test]
    fn terms_are_the_same_after_they_were_stored(
        tools in prop::collection::vec(rule(), 0..6), included in credits(), hard_cap in prop::option::of(credits()),
        tool in "[ab]{0,4}", server in "[ab]{0,3}",
        call in (outcome(), any::<u64>(), any::<u64>()),
    ) {
        let terms = Terms { tools, included, hard_cap, ..terms(r#"{"kind": "hybrid", "cycle": "anchored"}"#) };
        prop_assert!(terms.validate().is_ok());
        let text = serde_json::to_string(&terms).expect("JSON");
        let again: Terms = serde_json::from_str(&text).expect("terms");
        prop_assert_eq!(&again, &terms);
        prop_assert_eq!(serde_json::to_string(&again).expect("JSON"), text);
        let toml = toml::to_string(&terms).expect("TOML");
        prop_assert_eq!(&toml::from_str::<Terms>(&toml).expect("terms"), &terms);
        let (outcome, result_bytes, duration_us) = call;
        let charge = |terms: &Terms| {
            terms.price_of(&server, &tool).map(|price| price.charge(Measured { outcome, result_bytes, duration_us }))
        };
        prop_assert_eq!(charge(&again), charge(&terms));
    }

    #[test]
    fn the_version_in_force_is_the_latest_that_began(starts in prop::collection::vec(0..6_i64, 0..8), at in -1..7_i64) {
        let version = |(number, start): (i64, &i64)| Arc::new(PriceVersion {
            id: PriceVersionId::new(),
            plan: name("p"),
            number,
            effective_at: Timestamp::from_micros(*start),
            published_at: Timestamp::from_micros(0),
            published_by: "cli".to_owned(),
            terms: usage("1"),
            digest: String::new(),
        });
        let versions: Vec<_> = (1..).zip(&starts).map(version).collect();
        let begun = versions.iter().filter(|version| version.effective_at.as_micros() <= at);
        let expected = begun.max_by_key(|version| (version.effective_at, version.number));
        let history = History::new(versions.clone());
        prop_assert_eq!(history.at(Timestamp::from_micros(at)), expected);
        prop_assert_eq!(history.is_empty(), starts.is_empty());
        prop_assert_eq!(history.first().map(|first| first.effective_at.as_micros()), starts.iter().min().copied());
        prop_assert_eq!(history.versions().len(), starts.len());
    }
}

#[test]
fn what_a_call_costs_is_what_the_rule_says() {
    let terms = terms(
        r#"{"kind": "usage", "tools": [
            {"name": "dns_*", "server": "core", "per_call": "0.25"},
            {"name": "dns_*", "per_call": 1, "errors": true},
            {"name": "fetch", "per_call": "0.1", "per_kib": "0.01", "per_second": "0.5", "most": "2"}
        ]}"#,
    );
    let charge = |server, tool, outcome, result_bytes, duration_us| {
        let price = terms.price_of(server, tool)?;
        Some(price.charge(Measured { outcome, result_bytes, duration_us }).to_string())
    };
    let ok = Outcome::Ok;
    for (server, tool, outcome, bytes, micros, expected) in [
        ("core", "dns_resolve", ok, 1_000_000, 1, Some("0.25")),
        ("core", "dns_resolve", Outcome::ToolError, 10, 1, Some("0")),
        ("lab", "dns_resolve", Outcome::ToolError, 10, 1, Some("1")),
        ("lab", "fetch", ok, 0, 0, Some("0.1")),
        ("lab", "fetch", ok, 1, 1, Some("0.100011")),
        ("lab", "fetch", ok, 10_240, 500_000, Some("0.45")),
        ("lab", "fetch", ok, 10_240_000, 500_000, Some("2")),
        ("lab", "fetch", Outcome::Timeout, 10_240_000, 500_000, Some("0")),
        ("lab", "other", ok, 1, 1, None),
    ] {
        assert_eq!(charge(server, tool, outcome, bytes, micros).as_deref(), expected, "{server} {tool}");
    }
}

#[test]
fn terms_that_are_none_are_refused_by_name() {
    for (text, part) in [
        (r#"{"kind": "usage", "included": 1}"#, "included: a plan of this kind"),
        (r#"{"kind": "prepaid", "included": 1}"#, "included: a plan of this kind"),
        (r#"{"kind": "free", "hard_cap": 1}"#, "soft_cap, hard_cap: nothing is ever owed"),
        (r#"{"kind": "prepaid", "soft_cap": 1}"#, "soft_cap, hard_cap: nothing is ever owed"),
        (r#"{"kind": "usage", "soft_cap": 0}"#, "soft_cap: expected more than 0"),
        (
            r#"{"kind": "usage", "soft_cap": 2, "hard_cap": 1}"#,
            "soft_cap: expected at most the hard cap of 1",
        ),
        (
            r#"{"kind": "usage", "tools": [{"name": "*", "per_call": 1, "per_kib": 1}]}"#,
            "tools[0].most: needed where",
        ),
        (
            r#"{"kind": "usage", "tools": [{"name": "*", "per_call": 2, "most": 1}]}"#,
            "tools[0].most: expected at least per_call, 2, found 1",
        ),
    ] {
        let refused = terms(text).validate().expect_err(text).to_string();
        assert!(refused.contains(part), "{text}: {refused}");
    }
    let rule = usage("1").tools.remove(0);
    let many = Terms { tools: vec![rule; 513], ..usage("1") };
    assert!(many.validate().expect_err("too many").to_string().contains("at most 512 rules"));
    for text in [
        r#"{"kind": "gift"}"#,
        r#"{"kind": "usage", "price": 1}"#,
        r#"{"kind": "usage", "tools": [{"name": "*", "per_call": 1, "per_day": 1}]}"#,
        r#"{"kind": "usage", "tools": [{"name": "*"}]}"#,
        r#"{"kind": "usage", "hard_cap": -1}"#,
    ] {
        assert!(serde_json::from_str::<Terms>(text).is_err(), "{text}");
    }
}

/// What `weir` on the command line publishes.
async fn published(
    db: &Db,
    clock: &Clock,
    plan: &str,
    terms: &Terms,
    from: Option<Timestamp>,
) -> Result<PriceVersion> {
    publish(db, clock, Actor::Cli, &name(plan), terms, (from, LEAD)).await
}

#[tokio::test]
async fn a_plan_gets_prices_and_others() {
    on_every_engine(async |db| {
        let clock = clock();
        let first = published(&db, &clock, "gold", &usage("1"), None).await.expect("published");
        assert_eq!((first.number, first.effective_at, first.published_by.as_str()), (1, clock.now(), "cli"));
        assert_eq!(plans::get(&db, &name("gold")).await.expect("made with it").limits, Default::default());
        clock.advance(Duration::from_secs(1));
        let same = published(&db, &clock, "gold", &usage("1.0"), None).await.expect("nothing to do");
        assert_eq!(same, first);
        let bad = published(&db, &clock, "gold", &terms(r#"{"kind": "usage", "soft_cap": 0}"#), None).await;
        assert!(matches!(bad, Err(Error::Invalid(_))));

        let tenant = tenants::create(&db, &clock, Actor::Cli, "Acme").await.expect("a tenant").id;
        tenants::set_plan(&db, &clock, Actor::Cli, tenant, &name("gold"), LEAD).await.expect("on it");
        let second = published(&db, &clock, "gold", &usage("2"), None).await.expect("published");
        assert_eq!((second.number, second.effective_at), (2, clock.now().plus(LEAD)));
        let soon = clock.now().plus(LEAD / 2);
        let early = published(&db, &clock, "gold", &usage("3"), Some(soon)).await.expect_err("too soon");
        let expected = format!("from: the soonest is {}, found {soon}", clock.now().plus(LEAD));
        assert_eq!(early.to_string(), expected);
        let later = Some(clock.now().plus(LEAD * 100));
        let third = published(&db, &clock, "gold", &usage("2"), later).await.expect("the same, once more");
        assert_eq!((third.number, Some(third.effective_at)), (3, later));

        let all = history(&db, &name("gold")).await.expect("a history");
        let at = |instant| all.at(instant).map(|version| version.number);
        let now = clock.now();
        assert_eq!(
            (at(now.minus(LEAD)), at(now), at(now.plus(LEAD)), at(now.plus(LEAD * 100))),
            (None, Some(1), Some(2), Some(3))
        );
        assert_eq!(get(&db, second.id).await.expect("a version"), second);
        let page = list(&db, &name("gold"), Page { after: Some(1), limit: 1 }).await.expect("a page");
        assert_eq!((page.rows, page.more), (vec![second], true));
        assert!(history(&db, &name("silver")).await.expect("a history").is_empty());
        let unknown = get(&db, PriceVersionId::new()).await;
        assert!(matches!(unknown, Err(Error::NotFound("price version"))));

        let told = invalidations::after(&db, 0, 100).await.expect("changes");
        assert_eq!(told.iter().filter(|row| row.kind == Kind::Plan && row.subject == "gold").count(), 3);
        let trail = audit::list(&db, None, Page::first(100)).await.expect("a list").rows;
        let of_plan = trail.iter().filter(|entry| entry.subject_kind == "plan");
        let actions: Vec<_> = of_plan.map(|entry| entry.action.as_str()).collect();
        assert_eq!(actions, ["plan.create", "plan.publish", "plan.publish", "plan.publish"]);
    })
    .await;
}

#[tokio::test]
async fn the_default_plan_has_the_tenants_that_were_never_moved() {
    on_every_engine(async |db| {
        let clock = clock();
        tenants::create(&db, &clock, Actor::Cli, "Acme").await.expect("a tenant");
        let first = published(&db, &clock, "default", &usage("1"), None).await.expect("published");
        assert_eq!(first.effective_at, clock.now().plus(LEAD));
    })
    .await;
}

#[tokio::test]
async fn two_at_the_same_moment_get_two_numbers() {
    on_every_engine(async |db| {
        let clock = clock();
        let (one, two) = (usage("1"), usage("2"));
        for plan in ["new", "new", "other"] {
            let (a, b) = tokio::join!(
                published(&db, &clock, plan, &one, Some(clock.now())),
                published(&db, &clock, plan, &two, Some(clock.now())),
            );
            let (a, b) = (a.expect("published"), b.expect("published"));
            assert_eq!((a.number - b.number).abs(), 1);
            let current = history(&db, &name(plan)).await.expect("a history");
            assert_eq!(current.at(clock.now()).map(|version| version.number), Some(a.number.max(b.number)));
        }
        assert_eq!(history(&db, &name("new")).await.expect("a history").versions().len(), 4);
    })
    .await;
}

#[tokio::test]
async fn terms_that_were_tampered_with_charge_nobody() {
    on_every_engine(async |db| {
        let clock = clock();
        let good = published(&db, &clock, "gold", &usage("1"), None).await.expect("published");
        let row = price_versions::Row {
            id: PriceVersionId::new(),
            plan: name("gold"),
            number: 2,
            effective_at: clock.now(),
            published_at: clock.now(),
            published_by: "cli".to_owned(),
            terms: serde_json::to_string(&usage("0.5")).expect("JSON"),
            digest: good.digest,
        };
        let mut tx = db.begin().await.expect("a transaction");
        price_versions::insert(&mut tx, &row).await.expect("a row");
        tx.commit().await.expect("committed");
        for error in [
            get(&db, row.id).await.expect_err("refused"),
            history(&db, &name("gold")).await.expect_err("refused"),
            published(&db, &clock, "gold", &usage("3"), None).await.expect_err("refused"),
        ] {
            let expected = format!(
                "internal error: price version 2 of plan gold ({}): its terms do not fit its digest",
                row.id
            );
            assert_eq!(error.to_string(), expected);
        }
        assert!(get(&db, good.id).await.is_ok());
    })
    .await;
}
