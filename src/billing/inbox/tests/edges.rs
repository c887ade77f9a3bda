//! What cannot be asked, what is nothing of ours, what is gone, and what is forgotten.

use super::*;

#[tokio::test]
async fn what_cannot_be_asked_is_tried_again_and_given_up_in_the_end() {
    on_every_engine(async |db| {
        let mut world = World::new(&db).await;
        let inbox = world.inbox();
        world.provider.set("sub_1", subscription("sub_1", 1));
        world.provider.says().broken = true;
        world.hears_of(ObjectKind::Subscription, "sub_1").await;
        let since = world.clock.now();
        for attempt in 1..30 {
            assert_eq!(inbox.round().await.expect("a round"), Round { retried: 1, ..Round::default() });
            assert_eq!(inbox.round().await.expect("a round"), Round::default(), "not at once");
            let event = &list(&world.db, false, 10).await.expect("events")[0];
            assert_eq!((event.tries, event.note.as_str()), (attempt, "it is broken"));
            world.clock.advance(Duration::from_micros(
                u64::try_from(event.due_at.as_micros() - world.clock.now().as_micros()).expect("later"),
            ));
        }
        let hours = (world.clock.now().as_seconds() - since.as_seconds()) / 3600;
        assert!((12..24).contains(&hours), "{hours}");
        assert_eq!(inbox.round().await.expect("a round").failed, 1);
        assert_eq!((inbox.metrics.events_failed.get(), inbox.metrics.events_oldest.get()), (1, 0));
        world.clock.advance(Duration::from_secs(100_000));
        assert_eq!(inbox.round().await.expect("a round"), Round::default());

        // Until somebody looks.
        world.provider.says().broken = false;
        let failed = list(&world.db, true, 10).await.expect("events");
        again(&world.db, &world.clock, &failed[0].id).await.expect("put back");
        let refused = again(&world.db, &world.clock, &failed[0].id).await;
        assert!(matches!(refused, Err(Error::NotFound(_))), "it waits");
        assert_eq!(inbox.round().await.expect("a round").done, 1);
        assert_eq!(inbox.metrics.events_failed.get(), 0);
    })
    .await;
}

#[tokio::test]
async fn what_is_nothing_of_ours_is_ignored() {
    on_every_engine(async |db| {
        let mut world = World::new(&db).await;
        let inbox = world.inbox();
        let foreign = Subscription { customer: "cus_of_others".to_owned(), ..state("sub_2", 1) };
        world.provider.set("sub_2", object(Fetched::Subscription(foreign)));
        world.provider.set("cs_1", Found::Nobodys);
        world.hears_of(ObjectKind::Subscription, "sub_2").await;
        world.hears_of(ObjectKind::Checkout, "cs_1").await;
        world.hears_of(ObjectKind::Other, "x").await;
        world.hears_of(ObjectKind::Meter, "mtr_1").await;
        let round = inbox.round().await.expect("a round");
        assert_eq!((round.ignored, round.done), (2, 1));
        assert_eq!(world.subscription("sub_2").await, None);
        assert_eq!(world.states().await, BTreeMap::from([("done", 1), ("ignored", 3)]));
    })
    .await;
}

#[tokio::test]
async fn a_draft_that_is_gone_is_known_to_be() {
    on_every_engine(async |db| {
        let mut world = World::new(&db).await;
        let inbox = world.inbox();
        let draft = Invoice {
            id: "in_1".to_owned(),
            customer: CUSTOMER.to_owned(),
            subscription: Some("sub_1".to_owned()),
            status: "draft".to_owned(),
            billing_reason: None,
            number: None,
            currency: "usd".to_owned(),
            total: 700,
            amount_due: 700,
            amount_paid: 0,
            amount_remaining: 700,
            attempt_count: 0,
            next_payment_attempt: None,
            due_at: None,
            finalized_at: None,
            paid_at: None,
            hosted_invoice_url: None,
            metered_from: Some(START),
            metered_to: Some(START),
            metered_quantity: Some(i64::MAX),
            metered_amount: Some(-5),
            created_at: START,
        };
        world.provider.set("in_1", object(Fetched::Invoice(draft.clone())));
        world.hears_of(ObjectKind::Invoice, "in_1").await;
        assert_eq!(inbox.round().await.expect("a round").done, 1);
        let row = crate::db::mirror::invoices::get(&world.db, "in_1").await.expect("a row").expect("a row");
        assert_eq!(row.object, draft);

        world.provider.set("in_1", Found::Nothing);
        world.hears_of(ObjectKind::Invoice, "in_1").await;
        for expected in [(1, 0), (1, 0), (0, 1)] {
            let round = inbox.round().await.expect("a round");
            assert_eq!((round.retried, round.ignored), expected, "it may not be there yet");
            world.clock.advance(Duration::from_secs(2));
        }
        let all = crate::db::mirror::invoices::of_tenant(&world.db, world.tenant, 10).await.expect("rows");
        assert_eq!((all.len(), all[0].object.status.as_str(), all[0].revision), (1, "deleted", 2));
    })
    .await;
}

#[tokio::test]
async fn a_customer_that_was_deleted_is_noted_once() {
    on_every_engine(async |db| {
        let mut world = World::new(&db).await;
        let inbox = world.inbox();
        let customer = |deleted| object(Fetched::Customer(Customer { id: CUSTOMER.to_owned(), deleted }));
        for (deleted, expected) in [(false, 0), (true, 1), (true, 1)] {
            world.provider.set(CUSTOMER, customer(deleted));
            world.hears_of(ObjectKind::Customer, CUSTOMER).await;
            assert_eq!(inbox.round().await.expect("a round").done, 1);
            inbox.round().await.expect("a round");
            assert_eq!(inbox.metrics.customers_deleted.get(), expected);
            world.clock.advance(Duration::from_secs(1));
        }
        let at = number(&world.db, "select deleted_at from billing_customers").await;
        assert_eq!(at, START.plus(Duration::from_secs(1)).as_micros());
    })
    .await;
}

#[tokio::test]
async fn bodies_go_first_and_ids_later() {
    on_every_engine(async |db| {
        let mut world = World::new(&db).await;
        let inbox = world.inbox();
        world.provider.set("sub_1", subscription("sub_1", 1));
        world.hears_of(ObjectKind::Subscription, "sub_1").await;
        inbox.round().await.expect("a round");
        for id in ["evt_failed", "evt_new"] {
            world.deliver(id, ObjectKind::Subscription, "sub_2").await;
        }
        execute(&world.db, "update stripe_events set state = 'failed' where id = 'evt_failed'").await;
        let counts = async || {
            let count = |what: &str| format!("select count(*) from stripe_events where {what}");
            let objects = number(&world.db, "select count(*) from stripe_objects").await;
            (
                number(&world.db, &count("body is not null")).await,
                number(&world.db, &count("id <> ''")).await,
                objects,
            )
        };
        for (days, expected) in [(29, (3, 3, 1)), (2, (2, 3, 1)), (28, (2, 3, 1)), (2, (2, 2, 0))] {
            world.clock.advance(Duration::from_secs(days * 86_400));
            inbox.forget().await.expect("forgotten");
            assert_eq!(counts().await, expected, "after {days} more days");
        }
    })
    .await;
}
