//! The admin API: tenants, keys, pages, and what it says when something is wrong.

use http::Method;
use serde_json::{Value, json};
use weir::id::{KeyId, TenantId};

use crate::support::gateway::Operator;
use crate::support::{Gateway, Key, Modern, Reply, eventually};

/// A problem (RFC 9457) of this status and code; returns its detail.
fn problem(reply: &Reply, status: u16, code: &str) -> String {
    let body = reply.json();
    assert_eq!((reply.status, &body["code"]), (status, &json!(code)), "{}", reply.text);
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    assert_eq!((&body["status"], &body["type"]), (&json!(status), &json!("about:blank")));
    assert!(body["title"].is_string() && reply.header("x-request-id").is_some());
    body["detail"].as_str().expect("a detail").to_owned()
}

async fn made(operator: &Operator, name: &str) -> Value {
    let reply = operator.post("/admin/v1/tenants", json!({ "name": name })).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    reply.json().clone()
}

#[tokio::test]
async fn a_tenant_is_made_shown_suspended_resumed_and_deleted() {
    let gateway = Gateway::start().await;
    let operator = gateway.operator().await;
    let tenant = made(&operator, "  Acme GmbH ").await;
    assert_eq!(
        (&tenant["name"], &tenant["status"], &tenant["plan"]),
        (&json!("Acme GmbH"), &json!("active"), &json!("default"))
    );
    let id = tenant["id"].as_str().expect("an id");
    assert!(id.parse::<TenantId>().is_ok());
    let path = format!("/admin/v1/tenants/{id}");
    assert_eq!(operator.get(&path).await.json(), &tenant);
    assert_eq!(
        operator.get("/admin/v1/tenants").await.json(),
        &json!({ "data": [tenant], "next_cursor": null })
    );

    let post = |what: &str| operator.request(Method::POST, &format!("{path}/{what}")).send();
    for (what, status) in
        [("suspend", "suspended"), ("suspend", "suspended"), ("resume", "active"), ("resume", "active")]
    {
        let reply = post(what).await;
        assert_eq!((reply.status, &reply.json()["status"]), (200, &json!(status)), "{what}");
    }
    assert_eq!(operator.delete(&path).await.status, 204);
    for reply in
        [operator.delete(&path).await, operator.get(&path).await, post("suspend").await, post("resume").await]
    {
        assert_eq!(problem(&reply, 404, "not_found"), "tenant not found");
    }
    for below in ["keys", "sessions"] {
        problem(&operator.get(&format!("{path}/{below}")).await, 404, "not_found");
    }
    made(&operator, "Acme GmbH").await;
}

#[tokio::test]
async fn a_key_is_made_used_and_revoked() {
    let gateway = Gateway::start().await;
    let operator = gateway.operator().await;
    let tenant = made(&operator, "a").await["id"].as_str().expect("an id").to_owned();
    let path = format!("/admin/v1/tenants/{tenant}/keys");
    let wanted = json!({
        "name": "laptop", "kind": "url_token", "scopes": { "tools": ["echo"] }, "expires_at": "2099-01-01T00:00:00Z",
    });
    let reply = operator.post(&path, wanted).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let key = reply.json().clone();
    assert_eq!(
        (&key["kind"], &key["name"], &key["tenant_id"]),
        (&json!("url_token"), &json!("laptop"), &json!(tenant))
    );
    assert_eq!(key["scopes"], json!({ "servers": ["*"], "tools": ["echo"], "max_risk": "destructive" }));
    assert_eq!(key["expires_at"], "2099-01-01T00:00:00.000000Z");
    let (id, secret) = (key["id"].as_str().expect("an id"), key["secret"].as_str().expect("a secret"));
    assert!(secret.starts_with("wu_") && secret.ends_with(key["hint"].as_str().expect("a hint")));
    let credential = Key {
        id: id.parse().expect("an id"),
        tenant: tenant.parse().expect("an id"),
        secret: secret.to_owned(),
    };
    let client = Modern::new(&gateway, &credential);
    assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    assert_eq!(client.call("big", json!({ "bytes": 1 })).await.error(), (200, -32602));

    let one = format!("{path}/{id}");
    assert_eq!(operator.get(&one).await.json()["revoked_at"], Value::Null);
    let revoked = operator.delete(&one).await;
    assert!(revoked.json()["revoked_at"].is_string());
    let status = async || client.call("echo", json!({ "text": "x" })).await.status;
    eventually("every replica to hear of it", async || {
        for _ in gateway.apps() {
            if status().await != 401 {
                return false;
            }
        }
        true
    })
    .await;
    assert_eq!(
        operator.delete(&one).await.json()["revoked_at"],
        revoked.json()["revoked_at"],
        "once is enough"
    );
    let listed = operator.get(&path).await;
    assert_eq!(listed.json()["data"][0]["revoked_at"], revoked.json()["revoked_at"]);

    let plain = operator.post(&path, json!({ "name": "ci" })).await;
    assert!(plain.json()["secret"].as_str().expect("a secret").starts_with("wk_"));
    assert_eq!(plain.json()["expires_at"], Value::Null);
}

#[tokio::test]
async fn deleting_a_tenant_ends_its_keys() {
    let gateway = Gateway::start().await;
    let operator = gateway.operator().await;
    let key = gateway.caller().await;
    let client = Modern::new(&gateway, &key);
    assert_eq!(client.call("echo", json!({ "text": "x" })).await.tool_text(), "x");
    assert_eq!(operator.delete(&format!("/admin/v1/tenants/{}", key.tenant)).await.status, 204);
    assert_eq!(client.call("echo", json!({ "text": "x" })).await.status, 401);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let gateway = Gateway::start().await;
    let operator = gateway.operator().await;
    let mut names = Vec::new();
    for number in 0..5 {
        names.push(format!("tenant {number}"));
        made(&operator, &names[number]).await;
    }
    let mut seen = Vec::new();
    let mut path = "/admin/v1/tenants?limit=2".to_owned();
    let mut sizes = Vec::new();
    loop {
        let page = operator.get(&path).await;
        let rows = page.json()["data"].as_array().expect("a page").clone();
        sizes.push(rows.len());
        seen.extend(rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()));
        match page.json()["next_cursor"].as_str() {
            Some(cursor) => path = format!("/admin/v1/tenants?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!((seen, sizes), (names, vec![2, 2, 1]));
    for (query, detail) in [
        ("limit=0", "limit: expected 1 to 200"),
        ("limit=201", "limit: expected 1 to 200"),
        ("cursor=nonsense", "cursor: not one that this list handed out; start without one"),
        (&format!("cursor={}", KeyId::new()), "cursor: not one that this list handed out; start without one"),
    ] {
        let reply = operator.get(&format!("/admin/v1/tenants?{query}")).await;
        assert_eq!(problem(&reply, 400, "bad_request"), detail, "{query}");
    }
    for query in ["limit=-1", "limit=many", "page=2", "limit=1&limit=2"] {
        problem(&operator.get(&format!("/admin/v1/tenants?{query}")).await, 400, "bad_request");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said() {
    let gateway = Gateway::start().await;
    let operator = gateway.operator().await;
    let tenants = "/admin/v1/tenants";
    made(&operator, "taken").await;
    let id = made(&operator, "other").await["id"].as_str().expect("an id").to_owned();
    let keys = format!("{tenants}/{id}/keys");
    for (path, body, code, part) in [
        (tenants, json!({ "name": "taken" }), 409, "choose another name"),
        (tenants, json!({ "name": "" }), 422, "name: expected 1 to 100 characters, found 0"),
        (tenants, json!({ "name": "x".repeat(101) }), 422, "found 101"),
        (tenants, json!({ "name": "a\nb" }), 422, "control characters"),
        (tenants, json!({ "name": "a\u{0}b" }), 422, "control characters"),
        (tenants, json!({ "name": 7 }), 422, "expected a string"),
        (tenants, json!({}), 422, "missing field `name`"),
        (tenants, json!({ "name": "a", "plan": "gold" }), 422, "unknown field `plan`"),
        (tenants, json!([]), 422, ""),
        (&keys, json!({ "name": "" }), 422, "name: expected 1 to 100"),
        (&keys, json!({ "name": "a", "kind": "operator" }), 422, "is not one of"),
        (&keys, json!({ "name": "a", "expires_at": "2001-01-01T00:00:00Z" }), 422, "must be in the future"),
        (&keys, json!({ "name": "a", "expires_at": "tomorrow" }), 422, ""),
        (
            &keys,
            json!({ "name": "a", "scopes": { "tools": [] } }),
            422,
            "scopes.tools: expected 1 to 64 patterns",
        ),
        (&keys, json!({ "name": "a", "scopes": { "tools": ["a b"] } }), 422, "is not a pattern"),
        (&keys, json!({ "name": "a", "scopes": { "max_risk": "all" } }), 422, "unknown variant"),
        (&keys, json!({ "name": "a", "scopes": { "tenants": ["*"] } }), 422, "unknown field"),
    ] {
        let reply = operator.post(path, body.clone()).await;
        let word = if code == 409 { "conflict" } else { "invalid" };
        let detail = problem(&reply, code, word);
        assert!(detail.contains(part), "{body}: {detail}");
    }
    let post = operator.request(Method::POST, tenants);
    problem(&post.clone().send().await, 415, "unsupported_media_type");
    let typed = post.header("content-type", "application/json");
    problem(&typed.clone().send().await, 400, "bad_request");
    let large = json!({ "name": "x".repeat(70_000) });
    problem(&typed.body(large).send().await, 413, "too_large");
    for path in [
        format!("{tenants}/nonsense"),
        format!("{tenants}/{}", TenantId::new()),
        format!("{tenants}/{}", KeyId::new()),
        format!("{keys}/nonsense"),
        format!("{keys}/{}", KeyId::new()),
        format!("{tenants}/{}/keys", TenantId::new()),
        format!("{tenants}/{}/sessions", TenantId::new()),
        "/admin/v1/nowhere".to_owned(),
    ] {
        problem(&operator.get(&path).await, 404, "not_found");
    }
    let nobody = operator.post(&format!("{tenants}/{}/keys", TenantId::new()), json!({ "name": "a" })).await;
    problem(&nobody, 404, "not_found");
    problem(&operator.request(Method::PATCH, tenants).send().await, 405, "method_not_allowed");
}

#[tokio::test]
async fn every_change_leaves_an_entry() {
    let gateway = Gateway::start().await;
    let operator = gateway.operator().await;
    let tenant = made(&operator, "a").await["id"].as_str().expect("an id").to_owned();
    let other = made(&operator, "b").await["id"].as_str().expect("an id").to_owned();
    let path = format!("/admin/v1/tenants/{tenant}");
    let key = operator.post(&format!("{path}/keys"), json!({ "name": "k" })).await;
    let key = key.json()["id"].as_str().expect("an id").to_owned();
    operator.request(Method::POST, &format!("{path}/suspend")).send().await;
    operator.request(Method::POST, &format!("{path}/suspend")).send().await;
    operator.request(Method::POST, &format!("{path}/resume")).send().await;
    operator.delete(&format!("{path}/keys/{key}")).await;
    operator.delete(&path).await;
    let listed = operator.get(&format!("/admin/v1/audit?tenant={tenant}")).await;
    let rows = listed.json()["data"].as_array().expect("a list");
    let actions: Vec<_> = rows.iter().map(|row| row["action"].as_str().expect("an action")).collect();
    assert_eq!(
        actions,
        [
            "tenant.create",
            "api_key.create",
            "tenant.suspend",
            "tenant.resume",
            "api_key.revoke",
            "tenant.delete"
        ]
    );
    assert!(rows.iter().all(|row| row["actor"].as_str().expect("an actor").starts_with("operator:opk_")));
    assert_eq!((&rows[1]["subject_kind"], &rows[1]["subject_id"]), (&json!("api_key"), &json!(key)));
    assert_eq!((&rows[1]["tenant_id"], &rows[1]["detail"]["name"]), (&json!(tenant), &json!("k")));

    let all = operator.get("/admin/v1/audit?limit=3").await;
    assert_eq!(all.json()["data"][0]["action"], "operator_key.create");
    let cursor = all.json()["next_cursor"].as_str().expect("more");
    let rest = operator.get(&format!("/admin/v1/audit?limit=200&cursor={cursor}")).await;
    assert_eq!(rest.json()["data"].as_array().map(Vec::len), Some(5));
    let others = operator.get(&format!("/admin/v1/audit?tenant={other}")).await;
    assert_eq!(others.json()["data"].as_array().map(Vec::len), Some(1));
    problem(&operator.get("/admin/v1/audit?tenant=nonsense").await, 400, "bad_request");
}

#[tokio::test]
async fn an_operator_key_can_be_revoked() {
    let gateway = Gateway::start().await;
    let operator = gateway.operator().await;
    assert_eq!(operator.get("/admin/v1/tenants").await.status, 200);
    let app = &gateway.app;
    let page = weir::db::Page::first(1);
    let key = weir::operator_keys::list(&app.db, page).await.expect("a list").rows[0].id;
    let actor = weir::audit::Actor::Cli;
    weir::operator_keys::revoke(&app.db, &app.clock, actor, key).await.expect("revoked");
    problem(&operator.get("/admin/v1/tenants").await, 401, "unauthorized");
}
