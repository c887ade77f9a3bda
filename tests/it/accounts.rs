//! Accounts: what operators give, take back, cap and see, over the API and on the command line.

use std::path::Path;
use std::process::{Command, Output};

use http::Method;
use serde_json::{Value, json};
use weir::clock::{Clock, Timestamp};

use crate::support::gateway::Operator;
use crate::support::{Gateway, Key, Reply, eventually};

const HYBRID: &str =
    r#"{"kind": "hybrid", "included": "30", "hard_cap": "100", "tools": [{"name": "*", "per_call": "1"}]}"#;

async fn put(operator: &Operator, path: &str, body: Value) -> Reply {
    operator.request(Method::PUT, path).header("content-type", "application/json").body(body).send().await
}

fn path(key: &Key, below: &str) -> String {
    format!("/admin/v1/tenants/{}/{below}", key.tenant)
}

async fn on_priced_plan(operator: &Operator, key: &Key) {
    let terms: Value = serde_json::from_str(HYBRID).expect("terms");
    let reply = operator.post("/admin/v1/plans/gold/prices", json!({ "terms": terms })).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let reply = put(operator, &path(key, "plan"), json!({ "plan": "gold" })).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}

#[tokio::test]
async fn grants_are_given_listed_and_taken_back() {
    let gateway = Gateway::start().await;
    let operator = gateway.operator().await;
    let key = gateway.caller().await;
    let grants = path(&key, "grants");
    assert_eq!(operator.get(&grants).await.json(), &json!({ "data": [], "next_cursor": null }));
    let invoice = json!({ "kind": "prepaid", "credits": "12.5", "source": "invoice-1", "note": "thanks" });
    let made = operator.post(&grants, invoice.clone()).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(
        (&made.json()["granted"], &made.json()["remaining"], &made.json()["used"]),
        (&json!("12.5"), &json!("12.5"), &json!("0"))
    );
    assert_eq!(operator.post(&grants, invoice).await.json(), made.json(), "once");
    let more = json!({ "kind": "promotional", "credits": 3, "expires_at": "2099-01-01T00:00:00Z" });
    let more = operator.post(&grants, more).await;
    let page = operator.get(&format!("{grants}?limit=1")).await;
    assert_eq!(&page.json()["data"], &json!([made.json()]));
    let cursor = page.json()["next_cursor"].as_str().expect("more").to_owned();
    let page = operator.get(&format!("{grants}?cursor={cursor}")).await;
    assert_eq!(page.json(), &json!({ "data": [more.json()], "next_cursor": null }));
    let one = format!("{grants}/{}", made.json()["id"].as_str().expect("an id"));
    let voided = operator.delete(&one).await;
    assert_eq!((voided.status, &voided.json()["voided"]), (200, &json!("12.5")));
    assert_eq!(operator.delete(&one).await.json(), voided.json());
    for (body, status, part) in [
        (json!({ "kind": "prepaid", "credits": "1", "source": "invoice-1" }), 409, "choose another"),
        (json!({ "kind": "included", "credits": "1" }), 422, "kind: expected promotional or prepaid"),
        (json!({ "kind": "prepaid", "credits": "0" }), 422, "credits: expected more than 0"),
        (json!({ "kind": "prepaid", "credits": "-1" }), 422, "expected credits"),
        (json!({ "kind": "prepaid", "credits": "1", "price": 1 }), 422, "unknown field"),
        (json!({ "kind": "prepaid", "credits": 1, "expires_at": "2020-01-01T00:00:00Z" }), 422, "expires_at"),
    ] {
        let reply = operator.post(&grants, body).await;
        let detail = reply.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(reply.status == status && detail.contains(part), "{}", reply.text);
    }
    let nobody = "/admin/v1/tenants/tn_00000000000000000000000000/grants";
    let reply = operator.post(nobody, json!({ "kind": "prepaid", "credits": "1" })).await;
    assert_eq!((reply.status, operator.get(nobody).await.status), (404, 404));
}

#[tokio::test]
async fn an_account_is_shown_capped_and_kept() {
    let clock = Clock::manual(Timestamp::from_micros(1_790_000_000_000_000));
    let gateway = Gateway::build()
        .alone()
        .set("redis.url", "")
        .set("metering.lease_ms", 500)
        .clock(&clock)
        .start()
        .await;
    let operator = gateway.operator().await;
    let key = gateway.caller().await;
    let account = path(&key, "account");
    let shown = operator.get(&account).await;
    let nothing = json!({ "included": "0", "promotional": "0", "prepaid": "0" });
    assert_eq!((shown.status, &shown.json()["left"], &shown.json()["cycle"]), (200, &nothing, &Value::Null));
    on_priced_plan(&operator, &key).await;
    let capped = put(&operator, &account, json!({ "spend_cap": "40" })).await;
    assert_eq!((capped.status, &capped.json()["spend_cap"]), (200, &json!("40")), "{}", capped.text);
    assert_eq!(put(&operator, &account, json!({})).await.status, 422, "none is said with null");
    let tenant = key.tenant;
    weir::accounts::standing(&gateway.app.db, tenant, clock.now()).await.expect("a period");
    let shown = operator.get(&account).await;
    let (left, period) = (&shown.json()["left"], &shown.json()["period"]);
    assert_eq!(
        (&left["included"], &period["hard_cap"], &period["plan"]),
        (&json!("30"), &json!("40"), &json!("gold"))
    );
    let capped = put(&operator, &account, json!({ "spend_cap": null })).await;
    assert_eq!(capped.json()["period"]["hard_cap"], "100");

    clock.advance(std::time::Duration::from_secs(40 * 86_400));
    eventually("the next period", async || {
        let periods = operator.get(&path(&key, "periods")).await;
        let periods = periods.json()["data"].as_array().expect("a list").clone();
        periods.len() == 2
            && periods[0]["closed_at"].is_string()
            && periods[0]["ends_at"] == periods[1]["starts_at"]
    })
    .await;
    assert_eq!(operator.get(&path(&key, "events")).await.json()["data"], json!([]));
    let trail = operator.get(&format!("/admin/v1/audit?tenant={tenant}&limit=200")).await;
    let trail = trail.json()["data"].as_array().expect("a list").clone();
    assert_eq!(trail.iter().filter(|row| row["action"] == "account.spend_cap").count(), 2);
}

fn weir(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.current_dir(dir).env_clear().env("WEIR_DATABASE__URL", "sqlite:weir.db").args(args);
    command.output().expect("it runs")
}

fn done(dir: &Path, args: &[&str]) -> Value {
    let output = weir(dir, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

#[test]
fn the_commands_do_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    done(dir, &["migrate"]);
    let tenant = done(dir, &["tenant", "create", "acme"])["id"].as_str().expect("an id").to_owned();
    let tenant = tenant.as_str();
    let add =
        ["grant", "add", "--tenant", tenant, "--kind", "prepaid", "--credits", "500", "--source", "i-1"];
    let grant = done(dir, &add);
    assert_eq!(done(dir, &add), grant);
    assert_eq!(done(dir, &["grant", "list", "--tenant", tenant, "--json"]), grant);
    assert_eq!(done(dir, &["grant", "list", "--tenant", "acme", "--json"]), grant);
    let table = weir(dir, &["grant", "list", "--tenant", tenant]).stdout;
    assert!(String::from_utf8_lossy(&table).contains("i-1"));
    let shown = done(dir, &["account", "show", "--tenant", tenant]);
    assert_eq!((&shown["left"]["prepaid"], &shown["period"]), (&json!("500"), &Value::Null));
    assert_eq!(done(dir, &["account", "show", "--tenant", "acme"]), shown);
    assert_eq!(done(dir, &["account", "cap", "0.5", "--tenant", tenant])["spend_cap"], "0.5");
    assert_eq!(done(dir, &["account", "cap", "none", "--tenant", tenant])["spend_cap"], Value::Null);
    let id = grant["id"].as_str().expect("an id");
    assert_eq!(done(dir, &["grant", "void", id, "--tenant", tenant])["remaining"], "0");
    for (args, part) in [
        (["account", "cap", "-", "--tenant", tenant], "expected credits"),
        (["grant", "void", "grt_00000000000000000000000000", "--tenant", tenant], "grant not found"),
        (["account", "cap", "1", "--tenant", "acne"], "there is no tenant \"acne\""),
    ] {
        let output = weir(dir, &args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(part), "{said}");
    }
}
