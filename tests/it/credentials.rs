//! Credentials: where they may stand, what they open, how they are refused, and how they end.

use std::time::{Duration, Instant};

use http::HeaderMap;
use serde_json::{Value, json};
use weir::api_keys;
use weir::audit::Actor;
use weir::clock::{Clock, Timestamp};
use weir::credentials::token::{Kind, Secret};
use weir::tenants;

use crate::support::{Draft, Gateway, Key, Legacy, Modern, eventually, within};

fn ping(gateway: &Gateway) -> Draft {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    Draft::post(&gateway.http, format!("{}/mcp", gateway.url), body)
}

async fn status(gateway: &Gateway, key: &Key) -> u16 {
    ping(gateway).bearer(&key.secret).send().await.status
}

#[tokio::test]
async fn a_credential_stands_in_one_place_that_fits_its_kind() {
    let gateway = Gateway::start().await;
    let tenant = gateway.tenant("a").await;
    let (key, token) = (gateway.key(tenant).await.secret, gateway.url_token(tenant).await.secret);
    let operator = gateway.operator().await.secret;
    let ping = ping(&gateway);
    let query = |text: &str| ping.clone().query(&format!("token={text}"));
    let encoded: String = token.bytes().map(|b| format!("%{b:02X}")).collect();
    for (what, draft, want) in [
        ("key in the header", ping.clone().bearer(&key), 200),
        ("token in the header", ping.clone().bearer(&token), 200),
        ("token in the query", query(&token), 200),
        ("encoded token in the query", query(&encoded), 200),
        ("token among other parameters", ping.clone().query(&format!("a=b&token={token}&c")), 200),
        ("lower-case scheme", ping.clone().header("authorization", &format!("bearer {key}")), 200),
        ("many blanks", ping.clone().header("authorization", &format!("Bearer   {key} ")), 200),
        ("key in the query", query(&key), 401),
        ("operator key in the header", ping.clone().bearer(&operator), 401),
        ("operator key in the query", query(&operator), 401),
        ("both places", query(&token).bearer(&token), 401),
        ("both places, bad header", query(&token).bearer("wk_x"), 401),
        ("two headers", ping.clone().bearer(&key).also("authorization", &format!("Bearer {key}")), 401),
        ("two query tokens", ping.clone().query(&format!("token={token}&token={token}")), 401),
        ("another scheme", ping.clone().header("authorization", &format!("Basic {key}")), 401),
        ("no scheme", ping.clone().header("authorization", &key), 401),
        ("another parameter", ping.clone().query(&format!("Token={token}")), 401),
        ("cookie", ping.clone().header("cookie", &format!("token={token}")), 401),
        ("nothing", ping.clone(), 401),
    ] {
        assert_eq!(draft.send().await.status, want, "{what}");
    }
}

fn comparable(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| value.to_str().expect("text").to_owned();
    let all = headers.iter().map(|(name, value)| (name.to_string(), text(value)));
    let mut kept: Vec<_> = all.filter(|(name, _)| name != "x-request-id" && name != "date").collect();
    kept.sort();
    kept
}

#[tokio::test]
async fn all_bad_credentials_look_the_same_and_take_their_time() {
    let floor = Duration::from_millis(40);
    let clock = Clock::manual(Timestamp::from_micros(1_790_000_000_000_000));
    let gateway =
        Gateway::build().clock(&clock).set("auth.failure_floor_ms", floor.as_millis()).start().await;
    let tenant = gateway.tenant("a").await;
    let expired = gateway.ending(tenant, clock.now().plus(Duration::from_secs(1))).await;
    clock.advance(Duration::from_secs(2));
    let revoked = gateway.key(tenant).await;
    api_keys::revoke(&gateway.app.db, &clock, Actor::Cli, tenant, revoked.id).await.expect("revoked");
    let orphan = gateway.caller().await;
    tenants::delete(&gateway.app.db, &clock, Actor::Cli, orphan.tenant).await.expect("deleted");
    let unknown = Secret::generate(Kind::ApiKey).expect("a secret");
    let good = gateway.key(tenant).await.secret;
    let typo = format!("{}{}", &good[..good.len() - 1], if good.ends_with('0') { '1' } else { '0' });
    let mut seen = Vec::new();
    for (what, draft) in [
        ("nothing", ping(&gateway)),
        ("nonsense", ping(&gateway).bearer("nonsense")),
        ("a typo", ping(&gateway).bearer(&typo)),
        ("unknown", ping(&gateway).bearer(unknown.expose())),
        ("expired", ping(&gateway).bearer(&expired.secret)),
        ("revoked", ping(&gateway).bearer(&revoked.secret)),
        ("of a deleted tenant", ping(&gateway).bearer(&orphan.secret)),
        ("out of place", ping(&gateway).query(&format!("token={good}"))),
        ("a JWT that nobody issued", ping(&gateway).bearer("eyJhbGciOiJub25lIn0.e30.")),
        ("an operator's", ping(&gateway).bearer(&gateway.operator().await.secret)),
    ] {
        let started = Instant::now();
        let reply = draft.send().await;
        assert!(started.elapsed() >= floor, "{what}: after {:?}", started.elapsed());
        seen.push((what, reply.status, reply.text, comparable(&reply.headers)));
    }
    let (_, status, body, headers) = seen[0].clone();
    assert_eq!(status, 401);
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((&body["error"]["code"], &body["id"]), (&json!(-31002), &Value::Null));
    assert!(headers.contains(&("www-authenticate".to_owned(), "Bearer".to_owned())), "{headers:?}");
    for one in &seen {
        assert_eq!((one.1, &one.2, &one.3), (seen[0].1, &seen[0].2, &seen[0].3), "{}", one.0);
    }
}

#[tokio::test]
async fn a_suspended_tenant_is_told_so_until_it_is_resumed() {
    let gateway = Gateway::start().await;
    let key = gateway.caller().await;
    assert_eq!(status(&gateway, &key).await, 200);
    let operator = gateway.operator().await;
    let path = |what: &str| format!("/admin/v1/tenants/{}/{what}", key.tenant);
    operator.request(http::Method::POST, &path("suspend")).send().await;
    let reply = ping(&gateway).bearer(&key.secret).send().await;
    assert_eq!(reply.error(), (403, -31003));
    assert!(reply.message().contains("suspended"));
    operator.request(http::Method::POST, &path("resume")).send().await;
    assert_eq!(status(&gateway, &key).await, 200);
}

/// The deployment's own polling interval, which the promise of one second rests on.
async fn two_replicas() -> (Gateway, Gateway) {
    let poll = "auth.invalidation_poll_ms";
    let first = Gateway::build().set(poll, 400).start().await;
    let second = first.replica().set(poll, 400).start().await;
    (first, second)
}

#[tokio::test]
async fn a_revocation_is_felt_in_another_process_within_a_second() {
    let (here, there) = two_replicas().await;
    let key = here.caller().await;
    assert_eq!(status(&there, &key).await, 200);
    let (mut listener, _) = Modern::new(&there, &key).listen(json!({})).await;
    let mut stream = Legacy::open(&there, &key, "2025-11-25").await.stream().await;
    let operator = here.operator().await;
    operator.delete(&format!("/admin/v1/tenants/{}/keys/{}", key.tenant, key.id)).await.json();
    let revoked = Instant::now();
    assert_eq!(status(&here, &key).await, 401, "at once where it was revoked");
    within("the revocation", async {
        while status(&there, &key).await != 401 {
            assert!(revoked.elapsed() < Duration::from_secs(1), "still good after {:?}", revoked.elapsed());
        }
    })
    .await;
    assert!(listener.message().await["result"].is_object());
    assert_eq!(stream.next().await, None);
    assert!(revoked.elapsed() < Duration::from_secs(1), "after {:?}", revoked.elapsed());
}

#[tokio::test]
async fn a_suspension_is_felt_in_another_process_within_a_second() {
    let (here, there) = two_replicas().await;
    let key = here.caller().await;
    assert_eq!(status(&there, &key).await, 200);
    let operator = here.operator().await;
    operator.request(http::Method::POST, &format!("/admin/v1/tenants/{}/suspend", key.tenant)).send().await;
    let suspended = Instant::now();
    eventually("the suspension", async || status(&there, &key).await == 403).await;
    assert!(suspended.elapsed() < Duration::from_secs(1), "after {:?}", suspended.elapsed());
}

#[tokio::test]
async fn a_key_ends_when_it_was_said_to() {
    let clock = Clock::manual(Timestamp::from_micros(1_790_000_000_000_000));
    let gateway = Gateway::build().clock(&clock).start().await;
    let tenant = gateway.tenant("a").await;
    let key = gateway.ending(tenant, clock.now().plus(Duration::from_secs(60))).await;
    assert_eq!(status(&gateway, &key).await, 200);
    clock.advance(Duration::from_micros(59_999_999));
    assert_eq!(status(&gateway, &key).await, 200);
    clock.advance(Duration::from_micros(1));
    assert_eq!(status(&gateway, &key).await, 401);
}

#[tokio::test]
async fn a_stream_ends_when_its_key_does() {
    let gateway = Gateway::start().await;
    let tenant = gateway.tenant("a").await;
    let key = gateway.ending(tenant, Clock::system().now().plus(Duration::from_secs(1))).await;
    let (mut events, _) = Modern::new(&gateway, &key).listen(json!({})).await;
    assert!(events.message().await["result"].is_object());
    assert_eq!(events.next().await, None);
    assert_eq!(status(&gateway, &key).await, 401);
}

fn tools(list: &Value) -> Vec<&str> {
    let all = list["tools"].as_array().expect("a list").iter();
    all.map(|tool| tool["name"].as_str().expect("a name")).collect()
}

#[tokio::test]
async fn scopes_hide_tools_by_server_name_and_risk() {
    let gateway = Gateway::start().await;
    let tenant = gateway.tenant("a").await;
    for (scopes, want) in [
        (json!({ "servers": ["core"] }), vec!["dns_resolve", "get_status", "get_usage"]),
        (json!({ "tools": ["e*", "dns_*"] }), vec!["dns_resolve", "echo"]),
        (
            json!({ "servers": ["lab"], "tools": ["*s"], "max_risk": "write" }),
            vec!["asks", "fails", "hangs", "panics", "refuses", "talks", "writes"],
        ),
        (json!({ "tools": ["writes", "destroys"], "max_risk": "read_only" }), vec![]),
        (json!({ "tools": ["writes", "destroys"], "max_risk": "destructive" }), vec!["destroys", "writes"]),
        (json!({ "servers": ["nowhere"] }), vec![]),
    ] {
        let key = gateway.scoped(tenant, scopes.clone()).await;
        let client = Modern::new(&gateway, &key);
        let list = client.send("tools/list", json!({})).await;
        assert_eq!(tools(list.result()), want, "{scopes}");
        let legacy = Legacy::open(&gateway, &key, "2025-11-25").await.send("tools/list", json!({})).await;
        assert_eq!(tools(legacy.result()), want, "{scopes}");
    }
}

#[tokio::test]
async fn a_tool_out_of_scope_is_like_one_that_does_not_exist() {
    let gateway = Gateway::start().await;
    let tenant = gateway.tenant("a").await;
    let scopes =
        json!({ "servers": ["lab"], "tools": ["echo", "destroys", "dns_*"], "max_risk": "read_only" });
    let client = Modern::new(&gateway, &gateway.scoped(tenant, scopes).await);
    assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    let unknown = client.call("no_such_tool", json!({})).await;
    for denied in ["destroys", "dns_resolve", "routed"] {
        let reply = client.call(denied, json!({})).await;
        assert_eq!(reply.text.replace(denied, "no_such_tool"), unknown.text, "{denied}");
        assert_eq!(reply.status, unknown.status);
    }
    assert_eq!(gateway.metric(r#"weir_tool_calls_total{outcome="ok",server="lab",tool="destroys"}"#), 0.0);
}

#[tokio::test]
async fn a_server_out_of_scope_is_like_one_that_does_not_exist() {
    let gateway = Gateway::start().await;
    let tenant = gateway.tenant("a").await;
    let client = Modern::new(&gateway, &gateway.scoped(tenant, json!({ "servers": ["lab"] })).await);
    let nowhere = client.clone().at("/s/nowhere/mcp").send("tools/list", json!({})).await;
    let core = client.clone().at("/s/core/mcp").send("tools/list", json!({})).await;
    assert_eq!((core.status, core.text), (nowhere.status, nowhere.text));
    assert_eq!(nowhere.status, 404);
    for (method, field) in [
        ("resources/list", "resources"),
        ("resources/templates/list", "resourceTemplates"),
        ("prompts/list", "prompts"),
    ] {
        let list = client.send(method, json!({})).await;
        let text = list.result()[field].to_string();
        assert!(
            !text.contains("config://") && !text.contains("logs://") && !text.contains("diagnose"),
            "{text}"
        );
    }
    let unknown = client.send("resources/read", json!({ "uri": "config://account/other" })).await;
    let hidden = client.send("resources/read", json!({ "uri": "config://account/settings" })).await;
    assert_eq!(hidden.error(), unknown.error());
    assert_eq!(client.send("prompts/get", json!({ "name": "diagnose_domain" })).await.error(), (200, -32602));
    let reference = json!({ "type": "ref/resource", "uri": "logs://calls/{date}" });
    let completing = json!({ "ref": reference, "argument": { "name": "date", "value": "" } });
    assert_eq!(client.send("completion/complete", completing).await.error(), (200, -32602));
    let wanted = json!({ "resourceSubscriptions": ["config://account/settings"] });
    assert_eq!(client.listen(wanted).await.1["params"]["notifications"], json!({}));
    let status = Modern::new(&gateway, &gateway.scoped(tenant, json!({ "tools": ["get_status"] })).await);
    let seen = status.call("get_status", json!({})).await;
    let servers = &seen.result()["structuredContent"]["servers"];
    assert_eq!(servers[0]["tools"], json!(["get_status"]), "the status shows no more than the lists");
    assert_eq!(servers[1]["tools"], json!([]));
}

#[tokio::test]
async fn a_name_on_two_servers_is_found_on_the_one_that_the_key_may_use() {
    let twin = weir::providers::Toolkit::new("twin")
        .tool(
            weir::providers::ToolSpec::new("echo").read_only(),
            |_call, _arguments: weir::providers::NoArguments| async move {
                Ok(weir::mcp::content::ToolResult::text("from the twin"))
            },
        )
        .expect("a tool")
        .build();
    let gateway = Gateway::build().provider(twin).start().await;
    let key = gateway.caller().await;
    let scoped = gateway.scoped(key.tenant, json!({ "servers": ["twin"] })).await;
    let both = Modern::new(&gateway, &key);
    assert_eq!(both.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    let one = Modern::new(&gateway, &scoped);
    assert_eq!(one.call("echo", json!({})).await.tool_text(), "from the twin");
    for (client, want) in [(&both, 1), (&one, 1)] {
        let list = client.send("tools/list", json!({})).await;
        let tools = list.result()["tools"].as_array().expect("a list");
        assert_eq!(tools.iter().filter(|tool| tool["name"] == "echo").count(), want);
    }
    assert_eq!(both.at("/s/twin/mcp").call("echo", json!({})).await.tool_text(), "from the twin");
}
