//! The client against a server that says what it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use prometheus::{Registry, TextEncoder};
use stripe_client::StripeMethod;
use stripe_product::product::{CreateProduct, ListProduct, RetrieveProduct};
use stripe_shared::Product;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::clock::Timestamp;
use crate::config::{Layers, Millis};
use crate::egress::install_crypto;
use crate::tasks::Tasks;

const KEY: &str = "sk_test_hunter2hunter2";
const QUICK: Pace = Pace { first: Duration::from_millis(1), most: Duration::from_millis(4), seed: Some(7) };

/// What the server says next.
enum Reply {
    Says(u16, &'static [(&'static str, &'static str)], String),
    /// Nothing at all.
    Silence,
}

fn says(status: u16, body: &str) -> Reply {
    Reply::Says(status, &[("request-id", "req_7")], body.to_owned())
}

fn error(status: u16) -> Reply {
    says(
        status,
        r#"{"error": {"type": "api_error", "code": "a_code", "param": "a_param", "message": "Words."}}"#,
    )
}

fn product() -> Reply {
    says(
        200,
        r#"{"id": "weir_credits", "object": "product", "active": true, "created": 1, "updated": 1, "images": [],
            "livemode": false, "marketing_features": [], "metadata": {}, "name": "Tool calls", "type": "service"}"#,
    )
}

/// The head of a success, and half of its body.
const TORN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 50\r\nconnection: close\r\n\r\n{\"id\":";

/// What came in.
#[derive(Debug, Clone)]
struct Seen {
    line: String,
    headers: http::HeaderMap,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

#[derive(Clone, Default)]
struct Server {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    url: String,
}

impl Server {
    async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let replies = Arc::new(Mutex::new(replies.into_iter().collect()));
        let server = Self { replies, url, ..Self::default() };
        let router = axum::Router::new().fallback(answer).with_state(server.clone());
        drop(Tasks::new().spawn(async move { axum::serve(listener, router).await.expect("it serves") }));
        server
    }

    fn seen(&self) -> Vec<Seen> {
        assert!(self.replies.lock().expect("no panic").is_empty(), "it was asked less often than expected");
        self.seen.lock().expect("no panic").clone()
    }

    fn keys(&self) -> Vec<String> {
        self.seen().iter().map(|seen| seen.header("idempotency-key").to_owned()).collect()
    }
}

async fn answer(State(server): State<Server>, request: Request) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let body = String::from_utf8(body.to_vec()).expect("text");
    server.seen.lock().expect("no panic").push(Seen { line, headers: parts.headers, body });
    let reply = server.replies.lock().expect("no panic").pop_front();
    match reply.expect("nothing more was to be asked") {
        Reply::Says(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            response.body(Body::from(body)).expect("a response")
        }
        Reply::Silence => std::future::pending().await,
    }
}

/// Says these bytes to one connection each, once it has sent [`create`], and closes it.
async fn raw(replies: &'static [&'static str]) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = Tasks::new().spawn(async move {
        for reply in replies {
            let (mut peer, _) = listener.accept().await.expect("a connection");
            let mut request = Vec::new();
            while !request.ends_with(b"name=Tool+calls") {
                assert_ne!(peer.read_buf(&mut request).await.expect("a request"), 0, "it ended early");
            }
            peer.write_all(reply.as_bytes()).await.expect("an answer");
        }
    });
    (url, server)
}

fn stripe_with(url: &str, timeout: u64, metrics: &Metrics) -> Stripe {
    install_crypto();
    let mut config = Layers::default().load().expect("the defaults").billing;
    config.stripe_key = KEY.into();
    config.stripe_url = format!("{url}/");
    config.timeout = Millis::new(timeout);
    config.attempts = 3;
    let clock = Clock::manual(Timestamp::from_micros(0));
    Stripe::new(&config, &clock, metrics).expect("a client").with_pace(QUICK)
}

fn stripe(url: &str) -> Stripe {
    stripe_with(url, 20_000, &Metrics::register(&Registry::new()).expect("metrics"))
}

fn create() -> CreateProduct {
    CreateProduct::new("Tool calls").id("weir_credits")
}

async fn failure(server: &Server, key: Key<'_>) -> StripeError {
    stripe(&server.url).send(&create(), key).await.expect_err("no product")
}

#[tokio::test]
async fn a_request_has_all_that_stripe_wants() {
    let server = Server::start([product(), product(), product()]).await;
    let stripe = stripe(&server.url);
    let made: Product = stripe.send(&create(), Key::Named("setup-1")).await.expect("a product");
    assert_eq!(made.id.as_str(), "weir_credits");
    stripe.read(&RetrieveProduct::new("weir_credits")).await.expect("a product");
    let raw = RequestBuilder::new(StripeMethod::Get, "/products/weir_credits")
        .query(&BTreeMap::from([("a b", "c&d")]));
    let _: Product = stripe.send_raw(raw, Key::Fresh).await.expect("a product");
    let [post, get, raw] = server.seen().try_into().expect("three requests");
    assert_eq!(post.line, "POST /v1/products");
    assert_eq!(post.body, "id=weir_credits&name=Tool+calls");
    assert_eq!(post.header("authorization"), format!("Bearer {KEY}"));
    assert_eq!(post.header("stripe-version"), VERSION.as_str());
    assert_eq!(post.header("idempotency-key"), "setup-1");
    assert_eq!(post.header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(post.header("user-agent"), egress::USER_AGENT);
    assert_eq!((get.line.as_str(), get.header("idempotency-key")), ("GET /v1/products/weir_credits", ""));
    assert_eq!(raw.line, "GET /v1/products/weir_credits?a+b=c%26d");
}

#[tokio::test]
async fn attempts_share_a_key_unless_each_is_to_have_its_own() {
    for (key, distinct) in [(Key::Fresh, 1), (Key::Named("mine"), 1), (Key::PerAttempt, 3)] {
        let server = Server::start([error(500), error(503), product()]).await;
        stripe(&server.url).send(&create(), key).await.expect("a product at last");
        let keys = server.keys();
        let different: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!((keys.len(), different.len()), (3, distinct), "{key:?}: {keys:?}");
        assert!(keys.iter().all(|sent| !sent.is_empty()));
        assert!(!matches!(key, Key::Named(_)) || keys[0] == "mine");
    }
}

#[tokio::test]
async fn stripes_word_on_trying_again_counts_before_the_status() {
    let no = &[("stripe-should-retry", "false")];
    let yes = &[("stripe-should-retry", "true")];
    let server = Server::start([Reply::Says(500, no, String::new())]).await;
    assert_eq!(failure(&server, Key::Fresh).await.fate, Fate::Unclear);
    assert_eq!(server.seen().len(), 1);
    let server = Server::start([Reply::Says(400, yes, String::new()), product()]).await;
    stripe(&server.url).send(&create(), Key::Fresh).await.expect("a product");
    assert_eq!(server.seen().len(), 2);
    let replayed = &[("idempotent-replayed", "true"), ("stripe-should-retry", "true")];
    let server = Server::start([Reply::Says(500, replayed, String::new())]).await;
    let error = failure(&server, Key::Named("mine")).await;
    assert!(error.replayed && error.to_string().contains("said again"), "{error}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn an_error_has_stripes_words_and_none_of_ours() {
    let server = Server::start([error(402)]).await;
    let found = failure(&server, Key::Fresh).await;
    assert_eq!(
        found.to_string(),
        "POST /products: status 402, api_error, a_code, parameter a_param: Words. (nothing happened; request req_7)"
    );
    assert_eq!((found.code(), found.request_id.as_deref()), (Some("a_code"), Some("req_7")));
    let words = format!(r#"{{"error": {{"type": "invalid_request_error", "message": "Bad {KEY}!"}}}}"#);
    let server = Server::start([says(401, &words)]).await;
    let found = failure(&server, Key::Fresh).await;
    for text in [found.to_string(), format!("{found:?}"), format!("{:?}", stripe(&server.url))] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn a_page_of_a_proxy_keeps_its_status() {
    let page = || says(502, "<html>Bad Gateway</html>");
    let server = Server::start([page(), page(), page()]).await;
    let error = failure(&server, Key::Fresh).await;
    assert_eq!((error.status, error.fate, error.attempts), (Some(502), Fate::Unclear, 3));
    assert_eq!((&error.trouble, &error.said), (&Trouble::Status, &None));
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn too_many_requests_wait_as_long_as_stripe_says_within_bounds() {
    let wait = || Reply::Says(429, &[("retry-after", "3600")], String::new());
    let server = Server::start([wait(), wait(), product()]).await;
    let started = std::time::Instant::now();
    stripe(&server.url).send(&create(), Key::Fresh).await.expect("a product");
    assert!(started.elapsed() < Duration::from_secs(60), "an hour is too long");
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn waits_grow_and_chance_is_repeatable() {
    let pace = Pace { first: Duration::from_millis(100), most: Duration::from_millis(400), seed: Some(1) };
    let waits: Vec<_> = pace.waits().take(5).collect();
    assert_eq!(waits, pace.waits().take(5).collect::<Vec<_>>());
    for (wait, base) in waits.iter().zip([100, 200, 400, 400, 400]) {
        let base = Duration::from_millis(base);
        assert!((base..=2 * base).contains(wait), "{waits:?}");
    }
    let other = Pace { seed: Some(2), ..pace };
    assert_ne!(waits, other.waits().take(5).collect::<Vec<_>>());
}

#[tokio::test]
async fn without_an_answer_it_may_have_happened() {
    let server = Server::start([Reply::Silence, Reply::Silence, Reply::Silence]).await;
    let metrics = Metrics::register(&Registry::new()).expect("metrics");
    let slow = stripe_with(&server.url, 100, &metrics);
    let error = slow.send(&create(), Key::Fresh).await.expect_err("silence");
    assert_eq!((error.trouble, error.fate, error.attempts), (Trouble::Timeout, Fate::Unclear, 3));
    // A later no does not undo what an earlier attempt may have done.
    let server = Server::start([Reply::Silence, self::error(400)]).await;
    let slow = stripe_with(&server.url, 200, &metrics);
    let error = slow.send(&create(), Key::Fresh).await.expect_err("silence, then no");
    assert_eq!((error.status, error.fate), (Some(400), Fate::Unclear));
}

#[tokio::test]
async fn a_connection_that_breaks_is_unclear_and_one_that_never_was_is_not() {
    let (url, server) = raw(&["", "", ""]).await;
    let error = stripe(&url).send(&create(), Key::Fresh).await.expect_err("no answer");
    assert!(matches!(error.trouble, Trouble::Broken(_)), "{error}");
    assert_eq!((error.fate, error.attempts), (Fate::Unclear, 3));
    server.await.expect("three connections");
    // Nobody listens there any more.
    let error = stripe(&url).send(&create(), Key::Fresh).await.expect_err("no connection");
    assert!(matches!(error.trouble, Trouble::Unreachable(_)), "{error}");
    assert_eq!((error.fate, error.attempts), (Fate::Refused, 3));
}

#[tokio::test]
async fn a_success_that_cannot_be_read_happened() {
    for odd in ["<html>fine</html>", "{}", r#"{"id": 5}"#, "\u{0}"] {
        let server = Server::start([says(200, odd)]).await;
        let error = failure(&server, Key::Fresh).await;
        assert!(matches!(error.trouble, Trouble::Unreadable(_)), "{odd}: {error}");
        assert_eq!((error.fate, error.request_id.as_deref()), (Fate::Happened, Some("req_7")), "{odd}");
        assert_eq!(server.seen().len(), 1);
    }
    let server = Server::start([says(200, &"x".repeat(answer::MAX_BYTES + 1))]).await;
    let error = failure(&server, Key::Fresh).await;
    assert_eq!((error.trouble, error.fate), (Trouble::TooLarge, Fate::Happened));
    // The same key brings the answer again, but what names itself is not sent anew.
    let (url, server) = raw(&[TORN, TORN]).await;
    let error = stripe(&url).send(&create(), Key::PerAttempt).await.expect_err("half an answer");
    assert!(matches!(error.trouble, Trouble::Broken(_)), "{error}");
    assert_eq!((error.status, error.fate, error.attempts), (Some(200), Fate::Happened, 1));
    // The second connection is let go, and nobody listens any more.
    let error = stripe(&url).send(&create(), Key::Fresh).await.expect_err("half an answer");
    assert_eq!((error.fate, error.attempts), (Fate::Happened, 3));
    server.await.expect("two connections");
}

#[tokio::test]
async fn ids_lead_nowhere_else() {
    let server = Server::start([]).await;
    let stripe = stripe(&server.url);
    for odd in ["..", "a/../b", "a?b=c", "a#b"] {
        let error = stripe.read(&RetrieveProduct::new(odd)).await.expect_err("a malformed id");
        assert_eq!((error.trouble, error.fate), (Trouble::Unsendable, Fate::Refused), "{odd}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let away = Reply::Says(302, &[("location", "/v1/elsewhere")], String::new());
    let server = Server::start([away]).await;
    let error = failure(&server, Key::Fresh).await;
    assert_eq!((error.status, error.fate), (Some(302), Fate::Unclear));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn the_crates_can_use_it_and_lists_are_read_to_the_end() {
    let page = |id: &str, more: bool| {
        let Reply::Says(.., body) = product() else { unreachable!("it says something") };
        let body = body.replace("weir_credits", id);
        says(
            200,
            &format!(r#"{{"object": "list", "url": "/v1/products", "has_more": {more}, "data": [{body}]}}"#),
        )
    };
    let server = Server::start([page("a", true), page("b", false), error(500), page("c", false)]).await;
    let stripe = stripe(&server.url);
    let list = |after: Option<&str>| match after {
        Some(after) => ListProduct::new().starting_after(after),
        None => ListProduct::new(),
    };
    let found: Vec<Product> = stripe.all(list).await.expect("two pages");
    let ids: Vec<_> = found.iter().map(|product| product.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
    let once = ListProduct::new().customize().request_strategy(RequestStrategy::Once).send(&stripe).await;
    assert_eq!(once.expect_err("one attempt").attempts, 1);
    assert_eq!(ListProduct::new().send(&stripe).await.expect("a page").data.len(), 1);
    assert_eq!(server.seen()[1].line, "GET /v1/products?starting_after=a");
}

#[tokio::test]
async fn operations_are_counted_by_what_is_known_of_them() {
    let server = Server::start([product(), error(400), error(502), product(), says(200, "{}")]).await;
    let registry = Registry::new();
    let stripe = stripe_with(&server.url, 20_000, &Metrics::register(&registry).expect("metrics"));
    for _ in 0..4 {
        let _ = stripe.send(&create(), Key::Fresh).await;
    }
    let text = TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
    for line in [
        r#"weir_stripe_requests_total{operation="POST /products",outcome="ok"} 2"#,
        r#"weir_stripe_requests_total{operation="POST /products",outcome="refused"} 1"#,
        r#"weir_stripe_requests_total{operation="POST /products",outcome="happened"} 1"#,
        r#"weir_stripe_request_duration_seconds_count{operation="POST /products"} 4"#,
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
}
