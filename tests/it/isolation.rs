//! Tenants are walled off from each other: every route is tried with somebody else's things. A route or method without
//! a case here fails the build.

use http::Method;
use serde_json::{Value, json};
use weir::http::router::{Route, admin_routes, billing_routes, open_routes, public_routes, webhook_routes};

use crate::support::database::rows;
use crate::support::gateway::Operator;
use crate::support::legacy::Old;
use crate::support::tools::NOTE;
use crate::support::{Draft, Gateway, Key, Legacy, Modern};

/// Two tenants on one gateway: one that owns something, and one that wants it.
struct World {
    gateway: Gateway,
    operator: Operator,
    victim: Key,
    thief: Key,
    thief_token: Key,
    session: Legacy,
    old: Old,
}

impl World {
    async fn new() -> Self {
        // With a Stripe that does not answer, so that its webhooks have a route.
        let gateway = Gateway::build()
            .set("mcp.page_size", 1)
            .set("billing.stripe_key", "sk_test_0123456789")
            .set("billing.stripe_url", "http://127.0.0.1:1")
            .set("billing.credit_price", "0.25")
            .set("billing.webhook_secrets", "whsec_0123456789abcdef")
            .start()
            .await;
        let victim = gateway.caller().await;
        let thief = gateway.caller().await;
        let thief_token = gateway.url_token(thief.tenant).await;
        let session = Legacy::open(&gateway, &victim, "2025-11-25").await;
        let old = Old::open(&gateway, &victim).await;
        let operator = gateway.operator().await;
        Self { operator, victim, thief, thief_token, session, old, gateway }
    }

    fn request(&self, method: &str, path: &str) -> Draft {
        self.gateway.request(method.parse().expect("a method"), path)
    }

    /// Nobody and nonsense get 401.
    async fn strangers_are_refused(&self, draft: &Draft) {
        for stranger in [
            draft.clone(),
            draft.clone().bearer("wk_nonsense"),
            draft.clone().query("token=wu_nonsense"),
            draft.clone().bearer(&self.operator.secret),
        ] {
            assert_eq!(stranger.send().await.status, 401);
        }
    }

    /// The victim's session still answers, so nobody ended it.
    async fn session_lives(&self) {
        assert_eq!(self.session.send("ping", json!({})).await.status, 200);
        assert_eq!(self.gateway.app.sessions.select(|s| s.owner.tenant == self.victim.tenant).len(), 2);
    }
}

/// Tries a route with what is not the caller's. `None`: there is no case for it.
async fn attempt(world: &World, path: &str, method: &str) -> Option<()> {
    match (path, method) {
        ("/mcp", "POST") => post(world, "/mcp").await,
        ("/s/{server}/mcp", "POST") => post(world, "/s/lab/mcp").await,
        ("/mcp", "GET" | "DELETE") => session_method(world, "/mcp", method).await,
        ("/s/{server}/mcp", "GET" | "DELETE") => session_method(world, "/s/lab/mcp", method).await,
        ("/sse", "GET") => sse(world, "/sse").await,
        ("/s/{server}/sse", "GET") => sse(world, "/s/lab/sse").await,
        ("/messages", "POST") => messages(world, "/messages").await,
        ("/s/{server}/messages", "POST") => messages(world, "/s/lab/messages").await,
        ("/health" | "/ready", "GET") => says_nothing_of_tenants(world, path).await,
        ("/.well-known/oauth-protected-resource", "GET") => says_nothing_of_tenants(world, path).await,
        ("/.well-known/oauth-protected-resource/{*path}", "GET") => {
            says_nothing_of_tenants(world, "/.well-known/oauth-protected-resource/mcp").await;
        }
        ("/webhooks/stripe", "POST") => credentials_are_no_signature(world, path).await,
        ("/billing/return", "GET") => says_nothing_of_tenants(world, path).await,
        (
            "/billing" | "/billing/checkout" | "/billing/top_ups" | "/billing/portal" | "/billing/plan"
            | "/billing/invoice",
            _,
        ) => not_every_key_buys(world, path, method).await,
        ("/admin/v1/tenants" | "/admin/v1/audit" | "/admin/v1/plans", "GET" | "POST") => {
            tenants_are_no_operators(world, path, method).await;
        }
        ("/admin/v1/plans/{plan}" | "/admin/v1/plans/{plan}/prices", _) => {
            tenants_are_no_operators(world, &own(world, path), method).await
        }
        (
            "/admin/v1/tenants/{tenant}"
            | "/admin/v1/tenants/{tenant}/plan"
            | "/admin/v1/tenants/{tenant}/suspend"
            | "/admin/v1/tenants/{tenant}/resume"
            | "/admin/v1/tenants/{tenant}/sessions"
            | "/admin/v1/tenants/{tenant}/usage"
            | "/admin/v1/tenants/{tenant}/calls"
            | "/admin/v1/tenants/{tenant}/keys"
            | "/admin/v1/tenants/{tenant}/account"
            | "/admin/v1/tenants/{tenant}/periods"
            | "/admin/v1/tenants/{tenant}/events"
            | "/admin/v1/tenants/{tenant}/grants",
            _,
        ) => tenants_are_no_operators(world, &own(world, path), method).await,
        ("/admin/v1/tenants/{tenant}/grants/{grant}", "DELETE") => foreign_grant(world, path).await,
        ("/admin/v1/tenants/{tenant}/keys/{key}", "GET" | "DELETE") => {
            tenants_are_no_operators(world, &own(world, path), method).await;
            foreign_key(world, method, "").await;
        }
        ("/admin/v1/tenants/{tenant}/keys/{key}/limits", "PUT") => {
            tenants_are_no_operators(world, &own(world, path), method).await;
            foreign_key(world, method, "/limits").await;
        }
        _ => return None,
    }
    Some(())
}

/// The path with the thief's own ids: even those are not its to manage.
fn own(world: &World, path: &str) -> String {
    let path = path.replace("{tenant}", &world.thief.tenant.to_string());
    path.replace("{key}", &world.thief.id.to_string()).replace("{plan}", "default")
}

/// Nobody's key takes the place of a signature, and whatever is refused is not stored.
async fn credentials_are_no_signature(world: &World, path: &str) {
    let event = json!({ "id": "evt_1", "object": "event", "type": "customer.deleted", "livemode": false, "created": 1 });
    for secret in [&world.thief.secret, &world.operator.secret] {
        let draft = world.request("POST", path).bearer(secret).body(event.clone());
        let reply = draft.send().await;
        assert_eq!((reply.status, &reply.json()["code"]), (400, &json!("bad_signature")));
    }
    let stored = rows(world.gateway.database_url(), "select count(*) from stripe_events").await;
    assert_eq!(stored, [["0"]]);
}

/// Only a key that may buy does, and only in the header; whose tenant it is for, nothing else in the request says.
async fn not_every_key_buys(world: &World, path: &str, method: &str) {
    let draft = world.request(method, path);
    let buyer = world.gateway.scoped(world.thief.tenant, json!({ "billing": true })).await;
    let in_query = draft.clone().query(&format!("token={}", world.thief_token.secret));
    for (draft, status, code) in [
        (draft.clone(), 401, "unauthorized"),
        (draft.clone().bearer("wk_nonsense"), 401, "unauthorized"),
        (draft.clone().bearer(&world.operator.secret), 401, "unauthorized"),
        (draft.clone().query(&format!("token={}", buyer.secret)), 401, "unauthorized"),
        (in_query, 403, "forbidden"),
        (draft.clone().bearer(&world.thief.secret), 403, "forbidden"),
    ] {
        let reply = draft.send().await;
        assert_eq!((reply.status, &reply.json()["code"]), (status, &json!(code)), "{method} {path}");
    }
}

async fn tenants_are_no_operators(world: &World, path: &str, method: &str) {
    let draft = world.request(method, path);
    for draft in [
        draft.clone(),
        draft.clone().bearer(&world.thief.secret),
        draft.clone().bearer(&world.thief_token.secret),
        draft.clone().query(&format!("token={}", world.thief_token.secret)),
        draft.clone().query(&format!("token={}", world.operator.secret)),
        draft.header("content-type", "application/json").body(json!({ "name": "x" })),
    ] {
        let reply = draft.send().await;
        assert_eq!((reply.status, &reply.json()["code"]), (401, &json!("unauthorized")), "{method} {path}");
    }
}

/// A key under the path of a tenant that it is not of is not found, whoever asks.
async fn foreign_key(world: &World, method: &str, below: &str) {
    let path = format!("/admin/v1/tenants/{}/keys/{}{below}", world.thief.tenant, world.victim.id);
    let draft = world.operator.request(method.parse().expect("a method"), &path);
    let reply = draft.header("content-type", "application/json").body(json!({})).send().await;
    assert_eq!((reply.status, &reply.json()["code"]), (404, &json!("not_found")));
    world.session_lives().await;
}

/// A grant under the path of a tenant that it is not of is not found, and stays as it is.
async fn foreign_grant(world: &World, path: &str) {
    let grants = |key: &Key| format!("/admin/v1/tenants/{}/grants", key.tenant);
    let body = json!({ "kind": "prepaid", "credits": "5" });
    for key in [&world.victim, &world.thief] {
        let made = world.operator.post(&grants(key), body.clone()).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    let listed = world.operator.get(&grants(&world.victim)).await;
    let id = listed.json()["data"][0]["id"].as_str().expect("an id").to_owned();
    tenants_are_no_operators(world, &own(world, path).replace("{grant}", &id), "DELETE").await;
    let reply = world.operator.delete(&format!("{}/{id}", grants(&world.thief))).await;
    assert_eq!((reply.status, &reply.json()["detail"]), (404, &json!("grant not found")));
    assert_eq!(world.operator.get(&grants(&world.victim)).await.json(), listed.json());
}

async fn post(world: &World, path: &str) {
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let draft = Draft::post(&world.gateway.http, format!("{}{path}", world.gateway.url), ping.clone());
    world.strangers_are_refused(&draft).await;

    // Sessions.
    let stolen = draft.clone().bearer(&world.thief.secret).header("mcp-session-id", &world.session.id);
    assert_eq!(stolen.clone().send().await.error(), (404, -31004));
    let cancel =
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    assert_eq!(stolen.body(cancel).send().await.error(), (404, -31004));
    let sse_id = draft.bearer(&world.thief.secret).header("mcp-session-id", world.old.id());
    assert_eq!(sse_id.send().await.error(), (404, -31004));
    world.session_lives().await;

    // Cursors.
    let victim = Modern::new(&world.gateway, &world.victim).at(path);
    let thief = Modern::new(&world.gateway, &world.thief).at(path);
    for method in ["tools/list", "resources/list", "resources/templates/list", "prompts/list"] {
        let page = victim.send(method, json!({})).await;
        let Some(cursor) = page.result().get("nextCursor") else { continue };
        let foreign = thief.send(method, json!({ "cursor": cursor })).await;
        assert_eq!(foreign.error(), (200, -32602), "{method}");
        assert_eq!(victim.send(method, json!({ "cursor": cursor })).await.status, 200, "{method}");
    }

    // The state of a multi-round call.
    let asked = victim.call("asks", json!({ "topic": "tea" })).await;
    let state = asked.result()["requestState"].clone();
    let foreign = thief.draft_call("asks", &json!({ "topic": "tea" })).set("/params/requestState", state);
    assert_eq!(foreign.send().await.error(), (200, -32602));

    // Records of calls.
    if path == "/mcp" {
        let echoed = victim.call("echo", json!({ "text": "x" })).await;
        let call = echoed.result()["_meta"]["dev.weir/receipt"]["call"].as_str().expect("a call").to_owned();
        let today = weir::clock::Clock::system().now().to_string();
        let today = today.split('T').next().expect("a date");
        for uri in [format!("logs://calls/{today}"), format!("logs://calls/{today}/after/{call}")] {
            let read = thief.send("resources/read", json!({ "uri": uri })).await;
            let text = read.result()["contents"][0]["text"].as_str().expect("text");
            assert!(!text.contains(&call) && text.contains("\"calls\": []"), "{uri}: {text}");
        }
    }
}

async fn session_method(world: &World, path: &str, method: &str) {
    let draft = world.request(method, path).header("accept", "text/event-stream");
    world.strangers_are_refused(&draft).await;
    for id in [world.session.id.as_str(), world.old.id()] {
        let reply = draft.clone().bearer(&world.thief.secret).header("mcp-session-id", id).send().await;
        assert_eq!(reply.error(), (404, -31004));
    }
    let neighbour = world.gateway.key(world.victim.tenant).await;
    let reply = draft.bearer(&neighbour.secret).header("mcp-session-id", &world.session.id).send().await;
    assert_eq!(reply.error(), (404, -31004), "another key of the same tenant is somebody else, too");
    world.session_lives().await;
}

async fn sse(world: &World, path: &str) {
    let draft = world.request("GET", path).header("accept", "text/event-stream");
    world.strangers_are_refused(&draft).await;
    // What concerns one tenant is heard by that tenant only.
    let mut stream = Old::connect(&world.gateway, draft.bearer(&world.thief.secret)).await;
    let victim = Modern::new(&world.gateway, &world.victim);
    victim.call("notify", json!({ "what": "tools", "mine": true })).await.result();
    victim.call("notify", json!({ "what": "prompts" })).await.result();
    let heard = stream.events.message().await;
    assert_eq!(heard["method"], "notifications/prompts/list_changed");
}

async fn messages(world: &World, path: &str) {
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let post = |id: &str| {
        let url = format!("{}{path}?sessionId={id}", world.gateway.url);
        Draft::post(&world.gateway.http, url, ping.clone())
    };
    for (what, draft) in [
        ("a guess", post("AAAA")),
        ("the id of the other transport", post(&world.session.id)),
        ("that id with its owner's key", post(&world.session.id).bearer(&world.victim.secret)),
        ("the right id with a foreign key", post(world.old.id()).bearer(&world.thief.secret)),
        ("the right id with nonsense", post(world.old.id()).bearer("wk_nonsense")),
    ] {
        assert_eq!(draft.send().await.error(), (404, -31004), "{what}");
    }
    if path == "/messages" {
        let own = post(world.old.id()).bearer(&world.victim.secret).body(json!({
            "jsonrpc": "2.0", "method": "notifications/initialized"
        }));
        assert_eq!(own.send().await.status, 202);
    }
    world.session_lives().await;
}

async fn says_nothing_of_tenants(world: &World, path: &str) {
    let draft = world.request("GET", path);
    let plain = draft.clone().send().await;
    for reply in [plain, draft.bearer(&world.victim.secret).send().await] {
        let text = &reply.text;
        assert!(
            !text.contains("tenant") && !text.contains("tn_") && !text.contains("key_"),
            "{path}: {text}"
        );
    }
}

fn all() -> Vec<Route> {
    [public_routes(), open_routes(), webhook_routes(), billing_routes(), admin_routes()]
        .into_iter()
        .flatten()
        .collect()
}

#[tokio::test]
async fn every_route_keeps_tenants_apart() {
    let world = World::new().await;
    for (path, methods, _) in all() {
        for method in methods.split(' ') {
            let tried = attempt(&world, path, method).await;
            assert!(tried.is_some(), "{method} {path} has no isolation case: add one to `attempt`");
        }
    }
}

#[tokio::test]
async fn no_route_takes_a_method_that_it_does_not_list() {
    let world = World::new().await;
    for (path, methods, _) in all() {
        let concrete = own(&world, path).replace("{server}", "lab").replace("{*path}", "mcp");
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            if methods.split(' ').any(|known| known == method.as_str()) {
                continue;
            }
            let draft = world.request(method.as_str(), &concrete).bearer(&world.thief.secret);
            let reply = draft.send().await;
            assert_eq!(reply.status, 405, "{method} {concrete}");
            let allowed = reply.header("allow").unwrap_or("").replace(',', " ");
            for listed in methods.split(' ') {
                assert!(
                    allowed.split_whitespace().any(|one| one == listed),
                    "{method} {concrete}: {allowed:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn two_tenants_with_the_same_names_share_nothing() {
    let gateway = Gateway::start().await;
    let (a, b) = (gateway.caller().await, gateway.caller().await);
    let (first, second) =
        (Legacy::open(&gateway, &a, "2025-11-25").await, Legacy::open(&gateway, &b, "2025-11-25").await);
    let (mut heard, mut other) = (first.stream().await, second.stream().await);
    for session in [&first, &second] {
        session.send("resources/subscribe", json!({ "uri": NOTE })).await.result();
    }
    first.call("notify", json!({ "what": NOTE, "mine": true })).await.result();
    second.call("notify", json!({ "what": "tools", "mine": true })).await.result();
    let method = |message: Value| message["method"].as_str().expect("a method").to_owned();
    assert_eq!(method(heard.message().await), "notifications/resources/updated");
    assert_eq!(method(other.message().await), "notifications/tools/list_changed");
}
