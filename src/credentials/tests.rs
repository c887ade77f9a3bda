//! Keys and URL tokens, from token to caller, on every engine. JWTs are tested in `jwt/tests.rs`.

use std::sync::Mutex;

use super::*;
use crate::api_keys::NewKey;
use crate::audit::Actor;
use crate::config::Millis;
use crate::db::Page;
use crate::db::invalidations::{self, Kind};
use crate::db::testing::{on_every_engine, open_account};
use crate::tasks::Tasks;
use crate::tenants as nouns;
use token::Secret;

const RESOURCE: &str = "http://127.0.0.1:8080/mcp";

fn auth() -> config::Auth {
    config::Auth {
        cache_entries: 100,
        cache_ttl: Millis::new(60_000),
        stale: Millis::new(600_000),
        invalidation_poll: Millis::new(10),
        failure_floor: Millis::new(25),
        issuers: Vec::new(),
    }
}

/// One tenant and the credentials of one process.
struct World {
    db: Db,
    clock: Clock,
    tenant: TenantId,
    credentials: Credentials,
}

impl World {
    async fn new(db: Db) -> Self {
        let clock = Clock::manual(Timestamp::from_micros(1_700_000_000_000_000));
        let tenant = nouns::create(&db, &clock, Actor::Cli, "Acme").await.expect("a tenant").id;
        let credentials = another_process(&db, &clock);
        Self { db, clock, tenant, credentials }
    }

    async fn key(&self, kind: KeyKind, lifetime: Option<Duration>) -> (KeyId, Secret) {
        let expires_at = lifetime.map(|span| self.clock.now().plus(span));
        let new = NewKey { expires_at, ..NewKey::new(kind, "laptop") };
        let made = crate::api_keys::create(&self.db, &self.clock, Actor::Cli, self.tenant, new).await;
        let (key, secret) = made.expect("a key");
        (key.id, secret)
    }

    async fn resolve(&self, secret: &Secret) -> Result<KeyId, Refused> {
        id(self.credentials.resolve(secret.expose(), Place::Header).await)
    }
}

fn another_process(db: &Db, clock: &Clock) -> Credentials {
    let client = reqwest::Client::builder().build().expect("a client");
    let limits = config::Layers::default().load().expect("the defaults").limits;
    Credentials::new(db.clone(), &auth(), &limits, RESOURCE, clock.clone(), &client).expect("credentials")
}

fn id(resolved: Result<Caller, Refused>) -> Result<KeyId, Refused> {
    match resolved?.principal().credential {
        Credential::ApiKey(id) | Credential::UrlToken(id) => Ok(id),
        Credential::Jwt(_) => panic!("no JWT was sent"),
    }
}

#[tokio::test]
async fn each_kind_has_its_place() {
    on_every_engine(async |db| {
        let world = World::new(db).await;
        let (key, key_secret) = world.key(KeyKind::ApiKey, None).await;
        let (url, url_secret) = world.key(KeyKind::UrlToken, None).await;
        let operator = crate::operator_keys::create(&world.db, &world.clock, Actor::Cli, "o").await;
        let (_, operator) = operator.expect("a key");
        let unknown = Secret::generate(token::Kind::ApiKey).expect("a secret");
        let upper = key_secret.expose().to_uppercase();
        for (text, header, query) in [
            (key_secret.expose(), Ok(key), Err(Refused::Invalid)),
            (url_secret.expose(), Ok(url), Ok(url)),
            (operator.expose(), Err(Refused::Invalid), Err(Refused::Invalid)),
            (unknown.expose(), Err(Refused::Invalid), Err(Refused::Invalid)),
            (&upper, Err(Refused::Invalid), Err(Refused::Invalid)),
            ("eyJhbGciOiJub25lIn0.e30.", Err(Refused::Invalid), Err(Refused::Invalid)),
            ("", Err(Refused::Invalid), Err(Refused::Invalid)),
        ] {
            for _ in 0..2 {
                assert_eq!(id(world.credentials.resolve(text, Place::Header).await), header, "{text}");
                assert_eq!(id(world.credentials.resolve(text, Place::Query).await), query, "{text}");
            }
        }
        let caller = world.credentials.resolve(key_secret.expose(), Place::Header).await.expect("a caller");
        assert_eq!((caller.tenant(), caller.data().tenant_name.as_str()), (world.tenant, "Acme"));
        assert_eq!(caller.data().credential_name, "laptop");
    })
    .await;
}

#[tokio::test]
async fn a_cached_key_ends_at_its_expiry() {
    on_every_engine(async |db| {
        let world = World::new(db).await;
        let (key, secret) = world.key(KeyKind::ApiKey, Some(Duration::from_secs(10))).await;
        assert_eq!(world.resolve(&secret).await, Ok(key));
        world.clock.advance(Duration::from_secs(9));
        assert_eq!(world.resolve(&secret).await, Ok(key));
        world.clock.advance(Duration::from_secs(1));
        assert_eq!(world.resolve(&secret).await, Err(Refused::Invalid));
        world.clock.advance(Duration::from_secs(100));
        assert_eq!(world.resolve(&secret).await, Err(Refused::Invalid));
    })
    .await;
}

#[tokio::test]
async fn a_tenants_standing_is_its_keys_standing() {
    on_every_engine(async |db| {
        let world = World::new(db).await;
        let (db, clock, tenant) = (&world.db, &world.clock, world.tenant);
        let (key, secret) = world.key(KeyKind::ApiKey, None).await;
        let (revoked_key, revoked) = world.key(KeyKind::ApiKey, None).await;
        crate::api_keys::revoke(db, clock, Actor::Cli, tenant, revoked_key).await.expect("revoked");
        assert_eq!(world.resolve(&secret).await, Ok(key));

        nouns::suspend(db, clock, Actor::Cli, tenant).await.expect("suspended");
        world.credentials.invalidate(Change::Tenant(tenant));
        let suspended = Refused::Suspended { tenant_name: "Acme".to_owned() };
        assert_eq!(world.resolve(&secret).await, Err(suspended.clone()));
        assert_eq!(world.resolve(&secret).await, Err(suspended));
        assert_eq!(world.resolve(&revoked).await, Err(Refused::Invalid), "a revoked key learns nothing");

        nouns::resume(db, clock, Actor::Cli, tenant).await.expect("resumed");
        world.credentials.invalidate(Change::Tenant(tenant));
        assert_eq!(world.resolve(&secret).await, Ok(key));

        nouns::delete(db, clock, Actor::Cli, tenant).await.expect("deleted");
        world.credentials.invalidate(Change::Tenant(tenant));
        assert_eq!(world.resolve(&secret).await, Err(Refused::Invalid));
    })
    .await;
}

#[tokio::test]
async fn a_reference_stands_for_the_token() {
    on_every_engine(async |db| {
        let world = World::new(db).await;
        let (key, secret) = world.key(KeyKind::UrlToken, None).await;
        let caller = world.credentials.resolve(secret.expose(), Place::Query).await.expect("a caller");
        let reference = world.credentials.reference(secret.expose(), &caller);
        assert_eq!(id(world.credentials.resolve_reference(&reference).await), Ok(key));
        let elsewhere = another_process(&world.db, &world.clock);
        assert_eq!(id(elsewhere.resolve_reference(&reference).await), Ok(key));
        let (db, clock) = (&world.db, &world.clock);
        crate::api_keys::revoke(db, clock, Actor::Cli, world.tenant, key).await.expect("revoked");
        world.credentials.invalidate(Change::Credential(key));
        assert_eq!(id(world.credentials.resolve_reference(&reference).await), Err(Refused::Invalid));
        assert!(!format!("{reference:?}").contains(secret.expose()));
    })
    .await;
}

#[tokio::test]
async fn other_processes_hear_of_a_change_once_and_soon() {
    on_every_engine(async |db| {
        let world = World::new(db).await;
        let (key, secret) = world.key(KeyKind::ApiKey, None).await;
        let (kept_key, kept) = world.key(KeyKind::ApiKey, None).await;
        let (last, _) = world.key(KeyKind::ApiKey, None).await;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (tasks, ear) = (Tasks::new(), heard.clone());
        world.credentials.run_invalidations(&tasks, move |news| ear.lock().expect("a list").push(news));
        assert_eq!(world.resolve(&secret).await, Ok(key));
        assert_eq!(world.resolve(&kept).await, Ok(kept_key));

        let (db, clock) = (&world.db, &world.clock);
        crate::api_keys::revoke(db, clock, Actor::Cli, world.tenant, key).await.expect("revoked");
        let gone = async {
            while world.resolve(&secret).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(1), gone).await.expect("revoked everywhere within a second");
        // What is heard a second time is heard before what comes after it.
        crate::api_keys::revoke(db, clock, Actor::Cli, world.tenant, last).await.expect("revoked");
        let [gone, last] = [key, last].map(|key| News::Change(Change::Credential(key)));
        let heard_last = async {
            while !heard.lock().expect("a list").contains(&last) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(1), heard_last).await.expect("heard within a second");
        assert_eq!(*heard.lock().expect("a list"), [gone, last]);
        assert_eq!(world.resolve(&kept).await, Ok(kept_key));
        tasks.shut_down().await;
    })
    .await;
}

#[tokio::test]
async fn who_pays_is_known_everywhere_and_no_session_ends_for_it() {
    on_every_engine(async |db| {
        let world = World::new(db).await;
        let (key, secret) = world.key(KeyKind::ApiKey, None).await;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (tasks, ear) = (Tasks::new(), heard.clone());
        assert_eq!(world.credentials.heard_at(), i64::MIN);
        world.credentials.run_invalidations(&tasks, move |news| ear.lock().expect("a list").push(news));
        let pays = async || {
            let caller = world.credentials.resolve(secret.expose(), Place::Header).await.expect("a caller");
            let reference = world.credentials.reference(secret.expose(), &caller);
            let again = world.credentials.resolve_reference(&reference).await.expect("a caller");
            assert_eq!(caller.is_metered(), again.is_metered());
            caller.is_metered()
        };
        let paying = async || {
            while !pays().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(!pays().await);
        let (db, clock) = (&world.db, &world.clock);
        open_account(db, world.tenant).await;
        assert!(!pays().await, "it is kept");
        let mut tx = db.begin().await.expect("a transaction");
        let tenant = world.tenant.to_string();
        invalidations::insert(&mut tx, clock.now(), Kind::Account, tenant).await.expect("a row");
        tx.commit().await.expect("committed");
        tokio::time::timeout(Duration::from_secs(1), paying()).await.expect("heard");
        assert_eq!(*heard.lock().expect("a list"), [News::Account(world.tenant)]);
        assert_eq!(world.credentials.heard_at(), clock.monotonic_micros());
        assert_eq!(world.resolve(&secret).await, Ok(key));

        let other = nouns::create(db, clock, Actor::Cli, "Other").await.expect("a tenant").id;
        let new = NewKey::new(KeyKind::ApiKey, "k");
        let (_, secret) = crate::api_keys::create(db, clock, Actor::Cli, other, new).await.expect("a key");
        let metered = async || {
            let caller = world.credentials.resolve(secret.expose(), Place::Header).await;
            caller.expect("a caller").is_metered()
        };
        assert!(!metered().await);
        let terms = serde_json::from_str(r#"{"kind": "usage"}"#).expect("terms");
        let (plan, when) = ("default".parse().expect("a name"), (None, Duration::from_secs(5)));
        crate::prices::publish(db, clock, Actor::Cli, &plan, &terms, when).await.expect("published");
        let known = async {
            while !metered().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(1), known).await.expect("heard");
        tasks.shut_down().await;
    })
    .await;
}

#[tokio::test]
async fn last_uses_are_written_at_the_end() {
    on_every_engine(async |db| {
        let world = World::new(db).await;
        let tasks = Tasks::new();
        world.credentials.run_invalidations(&tasks, |_| ());
        tokio::task::yield_now().await;
        let (key, secret) = world.key(KeyKind::ApiKey, None).await;
        let (idle, _) = world.key(KeyKind::ApiKey, None).await;
        assert_eq!(world.resolve(&secret).await, Ok(key));
        world.clock.advance(Duration::from_secs(20));
        assert_eq!(world.resolve(&secret).await, Ok(key));
        tasks.shut_down().await;
        let list = crate::api_keys::list(&world.db, world.tenant, Page::first(9)).await.expect("a list");
        let last = |id| list.rows.iter().find(|row| row.id == id).and_then(|row| row.last_used_at);
        assert_eq!((last(key), last(idle)), (Some(world.clock.now()), None));

        let earlier = api_keys::Use { id: key, at: 5 };
        api_keys::record_uses(&world.db, &[earlier]).await.expect("written");
        let row = crate::api_keys::get(&world.db, world.tenant, key).await.expect("a key");
        assert_eq!(row.last_used_at, Some(world.clock.now()), "a later use stays");
    })
    .await;
}

#[tokio::test]
async fn without_a_database_the_cache_carries_on() {
    on_every_engine(async |db| {
        let world = World::new(db).await;
        let (known, secret) = world.key(KeyKind::ApiKey, None).await;
        let (_, never_seen) = world.key(KeyKind::ApiKey, None).await;
        assert_eq!(world.resolve(&secret).await, Ok(known));
        world.db.close().await;
        assert_eq!(world.resolve(&secret).await, Ok(known));
        assert_eq!(world.resolve(&never_seen).await, Err(Refused::Unavailable));
        world.clock.advance(Duration::from_secs(61));
        assert_eq!(world.resolve(&secret).await, Ok(known), "old, and better than nothing");
        world.clock.advance(Duration::from_secs(600));
        assert_eq!(world.resolve(&secret).await, Err(Refused::Unavailable));
    })
    .await;
}

#[tokio::test]
async fn many_requests_at_once_get_one_answer() {
    on_every_engine(async |db| {
        let world = World::new(db).await;
        let (key, secret) = world.key(KeyKind::ApiKey, None).await;
        let all = futures_util::future::join_all((0..100).map(|_| world.resolve(&secret))).await;
        assert!(all.into_iter().all(|answer| answer == Ok(key)));
    })
    .await;
}

/// Handlers run as tasks, so what they wait for must be able to move between threads.
#[test]
fn futures_can_be_spawned() {
    fn spawnable<F: Future + Send>(_: impl FnOnce(World) -> F) {}
    spawnable(|w| async move {
        let caller = w.credentials.resolve("", Place::Header).await.expect("never run");
        let reference = w.credentials.reference("", &caller);
        w.credentials.resolve_reference(&reference).await
    });
    spawnable(|w| async move {
        nouns::create(&w.db, &w.clock, Actor::Cli, "").await?;
        nouns::delete(&w.db, &w.clock, Actor::Cli, w.tenant).await?;
        nouns::find_by_name(&w.db, "").await?;
        nouns::list(&w.db, Page::first(1)).await?;
        crate::api_keys::list(&w.db, w.tenant, Page::first(1)).await?;
        crate::audit::list(&w.db, None, Page::first(1)).await?;
        crate::calls::insert_batch(&w.db, &w.clock, &[]).await?;
        crate::session_history::list(&w.db, w.tenant, Page::first(1)).await?;
        crate::operator_keys::create(&w.db, &w.clock, Actor::Cli, "").await?;
        crate::operator_keys::verify(&w.db, &w.clock, "").await?;
        crate::settings::deployment_secret(&w.db).await?;
        w.db.ping().await?;
        w.db.migrate().await
    });
}
