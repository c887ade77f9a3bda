//! Prices: published over the API and on the command line, kept for ever, and shown to whoever pays.

use std::path::Path;
use std::process::{Command, Output};

use http::Method;
use serde_json::{Map, Value, json};

use crate::support::gateway::Operator;
use crate::support::{Gateway, Key, Legacy, Modern, Reply, eventually};

async fn publish(operator: &Operator, plan: &str, terms: &Value) -> Value {
    let reply = operator.post(&format!("/admin/v1/plans/{plan}/prices"), json!({ "terms": terms })).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json().clone()
}

async fn on_plan(operator: &Operator, key: &Key, name: &str) {
    let path = format!("/admin/v1/tenants/{}/plan", key.tenant);
    let draft = operator.request(Method::PUT, &path).header("content-type", "application/json");
    assert_eq!(draft.body(json!({ "plan": name })).send().await.status, 200);
}

fn usage(per_call: &str) -> Value {
    json!({ "kind": "usage", "tools": [{ "name": "*", "per_call": per_call }] })
}

/// What a list says of prices, by tool; null where it says nothing.
fn prices(listed: &Reply) -> Map<String, Value> {
    let tools = listed.result()["tools"].as_array().expect("a list").clone();
    let price = |tool: &Value| tool["_meta"]["dev.weir/price"].clone();
    tools.iter().map(|tool| (tool["name"].as_str().expect("a name").to_owned(), price(tool))).collect()
}

async fn price(client: &Modern, tool: &str) -> Value {
    prices(&client.send("tools/list", json!({})).await)[tool].clone()
}

#[tokio::test]
async fn prices_are_published_listed_and_kept() {
    let gateway = Gateway::start().await;
    let operator = gateway.operator().await;
    let first = publish(&operator, "gold", &usage("1")).await;
    assert_eq!((&first["number"], &first["effective_at"]), (&json!(1), &first["published_at"]));
    assert_eq!(publish(&operator, "gold", &usage("1.0")).await["id"], first["id"], "the same");
    let shown = operator.get("/admin/v1/plans/gold").await;
    assert_eq!((&shown.json()["limits"], &shown.json()["prices"]), (&json!({}), &first));

    let key = gateway.caller().await;
    on_plan(&operator, &key, "gold").await;
    let second = publish(&operator, "gold", &usage("2")).await;
    assert!(second["effective_at"].as_str() > second["published_at"].as_str(), "{second}");
    let shown = operator.get("/admin/v1/plans/gold").await;
    assert_eq!(shown.json()["prices"]["number"], 1, "not yet");
    let page = operator.get("/admin/v1/plans/gold/prices?limit=1").await;
    assert_eq!(page.json()["data"][0], first);
    let cursor = page.json()["next_cursor"].as_str().expect("more").to_owned();
    let page = operator.get(&format!("/admin/v1/plans/gold/prices?cursor={cursor}")).await;
    assert_eq!(page.json(), &json!({ "data": [second], "next_cursor": null }));

    let soon = first["published_at"].clone();
    for (plan, body, status, part) in [
        ("Gold", json!({ "terms": usage("1") }), 404, ""),
        ("gold", json!({}), 422, "missing field `terms`"),
        ("gold", json!({ "terms": usage("1"), "from": soon }), 422, "from: the soonest is 20"),
        (
            "gold",
            json!({ "terms": { "kind": "usage", "included": 1 } }),
            422,
            "included: a plan of this kind",
        ),
        ("gold", json!({ "terms": { "kind": "usage", "discount": 1 } }), 422, "unknown field `discount`"),
        (
            "new",
            json!({ "terms": { "kind": "usage", "soft_cap": 0 } }),
            422,
            "soft_cap: expected more than 0",
        ),
    ] {
        let reply = operator.post(&format!("/admin/v1/plans/{plan}/prices"), body).await;
        let detail = reply.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(reply.status == status && detail.contains(part), "{plan}: {}", reply.text);
    }
    assert_eq!(operator.get("/admin/v1/plans/new/prices").await.status, 404, "nothing was made");
    let trail = operator.get("/admin/v1/audit?limit=200").await;
    let published = |row: &&Value| row["action"] == "plan.publish" && row["subject_id"] == "gold";
    let of_gold: Vec<_> = trail.json()["data"].as_array().expect("a list").iter().filter(published).collect();
    let digests: Vec<_> = of_gold.iter().map(|row| &row["detail"]["digest"]).collect();
    assert_eq!(digests, [&first["digest"], &second["digest"]]);
}

#[tokio::test]
async fn everybody_sees_the_prices_of_their_own_plan() {
    let gateway = Gateway::start().await;
    let operator = gateway.operator().await;
    let some = json!({ "kind": "hybrid", "included": 10, "tools": [
        { "name": "ech*", "server": "lab", "per_call": "0.25" },
        { "name": "writes", "per_call": 0, "per_kib": "0.01", "most": 1, "errors": true },
        { "name": "echo", "per_call": 9 },
    ]});
    publish(&operator, "some", &some).await;
    publish(&operator, "all", &usage("3")).await;
    let keys = [gateway.caller().await, gateway.caller().await, gateway.caller().await];
    on_plan(&operator, &keys[0], "some").await;
    on_plan(&operator, &keys[1], "all").await;
    let clients = keys.each_ref().map(|key| Modern::new(&gateway, key));
    let writes = json!({ "per_call": "0", "per_kib": "0.01", "most": "1", "errors": true });
    for (tool, expected) in [
        ("echo", [json!({ "per_call": "0.25" }), json!({ "per_call": "3" }), Value::Null]),
        ("writes", [writes, json!({ "per_call": "3" }), Value::Null]),
        ("dns_resolve", [json!({ "unpriced": true }), json!({ "per_call": "3" }), Value::Null]),
        ("get_status", [json!({ "per_call": "0" }), json!({ "per_call": "0" }), Value::Null]),
    ] {
        for (client, expected) in clients.iter().zip(expected) {
            assert_eq!(price(client, tool).await, expected, "{tool}");
        }
    }
    let plain = clients[2].send("tools/list", json!({})).await;
    assert!(prices(&plain).values().all(Value::is_null), "who does not pay is told nothing");
    let old = Legacy::open(&gateway, &keys[0], "2025-11-25").await;
    let listed = prices(&old.send("tools/list", json!({})).await);
    assert_eq!(listed["echo"], json!({ "per_call": "0.25" }));
    assert_eq!(listed["dns_resolve"], json!({ "unpriced": true }));
}

#[tokio::test]
async fn new_prices_are_shown_everywhere_when_they_come_into_force() {
    let build = |builder: crate::support::gateway::Builder| builder.set("metering.lead_ms", 2000);
    let first = build(Gateway::build().alone()).start().await;
    let second = build(first.replica()).start().await;
    let operator = first.operator().await;
    let key = first.caller().await;
    publish(&operator, "gold", &usage("1")).await;
    on_plan(&operator, &key, "gold").await;
    let clients = [Modern::new(&first, &key), Modern::new(&second, &key)];
    assert_eq!(price(&clients[0], "echo").await, json!({ "per_call": "1" }));
    eventually("the other replica", async || price(&clients[1], "echo").await == json!({ "per_call": "1" }))
        .await;

    let filter = json!({ "toolsListChanged": true });
    let (mut here, _) = clients[0].listen(filter.clone()).await;
    let (mut there, _) = clients[1].listen(filter).await;
    publish(&operator, "gold", &usage("2")).await;
    assert_eq!(price(&clients[0], "echo").await, json!({ "per_call": "1" }), "not yet");
    for (client, events) in clients.iter().zip([&mut here, &mut there]) {
        // The first prices may be told as well.
        while price(client, "echo").await != json!({ "per_call": "2" }) {
            assert_eq!(events.message().await["method"], "notifications/tools/list_changed");
        }
    }
}

/// `weir plan`, on the database of a directory.
fn plan(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.current_dir(dir).env_clear().env("WEIR_DATABASE__URL", "sqlite:weir.db");
    command.args(args).output().expect("the binary runs")
}

fn told(dir: &Path, args: &[&str]) -> String {
    let output = plan(dir, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn refused(dir: &Path, args: &[&str]) -> String {
    let output = plan(dir, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn plans_are_priced_on_the_command_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    told(dir, &["migrate"]);
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("written");
    write("one.json", &usage("1").to_string());
    write("two.toml", "kind = \"usage\"\nhard_cap = 5\ntools = [{ name = \"*\", per_call = 0.000001 }]\n");
    let made = told(dir, &["plan", "publish", "gold", "--terms", "one.json"]);
    let made: Value = serde_json::from_str(&made).expect("JSON");
    assert_eq!(
        (&made["number"], &made["in_force"], &made["published_by"]),
        (&json!(1), &json!(true), &json!("cli"))
    );
    let late = "2100-01-01T00:00:00Z";
    told(dir, &["plan", "publish", "gold", "--terms", "two.toml", "--from", late]);
    let table = told(dir, &["plan", "prices", "gold"]);
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(lines[0], ["NUMBER", "FROM", "STATE", "KIND", "INCLUDED", "CAPS", "TOOLS"]);
    assert_eq!(lines[1][2..], ["in force", "usage", "0", "none", "1"]);
    assert_eq!(lines[2], ["2", "2100-01-01T00:00:00.000000Z", "to come", "usage", "0", "hard 5", "1"]);
    let json = told(dir, &["plan", "prices", "gold", "--json"]);
    let second: Value = serde_json::from_str(json.lines().nth(1).expect("two")).expect("JSON");
    assert_eq!(
        (&second["in_force"], &second["terms"]["tools"][0]["per_call"]),
        (&json!(false), &json!("0.000001"))
    );

    write("bad.json", r#"{"kind": "usage", "tools": [{"name": "*", "per_call": 1, "per_kib": 1}]}"#);
    write("terms.txt", "{}");
    for (args, part) in [
        (&["plan", "publish", "gold", "--terms", "bad.json"][..], "tools[0].most: needed where"),
        (&["plan", "publish", "gold", "--terms", "terms.txt"], "ends in .json or .toml"),
        (&["plan", "publish", "gold", "--terms", "none.json"], "none.json: "),
        (
            &["plan", "publish", "gold", "--terms", "one.json", "--from", "2020-01-01T00:00:00Z"],
            "the soonest is",
        ),
        (&["plan", "prices", "silver"], "plan not found"),
    ] {
        let said = refused(dir, args);
        assert!(said.contains(part), "{args:?}: {said}");
    }
}

#[test]
fn plans_are_imported_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    told(dir, &["migrate"]);
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config/plans.example.toml");
    let said = told(dir, &["plan", "import", example]);
    let names = ["free", "hybrid", "prepaid", "usage"];
    for (line, name) in said.lines().zip(names) {
        assert!(line.starts_with(&format!("{name}: created; prices published, number 1, from 2")), "{line}");
    }
    assert_eq!(
        told(dir, &["plan", "import", example]),
        names.map(|name| format!("{name}: unchanged\n")).concat()
    );

    let write = |text: &str| std::fs::write(dir.join("plans.toml"), text).expect("written");
    write("[plans.free]\nlimits = {}\n[plans.usage.terms]\nkind = \"usage\"\nsoft_cap = 0\n");
    let said = refused(dir, &["plan", "import", "plans.toml"]);
    assert!(said.contains("plans.usage: soft_cap: expected more than 0"), "{said}");
    let shown: Value = serde_json::from_str(&told(dir, &["plan", "show", "free"])).expect("JSON");
    assert_eq!(shown["limits"]["streams"], 2, "nothing was changed");
    write("[plans.free]\nlimits = {}\n[plans.usage.terms]\nkind = \"usage\"\n");
    let said = told(dir, &["plan", "import", "plans.toml"]);
    assert!(said.starts_with("free: limits changed\nusage: prices published, number 2, from 2"), "{said}");
    write("[plans.free]\nprices = {}\n");
    assert!(refused(dir, &["plan", "import", "plans.toml"]).contains("unknown field `prices`"));
}
