//! JWTs through the front of the room: what an attacker or a careless issuer might send.

mod resolve;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header};
use rcgen::PublicKeyData;
use serde_json::json;

use super::*;
use crate::config::Millis;
use crate::tasks::Tasks;

const ISSUER: &str = "https://login.example.com";
const RESOURCE: &str = "https://mcp.example.com/mcp";
const NOW: u64 = 1_700_000_000;
const SKEW: u64 = 30;

/// A key pair of an issuer.
struct Signer {
    algorithm: Algorithm,
    kid: &'static str,
    key: EncodingKey,
    public: Vec<u8>,
}

impl Signer {
    fn new(kid: &'static str, algorithm: Algorithm) -> Self {
        let made = match algorithm {
            Algorithm::ES256 => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Algorithm::ES384 => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Algorithm::EdDSA => rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519),
            _ => rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048),
        };
        let pair = made.expect("a key pair");
        let pem = pair.serialize_pem();
        let key = match algorithm.family() {
            AlgorithmFamily::Ec => EncodingKey::from_ec_pem(pem.as_bytes()),
            AlgorithmFamily::Ed => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        Self { algorithm, kid, key: key.expect("a signing key"), public: pair.der_bytes().to_vec() }
    }

    /// The public key, with `extra` fields over its own.
    fn jwk(&self, extra: &Value) -> Value {
        let mut jwk = if self.algorithm == Algorithm::EdDSA {
            let x = data_encoding::BASE64URL_NOPAD.encode(&self.public);
            json!({"kty": "OKP", "crv": "Ed25519", "x": x})
        } else {
            let jwk = Jwk::from_encoding_key(&self.key, self.algorithm).expect("a public key");
            serde_json::to_value(jwk).expect("JSON")
        };
        jwk["kid"] = json!(self.kid);
        for (name, value) in extra.as_object().expect("an object") {
            jwk[name] = value.clone();
        }
        jwk
    }

    fn header(&self) -> Header {
        Header { kid: Some(self.kid.to_owned()), ..Header::new(self.algorithm) }
    }

    fn sign(&self, claims: &Value) -> String {
        jsonwebtoken::encode(&self.header(), claims, &self.key).expect("a token")
    }
}

fn tenant() -> TenantId {
    "tn_01k9zzzzzzzzzzzzzzzzzzzzzz".parse().expect("an id")
}

/// Good claims, with `extra` over them; a null takes a claim away.
fn claims(extra: &Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": RESOURCE, "sub": "alice", "exp": NOW + 300,
        "tenant_id": tenant().to_string(), "scope": "openid tool:dns_* risk:write",
    });
    let all = claims.as_object_mut().expect("an object");
    for (name, value) in extra.as_object().expect("an object") {
        match value {
            Value::Null => all.remove(name),
            value => all.insert(name.clone(), value.clone()),
        };
    }
    claims
}

fn issuer(algorithms: &[&str]) -> config::Issuer {
    config::Issuer {
        issuer: ISSUER.to_owned(),
        jwks_url: None,
        jwks_file: None,
        algorithms: algorithms.iter().map(ToString::to_string).collect(),
        audience: String::new(),
        tenant_claim: "tenant_id".to_owned(),
        scope_claim: "scope".to_owned(),
        skew: Millis::new(SKEW * 1000),
    }
}

fn clock() -> Clock {
    Clock::manual(Timestamp::from_micros(i64::try_from(NOW).expect("small") * 1_000_000))
}

fn build(issuer: config::Issuer, clock: &Clock) -> Result<Verifier> {
    let client = reqwest::Client::builder().build().expect("a client");
    Verifier::new(&[issuer], RESOURCE, clock, &client)
}

fn write_keys(path: &Path, keys: &[Value]) {
    std::fs::write(path, json!({ "keys": keys }).to_string()).expect("a file");
}

/// A verifier whose issuer has these keys in a file.
fn with_keys(algorithms: &[&str], keys: &[Value], clock: &Clock) -> (Verifier, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("jwks.json");
    write_keys(&path, keys);
    let issuer = config::Issuer { jwks_file: Some(path), ..issuer(algorithms) };
    (build(issuer, clock).expect("a verifier"), dir)
}

fn outcome(verified: Result<Verified, Refused>) -> Result<String, Refused> {
    verified.map(|verified| verified.subject)
}

#[tokio::test]
async fn every_asymmetric_algorithm_works() {
    use Algorithm::{ES256, ES384, EdDSA, PS384, RS256};
    for algorithm in [RS256, PS384, ES256, ES384, EdDSA] {
        let signer = Signer::new("k1", algorithm);
        let name = format!("{algorithm:?}");
        let (verifier, _dir) = with_keys(&[&name], &[signer.jwk(&json!({}))], &clock());
        let token = signer.sign(&claims(&json!({})));
        assert!(verifier.may_accept(&token));
        let verified = verifier.verify(&token).await.expect("a good token");
        assert_eq!((verified.tenant, verified.subject.as_str()), (tenant(), "alice"), "{name}");
        assert!(verified.scopes.allows_tool("dns_resolve", Risk::Write));
        assert!(!verified.scopes.allows_tool("dns_resolve", Risk::Destructive));
        assert!(!verified.scopes.allows_tool("get_status", Risk::ReadOnly));
        assert_eq!(verified.ends_at.as_seconds(), i64::try_from(NOW + 300 + SKEW).expect("small"));
    }
}

#[tokio::test]
async fn a_token_for_one_servers_url_reaches_that_server_only() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let (verifier, _dir) = with_keys(&["ES256"], &[signer.jwk(&json!({}))], &clock());
    let verified = |extra: Value| {
        let token = signer.sign(&claims(&extra));
        let verifier = &verifier;
        async move { verifier.verify(&token).await.map(|verified| verified.scopes) }
    };
    let base = RESOURCE.trim_end_matches("/mcp");
    let all = verified(json!({"aud": format!("{base}/sse")})).await.expect("the endpoint for old clients");
    assert!(all.allows_server("core") && all.allows_server("acme"));
    for end in ["mcp", "sse"] {
        let one = verified(json!({"aud": format!("{base}/s/core/{end}")})).await.expect("one server");
        assert!(one.allows_server("core") && !one.allows_server("acme"));
        assert!(one.allows_tool("dns_resolve", Risk::Write) && !one.allows_tool("get_status", Risk::Write));
    }
    for bad in ["/s/core", "/s//mcp", "/s/*/mcp", "/s/a/b/mcp", "/admin", ""] {
        let refused = verified(json!({"aud": format!("{base}{bad}")})).await;
        assert_eq!(refused.err(), Some(Refused::Invalid), "{bad}");
    }
    let elsewhere = verified(json!({"aud": format!("{base}/s/core/mcp"), "scope": "server:acme"})).await;
    assert_eq!(elsewhere.err(), Some(Refused::Invalid));
}

#[tokio::test]
async fn claims_that_are_not_for_us_or_not_for_now_are_refused() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let (verifier, _dir) = with_keys(&["ES256"], &[signer.jwk(&json!({}))], &clock());
    let good = [
        json!({}),
        json!({"aud": ["https://other.example.com", RESOURCE]}),
        json!({"exp": NOW - SKEW + 1}),
        json!({"exp": 1_700_000_000.5_f64}),
        json!({"nbf": NOW + SKEW}),
        json!({"scope": ["tool:*"]}),
    ];
    for extra in good {
        let verified = verifier.verify(&signer.sign(&claims(&extra))).await;
        assert_eq!(outcome(verified), Ok("alice".to_owned()), "{extra}");
    }
    let bad = [
        json!({"aud": "https://other.example.com/mcp"}),
        json!({"aud": ["https://other.example.com"]}),
        json!({"aud": format!("{RESOURCE}/")}),
        json!({"aud": null}),
        json!({"aud": []}),
        json!({"aud": {"0": RESOURCE}}),
        json!({"exp": NOW - SKEW}),
        json!({"exp": null}),
        json!({"exp": "soon"}),
        json!({"exp": -1}),
        json!({"nbf": NOW + SKEW + 1}),
        json!({"nbf": "now"}),
        json!({"iss": "https://login.example.org"}),
        json!({"iss": [ISSUER]}),
        json!({"iss": null}),
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": "x".repeat(256)}),
        json!({"tenant_id": null}),
        json!({"tenant_id": "acme"}),
        json!({"tenant_id": 7}),
        json!({"scope": "tool:not a pattern! risk:high"}),
        json!({"scope": "risk:everything"}),
        json!({"scope": "server:"}),
        json!({"scope": 7}),
    ];
    for extra in bad {
        let verified = verifier.verify(&signer.sign(&claims(&extra))).await;
        assert_eq!(outcome(verified), Err(Refused::Invalid), "{extra}");
    }
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let jwk = signer.jwk(&json!({}));
    let (verifier, _dir) = with_keys(&["ES256"], std::slice::from_ref(&jwk), &clock());
    let good = signer.sign(&claims(&json!({})));
    assert!(verifier.verify(&good).await.is_ok());
    let (_, rest) = good.split_once('.').expect("three parts");
    let (payload, signature) = rest.split_once('.').expect("three parts");
    let head = |value: Value| data_encoding::BASE64URL_NOPAD.encode(value.to_string().as_bytes());

    // Its own key under a known id; no id; an unknown id; an id that is known, for another algorithm.
    let thief = Signer::new("k1", Algorithm::ES256);
    let rsa = Signer::new("k1", Algorithm::RS256);
    let stranger = Signer::new("k2", Algorithm::ES256);
    let claims = claims(&json!({}));
    let nameless = Header { kid: None, ..signer.header() };
    let critical = Header { crit: Some(vec!["exp".to_owned()]), ..signer.header() };
    let encode = |header: &Header| jsonwebtoken::encode(header, &claims, &signer.key).expect("a token");

    // The public key, as it is published, as the secret of an HMAC.
    let public = EncodingKey::from_secret(jwk.to_string().as_bytes());
    let confused = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::HS256) };
    let confused = jsonwebtoken::encode(&confused, &claims, &public).expect("a token");

    for (what, token) in [
        ("another key", thief.sign(&claims)),
        ("RS256, not allowed", rsa.sign(&claims)),
        ("unknown kid", stranger.sign(&claims)),
        ("no kid", encode(&nameless)),
        ("a critical extension", encode(&critical)),
        ("HS256 with the public key", confused),
        ("alg none", format!("{}.{payload}.", head(json!({"alg": "none", "kid": "k1"})))),
        ("alg none, signed", format!("{}.{payload}.{signature}", head(json!({"alg": "None", "kid": "k1"})))),
        (
            "alg HS256, signed by EC",
            format!("{}.{payload}.{signature}", head(json!({"alg": "HS256", "kid": "k1"}))),
        ),
        ("no signature", format!("{}.{payload}.", head(json!({"alg": "ES256", "kid": "k1"})))),
        ("cut off", good[..good.len() - 2].to_owned()),
        ("not a token", "a.b.c".to_owned()),
        ("empty parts", "..".to_owned()),
    ] {
        assert_eq!(outcome(verifier.verify(&token).await), Err(Refused::Invalid), "{what}");
    }
    assert!(!verifier.may_accept(&"x".repeat(MAX_TOKEN + 1)));
    assert!(!verifier.may_accept("one.dot"));
}

#[tokio::test]
async fn what_a_key_says_of_itself_is_respected() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let token = signer.sign(&claims(&json!({})));
    for (extra, works) in [
        (json!({"use": "sig", "alg": "ES256", "key_ops": ["verify"]}), true),
        (json!({"use": "enc"}), false),
        (json!({"alg": "ES384"}), false),
        (json!({"alg": "HS256"}), false),
        (json!({"key_ops": ["encrypt"]}), false),
        (json!({"kid": "k9"}), false),
        (json!({"crv": "P-384"}), false),
    ] {
        // A key of an unknown kind before it must not spoil the set.
        let odd = json!({"kty": "future", "kid": "k1", "alg": {"x": 1}});
        let (verifier, _dir) = with_keys(&["ES256", "ES384"], &[odd, signer.jwk(&extra)], &clock());
        assert_eq!(verifier.verify(&token).await.is_ok(), works, "{extra}");
    }
    let secret = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "k1", "alg": "HS256"});
    let (verifier, _dir) = with_keys(&["ES256"], &[secret], &clock());
    assert_eq!(outcome(verifier.verify(&token).await), Err(Refused::Invalid));
}

#[tokio::test]
async fn a_file_is_read_again_for_an_unknown_key() {
    let (old, new) = (Signer::new("old", Algorithm::ES256), Signer::new("new", Algorithm::ES256));
    let clock = clock();
    let (verifier, dir) = with_keys(&["ES256"], &[old.jwk(&json!({}))], &clock);
    let long = json!({"exp": NOW + 7200});
    let (old_token, new_token) = (old.sign(&claims(&long)), new.sign(&claims(&long)));
    assert!(verifier.verify(&new_token).await.is_err());
    write_keys(&dir.path().join("jwks.json"), &[new.jwk(&json!({}))]);
    assert!(verifier.verify(&new_token).await.is_err(), "not again within 30 s");
    assert!(verifier.verify(&old_token).await.is_ok());
    clock.advance(Duration::from_secs(30));
    assert!(verifier.verify(&new_token).await.is_ok());
    assert!(verifier.verify(&old_token).await.is_err(), "the key is gone");
    std::fs::write(dir.path().join("jwks.json"), "{").expect("a file");
    clock.advance(Duration::from_secs(3600));
    assert!(verifier.verify(&new_token).await.is_ok(), "a broken file leaves the keys in hand");
}

/// An issuer's web server: answers with `body`, counts requests, until the tasks end.
async fn serve(tasks: &Tasks, body: Arc<std::sync::Mutex<(u16, String)>>, hits: Arc<AtomicUsize>) -> String {
    let answer = move || {
        hits.fetch_add(1, Ordering::Relaxed);
        let (status, text) = body.lock().expect("a body").clone();
        async move { (http::StatusCode::from_u16(status).expect("a status"), text) }
    };
    let router = axum::Router::new().route("/jwks", axum::routing::get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let stop = tasks.stopping().clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(async { axum::serve(listener, router).await }).await;
    });
    format!("http://{address}/jwks")
}

#[tokio::test]
async fn keys_from_a_url_are_kept_and_read_again() {
    let (tasks, clock, hits) = (Tasks::new(), clock(), Arc::new(AtomicUsize::new(0)));
    let (one, two) = (Signer::new("one", Algorithm::ES256), Signer::new("two", Algorithm::ES256));
    let set = |keys: &[Value]| json!({ "keys": keys }).to_string();
    let body = Arc::new(std::sync::Mutex::new((503, String::new())));
    let answer = |status, text| *body.lock().expect("a body") = (status, text);
    let url = serve(&tasks, body.clone(), hits.clone()).await;
    let verifier = build(config::Issuer { jwks_url: Some(url), ..issuer(&["ES256"]) }, &clock);
    let verifier = verifier.expect("a verifier");
    let long = json!({"exp": NOW + 200_000});
    let (a, b) = (one.sign(&claims(&long)), two.sign(&claims(&long)));
    let count = || hits.load(Ordering::Relaxed);

    assert_eq!(outcome(verifier.verify(&a).await), Err(Refused::Unavailable));
    answer(200, set(&[one.jwk(&json!({}))]));
    assert_eq!(outcome(verifier.verify(&a).await), Err(Refused::Unavailable), "tried just now");
    clock.advance(Duration::from_secs(2));
    let (x, y, z) = tokio::join!(verifier.verify(&a), verifier.verify(&a), verifier.verify(&a));
    assert!(x.is_ok() && y.is_ok() && z.is_ok());
    assert_eq!(count(), 2, "one fetch for all");

    // A new key: found at once when the last attempt is long ago, and no more often than every 30 s.
    clock.advance(Duration::from_secs(60));
    assert_eq!(outcome(verifier.verify(&b).await), Err(Refused::Invalid));
    answer(200, set(&[two.jwk(&json!({}))]));
    assert_eq!(outcome(verifier.verify(&b).await), Err(Refused::Invalid));
    assert_eq!(count(), 3);
    clock.advance(Duration::from_secs(30));
    assert!(verifier.verify(&b).await.is_ok());
    assert_eq!(outcome(verifier.verify(&a).await), Err(Refused::Invalid));
    assert_eq!(count(), 4);

    // The issuer breaks in several ways: the keys in hand serve on, for a day.
    for (status, text) in [(500, String::new()), (200, "<html>".to_owned()), (200, " ".repeat(300_000))] {
        answer(status, text);
        clock.advance(Duration::from_secs(601));
        let before = count();
        assert!(verifier.verify(&b).await.is_ok());
        assert_eq!(count(), before + 1);
    }
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(outcome(verifier.verify(&b).await), Err(Refused::Unavailable));
    tasks.shut_down().await;
}

#[test]
fn a_wrong_configuration_names_its_key() {
    let url = || config::Issuer { jwks_url: Some("https://x.example/jwks".to_owned()), ..issuer(&["ES256"]) };
    assert!(build(url(), &clock()).is_ok());
    for (key, wrong) in [
        ("algorithms", config::Issuer { algorithms: vec!["HS256".to_owned()], ..url() }),
        ("algorithms", config::Issuer { algorithms: vec!["none".to_owned()], ..url() }),
        ("algorithms", config::Issuer { algorithms: Vec::new(), ..url() }),
        ("issuer", config::Issuer { issuer: String::new(), ..url() }),
        ("jwks_url", config::Issuer { jwks_url: None, ..url() }),
        ("jwks_url", config::Issuer { jwks_file: Some("x".into()), ..url() }),
        ("jwks_url", config::Issuer { jwks_url: Some("http://x.example/jwks".to_owned()), ..url() }),
        ("jwks_file", config::Issuer { jwks_url: None, jwks_file: Some("/nowhere".into()), ..url() }),
    ] {
        let Err(Error::Invalid(message)) = build(wrong, &clock()) else { panic!("{key} was accepted") };
        assert!(message.starts_with(&format!("auth.issuers[0].{key}: ")), "{message}");
    }
}

#[test]
fn scopes_without_a_word_of_ours_are_everything() {
    for claim in [None, Some(json!("")), Some(json!("openid profile")), Some(json!(["email"]))] {
        assert_eq!(scopes(claim.as_ref()), Some(Scopes::default()), "{claim:?}");
    }
    let some = scopes(Some(&json!("server:dns risk:read_only risk:write"))).expect("scopes");
    assert!(some.allows_server("dns") && !some.allows_server("web"));
    assert!(some.allows_tool("any", Risk::Write) && !some.allows_tool("any", Risk::Destructive));
}
