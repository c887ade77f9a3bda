//! What a long life brings: minutes that are all taken, sums that are always late, and comparisons in the middle of work.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

async fn world(db: &Db) -> World {
    let world = World::new(db, 3, Duration::ZERO).await;
    world.provider.state().is_well = true;
    world.clock.advance(DAY);
    world
}

/// Begins an export for a tenant, and waits until it is proven.
async fn proven(world: &World, tenant: TenantId, micros: i64) {
    world.owes(tenant, micros).await;
    let exporter = world.exporter();
    assert_eq!(world.round(&exporter).await.sent, 1);
    world.clock.advance(3 * MINUTE);
    assert_eq!(world.round(&exporter).await.verified, 1);
}

#[tokio::test]
async fn a_minute_is_taken_once_and_nobody_waits_for_it() {
    on_every_engine(async |db| {
        let world = world(&db).await;
        let [(busy, customer), (other, others)] = &world.tenants[..] else { panic!("two tenants") };
        let period = world.current(*busy).await.id;
        let now = world.clock.now().as_micros();
        let newest = now.div_euclid(60_000_000) - 1;
        let mut sql = String::new();
        for minute in (0..1100).map(|back| newest - back) {
            let id = ExportId::new();
            let _ = write!(
                sql,
                "insert into exports (id, tenant_id, period_id, slot, credits, state, counted, due_at, created_at)
                 values ('{id}', '{busy}', '{period}', {}, 1, 'verified', 1, 0, 0);",
                minute * 60_000_000
            );
        }
        testing::execute(&db, &sql).await;
        world.owes(*busy, 1100 + 7).await;
        world.owes(*other, 9).await;
        let exporter = world.exporter();
        assert_eq!(world.round(&exporter).await.begun, 1, "the busy one has no minute yet");
        assert_eq!(world.provider.total(others).micros(), 9);
        world.clock.advance(MINUTE);
        assert_eq!(world.round(&exporter).await.begun, 1);
        assert_eq!(world.provider.total(customer).micros(), 7);
        // When the period is over there are no new minutes; what is left goes to the one after it.
        let end = world.current(*busy).await.ends_at;
        world.clock.advance(Duration::from_micros(
            u64::try_from(end.as_micros() - world.clock.now().as_micros()).expect("later") + 120_000_000,
        ));
        let sql = format!("update periods set overage_used = overage_used + 5 where id = '{period}'");
        testing::execute(&db, &sql).await;
        world.current(*busy).await;
        assert_eq!(world.round(&exporter).await.begun, 1);
        assert_eq!(world.provider.total(customer).micros(), 12);
    })
    .await;
}

#[tokio::test]
async fn sums_that_are_always_half_a_day_late_prove_a_loss_all_the_same() {
    on_every_engine(async |db| {
        let world = world(&db).await;
        let (tenant, customer) = world.tenants[0].clone();
        world.provider.state().always = Some(12 * HOUR);
        world.provider.state().loses = 1;
        world.owes(tenant, 5).await;
        let exporter = world.exporter();
        for _ in 0..60 {
            world.round(&exporter).await;
            world.clock.advance(HOUR);
        }
        assert_eq!(world.provider.total(&customer).micros(), 5);
        assert!(world.rests().await);
        assert_eq!(world.number("select max(generation) from exports where").await, 2);
    })
    .await;
}

/// A provider that is asked while another process goes on with its work.
struct Meanwhile<'a> {
    world: &'a World,
    tenant: TenantId,
}

impl Meter for Meanwhile<'_> {
    async fn send(&self, event: &Event) -> Answer {
        self.world.provider.send(event).await
    }

    async fn counted(&self, customer: &str, span: (Timestamp, Timestamp)) -> Result<Credits, String> {
        self.world.owes(self.tenant, 3).await;
        self.world.clock.advance(MINUTE);
        Box::pin(self.world.round(&self.world.exporter())).await;
        self.world.provider.counted(customer, span).await
    }
}

#[tokio::test]
async fn what_is_told_while_it_is_compared_is_no_drift() {
    on_every_engine(async |db| {
        let world = world(&db).await;
        let tenant = world.tenants[0].0;
        proven(&world, tenant, 5).await;
        let period = world.current(tenant).await.id;
        let rules = Rules { grace: HOUR, canary: CANARY.to_owned(), holder: "other".to_owned() };
        let meter = Meanwhile { world: &world, tenant };
        let exporter = Exporter::new(db.clone(), world.clock.clone(), meter, rules);
        let proof = exporter.reconcile(period).await.expect("a proof").expect("a period");
        assert_eq!(proof.verdict, Verdict::InFlight, "{proof:?}");
    })
    .await;
}

#[tokio::test]
async fn who_always_uses_something_is_compared_as_well() {
    on_every_engine(async |db| {
        let world = world(&db).await;
        let (tenant, customer) = world.tenants[0].clone();
        proven(&world, tenant, 5).await;
        world.owes(tenant, 6).await;
        assert_eq!(world.round(&world.exporter()).await.sent, 1);
        let sql = format!("select min(slot) from exports where tenant_id = '{tenant}'");
        let slot = testing::number(&db, &sql).await;
        let event = Event {
            identifier: "somebody else's".to_owned(),
            customer: customer.clone(),
            at: Timestamp::from_micros(slot),
            credits: Credits::from_micros(2),
        };
        world.provider.state().take(&event, true);
        let period = world.current(tenant).await.id;
        let proof = world.exporter().reconcile(period).await.expect("a proof").expect("a period");
        assert_eq!(proof.verdict, Verdict::Extra, "{proof:?}");
        for _ in 0..3 {
            world.clock.advance(3 * MINUTE);
            world.round(&world.exporter()).await;
        }
        assert_eq!(world.provider.total(&customer).micros(), 11);
    })
    .await;
}
