//! JWTs through [`Credentials`]: the tenant behind the claim, the cache, and references.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::json;

use super::{NOW, RESOURCE, Signer, claims, clock, issuer, write_keys};
use crate::audit::Actor;
use crate::caller::Credential;
use crate::config::{self, Millis};
use crate::credentials::{Change, Credentials, Place, Refused};
use crate::db::testing::on_every_engine;
use crate::id::TenantId;
use crate::limits::PlanLimits;
use crate::{plans, prices, tenants};

#[tokio::test]
async fn a_token_stands_for_an_active_tenant() {
    on_every_engine(async |db| {
        let (dir, clock) = (tempfile::tempdir().expect("a directory"), clock());
        let signer = Signer::new("k1", Algorithm::ES256);
        let path = dir.path().join("jwks.json");
        write_keys(&path, &[signer.jwk(&json!({}))]);
        let auth = config::Auth {
            cache_entries: 100,
            cache_ttl: Millis::new(60_000),
            stale: Millis::new(600_000),
            invalidation_poll: Millis::new(400),
            failure_floor: Millis::new(25),
            issuers: vec![config::Issuer { jwks_file: Some(path), ..issuer(&["ES256"]) }],
        };
        let client = reqwest::Client::builder().build().expect("a client");
        let limits = config::Layers::default().load().expect("the defaults").limits;
        let made = Credentials::new(db.clone(), &auth, &limits, RESOURCE, clock.clone(), &client);
        let credentials = made.expect("credentials");
        let tenant = tenants::create(&db, &clock, Actor::Cli, "Acme").await.expect("a tenant").id;
        let token_of = |tenant: TenantId, sub: &str| {
            signer.sign(&claims(&json!({"tenant_id": tenant.to_string(), "sub": sub, "exp": NOW + 300})))
        };
        let token = token_of(tenant, "alice");
        let resolve = async |token: &str| credentials.resolve(token, Place::Header).await;

        let alice = resolve(&token).await.expect("a caller");
        assert_eq!((alice.tenant(), alice.data().credential_name.as_str()), (tenant, "alice"));
        let bob = resolve(&token_of(tenant, "bob")).await.expect("a caller");
        assert_ne!(alice.principal(), bob.principal());
        let Credential::Jwt(digest) = &alice.principal().credential else { panic!("a JWT was sent") };
        assert_eq!(digest.len(), 64);
        let in_url = credentials.resolve(&token, Place::Query).await;
        assert_eq!(in_url.expect_err("a refusal"), Refused::Invalid);
        let nobody = resolve(&token_of(TenantId::new(), "alice")).await;
        assert_eq!(nobody.expect_err("a refusal"), Refused::Invalid);

        let reference = credentials.reference(&token, &alice);
        let again = credentials.resolve_reference(&reference).await.expect("a caller");
        assert_eq!(again.principal(), alice.principal());

        let (gold, limits) =
            ("gold".parse().expect("a name"), PlanLimits { streams: Some(7), ..PlanLimits::default() });
        plans::put(&db, &clock, Actor::Cli, &gold, &limits).await.expect("a plan");
        tenants::set_plan(&db, &clock, Actor::Cli, tenant, &gold, Duration::ZERO).await.expect("on it");
        credentials.invalidate(Change::Tenant(tenant));
        assert_eq!(resolve(&token).await.expect("a caller").limits().streams, 7);
        plans::put(&db, &clock, Actor::Cli, &gold, &PlanLimits { streams: Some(8), ..limits })
            .await
            .expect("a plan");
        credentials.forget_plan("gold");
        assert_eq!(resolve(&token).await.expect("a caller").limits().streams, 8);
        let again = credentials.resolve_reference(&reference).await.expect("a caller");
        assert_eq!(again.limits().streams, 8);

        assert!(!again.is_metered());
        let terms = serde_json::from_str(r#"{"kind": "usage"}"#).expect("terms");
        let when = (None, Duration::from_secs(5));
        prices::publish(&db, &clock, Actor::Cli, &gold, &terms, when).await.expect("published");
        credentials.forget_plan("gold");
        assert!(resolve(&token).await.expect("a caller").is_metered());
        assert!(credentials.resolve_reference(&reference).await.expect("a caller").is_metered());

        tenants::suspend(&db, &clock, Actor::Cli, tenant).await.expect("suspended");
        credentials.invalidate(Change::Tenant(tenant));
        let suspended = Refused::Suspended { tenant_name: "Acme".to_owned() };
        assert_eq!(resolve(&token).await.expect_err("a refusal"), suspended);
        assert_eq!(credentials.resolve_reference(&reference).await.expect_err("a refusal"), suspended);
        tenants::resume(&db, &clock, Actor::Cli, tenant).await.expect("resumed");
        credentials.invalidate(Change::Tenant(tenant));
        assert!(resolve(&token).await.is_ok() && credentials.resolve_reference(&reference).await.is_ok());

        // The token's end, with the skew, is the end of what was cached and of the session's reference.
        clock.advance(Duration::from_secs(329));
        assert!(resolve(&token).await.is_ok() && credentials.resolve_reference(&reference).await.is_ok());
        clock.advance(Duration::from_secs(1));
        assert_eq!(resolve(&token).await.expect_err("a refusal"), Refused::Invalid);
        assert_eq!(credentials.resolve_reference(&reference).await.expect_err("a refusal"), Refused::Invalid);
    })
    .await;
}
