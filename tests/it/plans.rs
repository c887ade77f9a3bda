//! Plans, and limits of single keys: what an operator says holds for running tenants, everywhere, and at once.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use weir::clock::{Clock, Timestamp};

use crate::support::gateway::Operator;
use crate::support::{Gateway, Key, Modern, Reply, eventually};

async fn put(operator: &Operator, path: &str, body: Value) -> Reply {
    operator.request(Method::PUT, path).header("content-type", "application/json").body(body).send().await
}

async fn plan(operator: &Operator, name: &str, limits: Value) {
    let reply = put(operator, &format!("/admin/v1/plans/{name}"), json!({ "limits": limits })).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}

async fn on_plan(operator: &Operator, key: &Key, name: &str) {
    let path = format!("/admin/v1/tenants/{}/plan", key.tenant);
    let reply = put(operator, &path, json!({ "plan": name })).await;
    assert_eq!((reply.status, &reply.json()["plan"]), (200, &json!(name)), "{}", reply.text);
}

/// The size of the bucket that a reply speaks of.
async fn size(client: &Modern) -> String {
    let reply = client.send("tools/list", json!({})).await;
    reply.header("ratelimit-limit").unwrap_or("none").to_owned()
}

#[tokio::test]
async fn a_plan_is_made_shown_changed_and_deleted() {
    let gateway = Gateway::start().await;
    let operator = gateway.operator().await;
    let limits = json!({
        "tenant": { "per_second": 20, "burst": 40 }, "streams": 5,
        "tools": [{ "name": "dns_*", "per_second": 1, "burst": 2 }],
    });
    plan(&operator, "gold", limits.clone()).await;
    plan(&operator, "bronze", json!({})).await;
    let shown = operator.get("/admin/v1/plans/gold").await;
    assert_eq!((&shown.json()["name"], &shown.json()["limits"]), (&json!("gold"), &limits));
    let listed = operator.get("/admin/v1/plans?limit=1").await;
    assert_eq!(listed.json()["data"][0]["name"], "bronze");
    let cursor = listed.json()["next_cursor"].as_str().expect("more").to_owned();
    let listed = operator.get(&format!("/admin/v1/plans?cursor={cursor}")).await;
    let listed_one = &listed.json()["data"][0];
    assert_eq!((&listed_one["name"], &listed.json()["next_cursor"]), (&json!("gold"), &Value::Null));
    assert_eq!((&listed_one["limits"], &shown.json()["prices"]), (&limits, &Value::Null));

    let key = gateway.caller().await;
    on_plan(&operator, &key, "gold").await;
    assert_eq!(operator.delete("/admin/v1/plans/gold").await.status, 409);
    on_plan(&operator, &key, "default").await;
    assert_eq!(operator.delete("/admin/v1/plans/gold").await.status, 204);
    for reply in [operator.get("/admin/v1/plans/gold").await, operator.delete("/admin/v1/plans/gold").await] {
        assert_eq!((reply.status, &reply.json()["detail"]), (404, &json!("plan not found")));
    }
    let tenant = format!("/admin/v1/tenants/{}", key.tenant);
    let keys = format!("{tenant}/keys/{}/limits", key.id);
    for (path, body, status, part) in [
        ("/admin/v1/plans/Gold", json!({ "limits": {} }), 404, ""),
        ("/admin/v1/plans/gold", json!({}), 422, "missing field `limits`"),
        ("/admin/v1/plans/gold", json!({ "limits": { "tenant": { "per_second": 1 } } }), 422, "burst"),
        (
            "/admin/v1/plans/gold",
            json!({ "limits": { "streams": 0 } }),
            422,
            "limits.streams: expected at least 1",
        ),
        ("/admin/v1/plans/gold", json!({ "limits": { "price": 1 } }), 422, "unknown field"),
        (&format!("{tenant}/plan"), json!({ "plan": "gold" }), 422, "there is none named gold"),
        (&format!("{tenant}/plan"), json!({ "plan": "" }), 422, "plan: expected 1 to 64"),
        (&keys, json!({ "burst": 0 }), 422, "limits.burst: expected 1 to 1000000, found 0"),
        (&keys, json!({ "tenant": {} }), 422, "unknown field"),
    ] {
        let reply = put(&operator, path, body).await;
        let detail = reply.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(reply.status == status && detail.contains(part), "{path}: {}", reply.text);
    }
    let trail = operator.get("/admin/v1/audit?limit=200").await;
    let trail = trail.json()["data"].as_array().expect("a list").clone();
    let actions: Vec<_> = trail.iter().filter(|row| row["subject_kind"] == "plan").collect();
    let actions: Vec<_> = actions.iter().map(|row| (&row["action"], &row["subject_id"])).collect();
    let expected = [("plan.create", "gold"), ("plan.create", "bronze"), ("plan.delete", "gold")];
    let expected = expected.map(|(action, name)| (json!(action), json!(name)));
    assert_eq!(actions, expected.each_ref().map(|(action, name)| (action, name)));
    assert_eq!(trail.iter().filter(|row| row["action"] == "tenant.plan").count(), 2);
}

#[tokio::test]
async fn servers_and_tools_have_rates_of_their_own() {
    let clock = Clock::manual(Timestamp::from_micros(1_790_000_000_000_000));
    // The clock of Redis is nobody's to move.
    let gateway = Gateway::build().alone().set("redis.url", "").clock(&clock).start().await;
    let operator = gateway.operator().await;
    let key = gateway.caller().await;
    let rule = |name: &str, burst: u32| json!([{ "name": name, "per_second": 1, "burst": burst }]);
    plan(&operator, "rules", json!({ "tools": rule("ech*", 2), "servers": rule("lab", 4) })).await;
    on_plan(&operator, &key, "rules").await;
    let (client, neighbour) =
        (Modern::new(&gateway, &key), Modern::new(&gateway, &gateway.key(key.tenant).await));
    let limit = |reply: &Reply| reply.json()["error"]["data"]["limit"].clone();
    let echo = json!({ "text": "x" });
    for left in ["1", "0"] {
        let reply = client.call("echo", echo.clone()).await;
        assert_eq!((reply.tool_text(), reply.header("ratelimit-remaining")), ("x", Some(left)));
    }
    let refused = neighbour.call("echo", echo.clone()).await;
    assert_eq!((refused.error(), limit(&refused)), ((200, -31001), json!("tool")));
    assert_eq!(refused.header("ratelimit-limit"), Some("2"));
    let batch = (0..2).map(|_| client.call("writes", json!({})));
    for reply in futures_util::future::join_all(batch).await {
        assert_eq!(reply.tool_text(), "written", "another tool, and what was refused counted nowhere");
    }
    let refused = client.call("writes", json!({})).await;
    assert_eq!((refused.error(), limit(&refused)), ((200, -31001), json!("server")));
    assert_eq!(client.send("tools/list", json!({})).await.status, 200, "no call");
    assert_eq!(client.call("get_status", json!({})).await.error().1, 0, "another server");
    let unknown = client.call("echo_2", json!({})).await;
    assert_eq!(unknown.error(), (200, -32602), "what is not there has no rate, and looks like it");
    let stranger = Modern::new(&gateway, &gateway.caller().await);
    assert_eq!(stranger.call("echo", echo.clone()).await.tool_text(), "x");
    clock.advance(Duration::from_secs(1));
    assert_eq!(client.call("echo", echo).await.tool_text(), "x");
}

#[tokio::test]
async fn a_change_is_felt_everywhere_within_a_second() {
    let first = Gateway::build().alone().start().await;
    let second = first.replica().start().await;
    let operator = first.operator().await;
    let key = first.caller().await;
    plan(&operator, "p", json!({ "key": { "per_second": 1000, "burst": 777 } })).await;
    on_plan(&operator, &key, "p").await;
    let clients = [Modern::new(&first, &key), Modern::new(&second, &key)];
    for client in &clients {
        assert_eq!(size(client).await, "200", "the tenant's is the emptier one");
    }
    plan(&operator, "p", json!({ "key": { "per_second": 1000, "burst": 7 } })).await;
    let since = Instant::now();
    assert_eq!(size(&clients[0]).await, "7", "at once where it was changed");
    eventually("the other replica", async || size(&clients[1]).await == "7").await;
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    let path = format!("/admin/v1/tenants/{}/keys/{}/limits", key.tenant, key.id);
    let reply = put(&operator, &path, json!({ "burst": 5 })).await;
    assert_eq!((reply.status, &reply.json()["limits"]), (200, &json!({ "burst": 5 })), "{}", reply.text);
    assert_eq!(size(&clients[0]).await, "5");
    eventually("the other replica", async || size(&clients[1]).await == "5").await;
    on_plan(&operator, &key, "default").await;
    assert_eq!(size(&clients[0]).await, "5", "the key's own limit stays");
    let status = clients[0].call("get_status", json!({})).await;
    let limits = &status.result()["structuredContent"]["limits"];
    assert_eq!((&limits["key_burst"], &limits["key_requests_per_second"]), (&json!(5), &json!(50)));
}

#[tokio::test]
async fn places_of_a_plan_are_counted_and_a_key_may_be_made_with_limits() {
    let gateway = Gateway::start().await;
    let operator = gateway.operator().await;
    let key = gateway.caller().await;
    plan(&operator, "small", json!({ "streams": 1, "sessions": 1 })).await;
    on_plan(&operator, &key, "small").await;
    let client = Modern::new(&gateway, &key);
    eventually("every replica to know", async || {
        let status = client.call("get_status", json!({})).await;
        status.result()["structuredContent"]["limits"]["streams_at_once"] == 1
    })
    .await;
    let (held, _) = client.listen(json!({})).await;
    let refused = client.send("subscriptions/listen", json!({ "notifications": {} })).await;
    assert_eq!(refused.json()["error"]["data"]["limit"], "streams", "{}", refused.text);
    drop(held);
    let body = json!({ "name": "ci", "limits": { "per_second": 3, "burst": 6 } });
    let made = operator.post(&format!("/admin/v1/tenants/{}/keys", key.tenant), body).await;
    assert_eq!((made.status, &made.json()["limits"]), (201, &json!({ "per_second": 3, "burst": 6 })));
    let secret = made.json()["secret"].as_str().expect("a secret").to_owned();
    assert_eq!(size(&Modern::new(&gateway, &Key { secret, ..key })).await, "6");
}
