//! Grants: given once, ended, taken back.

use super::*;

fn new(kind: GrantKind, amount: &str, source: Option<&str>) -> NewGrant {
    let source = source.map(str::to_owned);
    NewGrant { kind, credits: credits(amount), source, note: String::new(), expires_at: None }
}

#[tokio::test]
async fn one_source_gives_once() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        let add = async |new| grants::add(&db, &world.clock, Actor::Cli, world.tenant, new).await;
        let made = add(new(GrantKind::Prepaid, "500", Some("invoice-1"))).await.expect("a grant");
        let again = add(new(GrantKind::Prepaid, "500", Some(" invoice-1 "))).await.expect("the same");
        assert_eq!(again, made);
        for other in [
            new(GrantKind::Prepaid, "501", Some("invoice-1")),
            new(GrantKind::Promotional, "500", Some("invoice-1")),
            NewGrant { note: "!".to_owned(), ..new(GrantKind::Prepaid, "500", Some("invoice-1")) },
        ] {
            assert!(matches!(add(other).await, Err(Error::Conflict(_))));
        }
        let first = add(new(GrantKind::Promotional, "1", None)).await.expect("a grant");
        let second = add(new(GrantKind::Promotional, "1", None)).await.expect("another");
        assert_ne!(first.id, second.id);
        assert_eq!(first.source, format!("operator:{}", first.id));
        let past = Some(world.now());
        for (wrong, part) in [
            (new(GrantKind::Included, "1", None), "kind"),
            (new(GrantKind::Prepaid, "0", None), "credits"),
            (new(GrantKind::Prepaid, "1", Some("")), "source"),
            (new(GrantKind::Prepaid, "1", Some("period:x")), "source"),
            (new(GrantKind::Prepaid, "1", Some(&"x".repeat(201))), "source"),
            (NewGrant { note: "a\0".to_owned(), ..new(GrantKind::Prepaid, "1", None) }, "note"),
            (NewGrant { expires_at: past, ..new(GrantKind::Prepaid, "1", None) }, "expires_at"),
        ] {
            let error = add(wrong).await.expect_err(part).to_string();
            assert!(error.starts_with(part), "{error}");
        }
        let nobody =
            grants::add(&db, &world.clock, Actor::Cli, TenantId::new(), new(GrantKind::Prepaid, "1", None));
        assert!(matches!(nobody.await, Err(Error::NotFound("tenant"))));
        assert_eq!(world.grants().await.len(), 3);
        let elsewhere = World::tenant(&db, &world.clock).await;
        let same = new(GrantKind::Prepaid, "9", Some("invoice-1"));
        grants::add(&db, &world.clock, Actor::Cli, elsewhere.tenant, same).await.expect("another tenant's");

        // The account that came with it turns into what the plan says.
        world.on("anchored").await;
        let period = world.current().await;
        assert_eq!(period.ends_at, at("2026-12-11T12:00:00Z"));
        assert_eq!(world.grants().await.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn a_void_takes_what_nobody_holds() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        world.on("prepaid").await;
        let period = world.current().await;
        let grant = world.give(GrantKind::Prepaid, "100", None).await;
        world.spend(&period, Some(&grant), "10").await;
        let slab = world.lease(&period, Some(&grant), "20").await;
        assert!(testing::spend(&db, slab, credits("5")).await);
        assert_eq!(world.grant(&grant).await.remaining(), credits("85"));
        let void = async |tenant| grants::void(&db, &world.clock, Actor::Cli, tenant, grant.id).await;
        let stranger = World::tenant(&db, &world.clock).await;
        stranger.give(GrantKind::Prepaid, "1", None).await;
        assert!(matches!(void(stranger.tenant).await, Err(Error::NotFound("grant"))));
        let voided = void(world.tenant).await.expect("voided");
        assert_eq!(
            (voided.voided, voided.used, voided.leased),
            (credits("70"), credits("10"), credits("20"))
        );
        assert_eq!(void(world.tenant).await.expect("nothing to do"), voided);
        assert!(testing::spend(&db, slab, credits("1")).await, "what is held can be used");
        world.close(slab).await;
        let grant = world.grant(&grant).await;
        assert_eq!(
            (grant.used, grant.voided, grant.remaining()),
            (credits("16"), credits("84"), Credits::ZERO)
        );
        let trail = crate::audit::list(&db, Some(world.tenant), Page::first(100)).await.expect("a list").rows;
        let actions: Vec<_> = trail.iter().map(|entry| entry.action.as_str()).collect();
        assert_eq!(actions, ["tenant.create", "tenant.plan", "grant.add", "grant.void"]);
    })
    .await;
}

#[tokio::test]
async fn what_is_left_of_a_grant_expires() {
    on_every_engine(async |db| {
        let world = World::new(&db).await;
        world.on("prepaid").await;
        let period = world.current().await;
        let grant = world.give(GrantKind::Promotional, "100", Some(world.now().plus(DAY))).await;
        world.spend(&period, Some(&grant), "10").await;
        let slab = world.lease(&period, Some(&grant), "20").await;
        assert_eq!(world.keep().await.expired, 0);
        world.clock.advance(DAY);
        let mut keeper = Keeper::default();
        for expected in [1, 0] {
            let kept = Box::pin(keeper.round(&db, &world.clock)).await.expect("a round");
            assert_eq!(kept.expired, expected);
        }
        assert_eq!(world.grant(&grant).await.expired, credits("70"));
        world.close(slab).await;
        let grant = world.grant(&grant).await;
        assert_eq!(
            (grant.used, grant.expired, grant.remaining()),
            (credits("10"), credits("90"), Credits::ZERO)
        );
        let later = world.give(GrantKind::Promotional, "3", Some(world.now().plus(DAY))).await;
        world.clock.advance(DAY * 2);
        let kept = Box::pin(keeper.round(&db, &world.clock)).await.expect("a round");
        assert_eq!((kept.expired, world.grant(&later).await.expired), (1, credits("3")));
    })
    .await;
}
