//! JWTs of a configured issuer, and what clients are told about where to get one.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tempfile::TempDir;
use weir::clock::{Clock, Timestamp};
use weir::id::{KeyId, TenantId};

use crate::support::legacy::Old;
use crate::support::{Gateway, Key, Legacy, Modern};

const ISSUER: &str = "https://login.example.com";
const PUBLIC: &str = "https://mcp.example.com";
const START: i64 = 1_790_000_000;

/// Somebody who issues tokens.
pub struct Issuer {
    key: EncodingKey,
    directory: TempDir,
}

fn pair() -> rcgen::KeyPair {
    rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key pair")
}

fn signing_key(pair: &rcgen::KeyPair) -> EncodingKey {
    EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a key")
}

impl Issuer {
    /// The public URL for which tokens are meant.
    pub const PUBLIC: &str = PUBLIC;

    /// A new one.
    pub fn new() -> Self {
        let pair = pair();
        // The uncompressed point: 4, x, y.
        let point = pair.public_key_raw();
        assert_eq!((point.len(), point[0]), (65, 4));
        let part = |range: std::ops::Range<usize>| BASE64URL_NOPAD.encode(&point[range]);
        let jwks = json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig", "x": part(1..33), "y": part(33..65) },
            { "kty": "oct", "kid": "k2", "k": BASE64URL_NOPAD.encode(&[7; 32]) },
        ]});
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("jwks.json"), jwks.to_string()).expect("written");
        Self { key: signing_key(&pair), directory }
    }

    /// What `auth.issuers` is where it is trusted.
    pub fn config(&self) -> String {
        let file = self.directory.path().join("jwks.json");
        format!(
            "[{{ issuer = \"{ISSUER}\", jwks_file = \"{}\", algorithms = [\"ES256\"], skew_ms = 0 }}]",
            file.display()
        )
    }

    async fn start(&self, clock: &Clock) -> Gateway {
        Gateway::build()
            .clock(clock)
            .set("server.public_url", PUBLIC)
            .set("auth.issuers", self.config())
            .start()
            .await
    }

    /// A token of this tenant for everything, until then.
    pub fn token_until(&self, tenant: TenantId, end: Timestamp) -> String {
        self.token(&changed(&claims(tenant), "exp", json!(end.as_seconds())))
    }

    fn token(&self, claims: &Value) -> String {
        sign(&header(), claims, &self.key)
    }
}

fn header() -> Header {
    Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::ES256) }
}

fn sign(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, claims, key).expect("a token")
}

fn claims(tenant: TenantId) -> Value {
    json!({
        "iss": ISSUER, "aud": format!("{PUBLIC}/mcp"), "sub": "ada", "tenant_id": tenant, "exp": START + 600,
    })
}

fn changed(claims: &Value, name: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    claims[name] = value;
    claims
}

fn bearer(tenant: TenantId, secret: String) -> Key {
    Key { id: KeyId::new(), tenant, secret }
}

fn clock() -> Clock {
    Clock::manual(Timestamp::from_micros(START * 1_000_000))
}

#[tokio::test]
async fn a_token_opens_what_its_scope_says() {
    let (issuer, clock) = (Issuer::new(), clock());
    let gateway = issuer.start(&clock).await;
    let tenant = gateway.tenant("a").await;
    let all = claims(tenant);
    let narrow = changed(&all, "scope", json!("openid server:lab tool:e* risk:read_only"));
    let client = |claims: &Value| Modern::new(&gateway, &bearer(tenant, issuer.token(claims)));
    let list = client(&narrow).send("tools/list", json!({})).await;
    assert_eq!(list.result()["tools"].as_array().expect("a list").len(), 1);
    assert_eq!(client(&narrow).call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    assert_eq!(client(&narrow).call("destroys", json!({})).await.error(), (200, -32602));
    assert_eq!(client(&all).call("destroys", json!({})).await.tool_text(), "destroyed");
    let status = client(&all).call("get_status", json!({})).await;
    assert_eq!(status.result()["structuredContent"]["credential"]["kind"], "jwt");
    clock.advance(Duration::from_secs(600));
    assert_eq!(client(&all).send("tools/list", json!({})).await.status, 401);
}

#[tokio::test]
async fn a_token_that_is_wrong_in_any_way_is_refused() {
    let (issuer, clock) = (Issuer::new(), clock());
    let gateway = issuer.start(&clock).await;
    let tenant = gateway.tenant("a").await;
    let good = claims(tenant);
    let mut missing = good.clone();
    missing.as_object_mut().expect("an object").remove("exp");
    let token = issuer.token(&good);
    let (head, rest) = token.split_once('.').expect("three parts");
    let body = rest.split_once('.').expect("three parts").0;
    let none = BASE64URL_NOPAD.encode(br#"{"alg":"none","kid":"k1"}"#);
    let symmetric = Header { kid: Some("k2".to_owned()), ..Header::new(Algorithm::HS256) };
    for (what, secret) in [
        ("another issuer", issuer.token(&changed(&good, "iss", json!("https://evil.example.com")))),
        ("another audience", issuer.token(&changed(&good, "aud", json!("https://other.example.com")))),
        ("no audience", issuer.token(&changed(&good, "aud", Value::Null))),
        ("expired", issuer.token(&changed(&good, "exp", json!(START)))),
        ("without an end", issuer.token(&missing)),
        ("not yet", issuer.token(&changed(&good, "nbf", json!(START + 1)))),
        ("an unknown tenant", issuer.token(&changed(&good, "tenant_id", json!(TenantId::new())))),
        ("no tenant", issuer.token(&changed(&good, "tenant_id", json!("a")))),
        ("no subject", issuer.token(&changed(&good, "sub", json!("")))),
        ("a scope with a typo", issuer.token(&changed(&good, "scope", json!("risk:readonly")))),
        ("another key", sign(&header(), &good, &signing_key(&pair()))),
        ("no key id", sign(&Header::new(Algorithm::ES256), &good, &issuer.key)),
        ("a published symmetric key", sign(&symmetric, &good, &EncodingKey::from_secret(&[7; 32]))),
        ("no signature", format!("{none}.{body}.")),
        ("a cut signature", format!("{head}.{body}.AAAA")),
    ] {
        let reply = Modern::new(&gateway, &bearer(tenant, secret)).send("tools/list", json!({})).await;
        assert_eq!(reply.error(), (401, -31002), "{what}");
    }
    let reply = Modern::new(&gateway, &bearer(tenant, token.clone())).send("tools/list", json!({})).await;
    assert_eq!(reply.status, 200);
    let in_query = gateway.request(http::Method::POST, "/mcp").query(&format!("token={token}"));
    assert_eq!(in_query.send().await.status, 401, "OAuth tokens do not belong into URLs");
}

#[tokio::test]
async fn a_session_outlives_the_token_that_opened_it() {
    let (issuer, clock) = (Issuer::new(), clock());
    let gateway = issuer.start(&clock).await;
    let tenant = gateway.tenant("a").await;
    let first = bearer(tenant, issuer.token(&claims(tenant)));
    let session = Legacy::open(&gateway, &first, "2025-11-25").await;
    clock.advance(Duration::from_secs(599));
    let later = changed(&claims(tenant), "exp", json!(START + 1200));
    let renewed = session.stolen_by(&bearer(tenant, issuer.token(&later)));
    assert_eq!(renewed.send("ping", json!({})).await.status, 200);
    clock.advance(Duration::from_secs(2));
    assert_eq!(session.send("ping", json!({})).await.status, 401);
    assert_eq!(renewed.send("ping", json!({})).await.status, 200);
    let other = changed(&later, "sub", json!("bob"));
    let other = session.stolen_by(&bearer(tenant, issuer.token(&other)));
    assert_eq!(other.send("ping", json!({})).await.status, 404);
}

#[tokio::test]
async fn a_suspended_tenant_is_suspended_for_tokens_too() {
    let (issuer, clock) = (Issuer::new(), clock());
    let gateway = issuer.start(&clock).await;
    let tenant = gateway.tenant("a").await;
    let client = Modern::new(&gateway, &bearer(tenant, issuer.token(&claims(tenant))));
    assert_eq!(client.send("tools/list", json!({})).await.status, 200);
    let operator = gateway.operator().await;
    operator.request(http::Method::POST, &format!("/admin/v1/tenants/{tenant}/suspend")).send().await;
    assert_eq!(client.send("tools/list", json!({})).await.error(), (403, -31003));
}

#[tokio::test]
async fn clients_are_told_where_tokens_come_from() {
    let issuer = Issuer::new();
    let gateway = issuer.start(&clock()).await;
    let well_known = "/.well-known/oauth-protected-resource";
    for path in ["/mcp", "/sse", "/s/lab/mcp", "/s/lab/sse"] {
        let reply = gateway.request(http::Method::GET, path).send().await;
        let challenge = format!("Bearer resource_metadata=\"{PUBLIC}{well_known}{path}\"");
        assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some(challenge.as_str())));
        let metadata = gateway.request(http::Method::GET, &format!("{well_known}{path}")).send().await;
        assert_eq!(metadata.status, 200, "{path}");
        assert_eq!(
            metadata.json(),
            &json!({
                "resource": format!("{PUBLIC}{path}"),
                "authorization_servers": [ISSUER],
                "bearer_methods_supported": ["header"],
                "resource_name": "weir",
            })
        );
    }
    let root = gateway.request(http::Method::GET, well_known).send().await;
    assert_eq!(root.json()["resource"], format!("{PUBLIC}/mcp"));
    for path in ["/nothing", "/s/nowhere/mcp", "/mcp/", "/s/lab/messages"] {
        let reply = gateway.request(http::Method::GET, &format!("{well_known}{path}")).send().await;
        assert_eq!(reply.status, 404, "{path}");
    }
}

#[tokio::test]
async fn without_an_issuer_the_well_known_paths_are_a_clean_404() {
    let gateway = Gateway::start().await;
    for path in [
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/mcp",
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
        "/register",
    ] {
        for method in [http::Method::GET, http::Method::POST] {
            let reply = gateway.request(method.clone(), path).send().await;
            if method == http::Method::POST && path.contains("protected-resource") {
                assert_eq!(reply.status, 405, "{path}");
                continue;
            }
            assert_eq!((reply.status, &reply.json()["code"]), (404, &json!("not_found")), "{method} {path}");
            assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        }
    }
    let challenge = gateway.request(http::Method::GET, "/mcp").send().await;
    assert_eq!(challenge.header("www-authenticate"), Some("Bearer"));
}

#[tokio::test]
async fn an_http_and_sse_client_goes_on_with_its_newer_token() {
    let (issuer, clock) = (Issuer::new(), clock());
    let gateway = issuer.start(&clock).await;
    let first = claims(gateway.tenant("a").await);
    let second = changed(&first, "exp", json!(START + 1200));
    let hello = |claims: &Value| Old::hello(&gateway, "/sse").bearer(&issuer.token(claims));
    let mut old = hello(&first).stream().await;
    let endpoint = old.next().await.expect("the endpoint");
    clock.advance(Duration::from_secs(601));
    let last = endpoint.id.expect("an id");
    let mut back = Old::connect(&gateway, hello(&second).header("last-event-id", &last)).await;
    assert_eq!(back.endpoint, endpoint.data, "the same session");
    assert_eq!(back.send("ping", json!({})).await["result"], json!({}));
    assert_eq!(old.next().await, None, "the older connection ends");
}
