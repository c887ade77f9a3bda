//! The line of a call that has a price.

use serde_json::json;
use weir::accounts::grants::GrantKind;

use super::{built, client, gateway, receipt, shop, terms, work};
use crate::support::database::{Stall, rows};
use crate::support::{Gateway, Legacy, eventually};

#[tokio::test]
async fn a_call_costs_its_price_until_nothing_is_left() {
    let gateway = built(Gateway::build().alone()).await;
    let shop = shop(&gateway);
    shop.publish("free", terms("free", "1")).await;
    let key = shop.customer("free").await;
    let client = client(&gateway, &key);
    for (n, left) in ["0.75", "0.5", "0.25", "0"].iter().enumerate() {
        let reply = work(&client, &n.to_string()).await;
        assert_eq!(reply.result()["isError"], false, "{}", reply.text);
        let receipt = receipt(&reply);
        assert_eq!((&receipt["credits"], &receipt["left"]), (&json!("0.25"), &json!(left)));
        assert!(receipt["call"].as_str().is_some_and(|call| call.starts_with("call_")));
    }
    let refused = work(&client, "too much").await;
    assert_eq!(refused.result()["isError"], true);
    let text = refused.tool_text();
    let url = format!("https://pay.example/{}", key.tenant);
    assert!(text.starts_with("Not charged") && text.contains(&url), "{text}");
    let why = &refused.result()["_meta"]["dev.weir/refused"];
    assert_eq!(*why, json!({ "reason": "exhausted", "price": "0.25", "left": "0", "topUpUrl": url }));
    assert_eq!(refused.result()["_meta"].get("dev.weir/receipt"), None);

    // What costs nothing goes on.
    let echoed = client.call("echo", json!({ "text": "still here" })).await;
    assert_eq!((echoed.tool_text(), &receipt(&echoed)["credits"]), ("still here", &json!("0")));
    assert_eq!(client.call("given_away", json!({})).await.tool_text(), "a gift");
    assert_eq!(client.call("get_status", json!({})).await.result()["isError"], false);

    // And so does everything, once there is more.
    shop.give(key.tenant, GrantKind::Prepaid, "0.5", None).await;
    let mut reply = work(&client, "more").await;
    eventually("the grant is known", async || {
        reply = work(&client, "more").await;
        reply.result()["isError"] == false
    })
    .await;
    gateway.is_recorded().await;
    let charged: Vec<(String, i64, i64, i64)> = ledger(&gateway, "included, prepaid, credits").await;
    assert_eq!(charged.iter().filter(|row| row.1 == 250_000).count(), 4);
    assert!(charged.iter().any(|row| row.2 == 250_000));
    assert!(charged.iter().all(|row| row.1 + row.2 == row.3));
    assert!(charged.iter().any(|row| row.0 == "denied" && row.3 == 0));
}

/// Rows of the ledger: how each call ended, and these three columns.
async fn ledger(gateway: &Gateway, columns: &str) -> Vec<(String, i64, i64, i64)> {
    let rows =
        rows(gateway.database_url(), &format!("select outcome, {columns} from calls order by id")).await;
    let number = |text: &String| text.parse().expect("a number");
    rows.iter().map(|row| (row[0].clone(), number(&row[1]), number(&row[2]), number(&row[3]))).collect()
}

#[tokio::test]
async fn only_what_was_delivered_is_charged() {
    let gateway = built(Gateway::build().set("mcp.tool_timeout_ms", 300)).await;
    let shop = shop(&gateway);
    shop.publish("usage", terms("usage", "0")).await;
    let strict = json!({ "kind": "usage", "tools": [{ "name": "*", "per_call": "0.25", "errors": true }] });
    shop.publish("strict", strict).await;
    for (plan, of_errors) in [("usage", 0), ("strict", 250_000)] {
        let key = shop.customer(plan).await;
        let client = client(&gateway, &key);
        for ending in ["ok", "no", "breaks", "panics", "hangs"] {
            client.call("work", json!({ "id": ending, "ending": ending })).await;
        }
        client.call("work", json!({ "wrong": true })).await;
        client.call("work", json!({ "id": "ok" })).await;
        gateway.is_recorded().await;
        let query =
            format!("select outcome, credits from calls where tenant_id = '{}' order by outcome", key.tenant);
        let rows = rows(gateway.database_url(), &query).await;
        let mut rows: Vec<_> =
            rows.iter().map(|row| (row[0].as_str(), row[1].parse::<i64>().expect("credits"))).collect();
        rows.sort_unstable();
        let mut expected = vec![
            ("invalid_arguments", 0),
            ("ok", 250_000),
            ("ok", 250_000),
            ("panic", 0),
            ("system_error", 0),
            ("timeout", 0),
            ("tool_error", of_errors),
        ];
        expected.sort_unstable();
        assert_eq!(rows, expected, "{plan}");
    }
}

#[tokio::test]
async fn a_cancelled_call_costs_nothing() {
    let gateway = gateway().await;
    let shop = shop(&gateway);
    shop.publish("usage", json!({ "kind": "usage", "tools": [{ "name": "*", "per_call": 1 }] })).await;
    let key = shop.customer("usage").await;
    let client = client(&gateway, &key);
    let call = client.draft_call("slow_count", &json!({ "steps": 1000, "delay_ms": 20 })).progress(json!(1));
    let mut events = call.stream().await;
    events.next().await;
    drop(events);
    client.call("slow_count_cancelled", json!({ "at_least": 1 })).await;
    let query = format!(
        "select outcome, credits from calls where tenant_id = '{}' and tool = 'slow_count'",
        key.tenant
    );
    eventually("the call is recorded", async || {
        gateway.is_recorded().await;
        let rows = rows(gateway.database_url(), &query).await;
        rows == [["cancelled".to_owned(), "0".to_owned()]]
    })
    .await;
}

/// The commit is on its way when the client goes: the call is charged, and the charge taken back.
#[tokio::test]
async fn who_goes_away_while_its_call_settles_is_not_charged() {
    let gateway = built(Gateway::build().alone()).await;
    let shop = shop(&gateway);
    shop.publish("usage", terms("usage", "0")).await;
    let key = shop.customer("usage").await;
    // Afterwards nothing is given back because of news, and the second call needs no lease.
    let made = gateway.app.clock.monotonic_micros();
    eventually("the account to be heard of", async || gateway.app.credentials.heard_at() > made).await;
    let client = client(&gateway, &key);
    assert_eq!(receipt(&work(&client, "first").await)["credits"], "0.25");
    let sums = async || {
        let (url, tenant) = (gateway.database_url(), key.tenant);
        let query = format!(
            "select cast((select sum(credits) from calls where tenant_id = '{tenant}') as bigint),
                    cast((select coalesce(sum(credits), 0) from corrections where tenant_id = '{tenant}') as bigint)"
        );
        rows(url, &query).await.remove(0)
    };
    assert_eq!(sums().await, ["250000", "0"]);

    let settling = gateway.metric("weir_settle_batch_calls_count");
    let stall = Stall::begin(gateway.database_url()).await;
    let begun =
        eventually("the call to settle", async || gateway.metric("weir_settle_batch_calls_count") > settling);
    tokio::select! {
        reply = work(&client, "second") => panic!("nothing can be settled: {}", reply.text),
        () = begun => {}
    }
    eventually("the client to be missed", async || gateway.metric("weir_calls_unsettled_total") > 0.0).await;
    stall.end().await;
    eventually("the charge to be taken back", async || sums().await == ["500000", "-250000"]).await;

    // What it had is there again.
    assert_eq!(receipt(&work(&client, "third").await)["credits"], "0.25");
    assert_eq!(sums().await, ["750000", "-250000"]);
}

#[tokio::test]
async fn size_and_time_count_up_to_the_most() {
    let gateway = gateway().await;
    let shop = shop(&gateway);
    let tools =
        json!([{ "name": "work", "per_call": "1", "per_kib": "1", "per_second": "0.001", "most": "3" }]);
    shop.publish("usage", json!({ "kind": "usage", "tools": tools })).await;
    let client = client(&gateway, &shop.customer("usage").await);
    let small = client.call("work", json!({ "id": "a", "bytes": 1024 })).await;
    let cost: f64 = receipt(&small)["credits"].as_str().expect("credits").parse().expect("a number");
    assert!((2.0..2.3).contains(&cost), "{cost}");
    let large = client.call("work", json!({ "id": "a", "bytes": 100_000 })).await;
    assert_eq!(receipt(&large)["credits"], "3");
}

#[tokio::test]
async fn a_tool_without_a_price_is_refused_and_says_so() {
    let gateway = gateway().await;
    let shop = shop(&gateway);
    shop.publish("free", terms("free", "1")).await;
    let mut generous = terms("free", "1");
    generous["unpriced"] = json!("free");
    shop.publish("generous", generous).await;
    let strict = client(&gateway, &shop.customer("free").await);
    let refused = strict.call("writes", json!({})).await;
    assert_eq!(refused.result()["_meta"]["dev.weir/refused"], json!({ "reason": "unpriced" }));
    assert!(
        refused.tool_text().starts_with("Not charged, and not called: writes has no price"),
        "{}",
        refused.text
    );
    let listed = strict.send("tools/list", json!({})).await;
    let of = |name: &str| {
        let tools = listed.result()["tools"].as_array().expect("tools");
        tools.iter().find(|tool| tool["name"] == name).expect("the tool")["_meta"]["dev.weir/price"].clone()
    };
    assert_eq!(of("writes"), json!({ "unpriced": true }));
    assert_eq!(of("work"), json!({ "per_call": "0.25" }));
    let generous = client(&gateway, &shop.customer("generous").await);
    assert_eq!(generous.call("writes", json!({})).await.tool_text(), "written");
}

#[tokio::test]
async fn who_can_send_its_user_to_a_page_is_asked_to_once() {
    let gateway = gateway().await;
    let shop = shop(&gateway);
    shop.publish("prepaid", terms("prepaid", "0")).await;
    let key = shop.customer("prepaid").await;
    let able = client(&gateway, &key).with_capabilities(json!({ "elicitation": { "url": {} } }));
    let asked = work(&able, "a").await;
    assert_eq!(asked.result()["resultType"], "input_required", "{}", asked.text);
    let question = &asked.result()["inputRequests"]["weir_top_up"];
    assert_eq!(question["method"], "elicitation/create");
    let url = format!("https://pay.example/{}", key.tenant);
    assert_eq!((&question["params"]["mode"], &question["params"]["url"]), (&json!("url"), &json!(url)));
    // The user went there, but nothing came of it yet.
    let again = able.draft_call("work", &json!({ "id": "a" }));
    let again = again.set("/params/inputResponses", json!({ "weir_top_up": { "action": "accept" } }));
    let reply = again.send().await;
    assert_eq!(reply.result()["_meta"]["dev.weir/refused"]["reason"], "exhausted", "{}", reply.text);

    // Others read it.
    for revision in ["2025-11-25", "2025-06-18", "2025-03-26"] {
        let capabilities = json!({ "elicitation": { "url": {}, "form": {} } });
        let legacy = Legacy::open_with(&gateway, &key, revision, capabilities).await;
        let reply = legacy.call("work", json!({ "id": "a" })).await;
        assert!(reply.tool_text().contains(&url), "{revision}: {}", reply.text);
        assert_eq!(reply.result()["isError"], true);
    }
}

#[tokio::test]
async fn what_was_paid_survives_the_process() {
    let mut gateway = built(Gateway::build()).await;
    let first = shop(&gateway);
    first.publish("free", terms("free", "1")).await;
    let key = first.customer("free").await;
    for n in 0..3 {
        assert_eq!(work(&client(&gateway, &key), &n.to_string()).await.result()["isError"], false);
    }
    gateway.begin_stop();
    gateway.stopped().await;
    let again = gateway.replica().set("metering.lead_ms", 500).start().await;
    let next = client(&again, &key);
    assert_eq!(work(&next, "3").await.result()["isError"], false);
    assert_eq!(work(&next, "4").await.result()["isError"], true);
}

#[tokio::test]
async fn a_plan_change_brings_other_prices() {
    let gateway = gateway().await;
    let shop = shop(&gateway);
    shop.publish("cheap", terms("usage", "0")).await;
    shop.publish("dear", json!({ "kind": "usage", "tools": [{ "name": "*", "per_call": 7 }] })).await;
    let key = shop.customer("cheap").await;
    let client = client(&gateway, &key);
    assert_eq!(receipt(&work(&client, "a").await)["credits"], "0.25");
    shop.put_on(key.tenant, "dear").await;
    eventually("the other plan holds", async || receipt(&work(&client, "a").await)["credits"] == "7").await;
    // New prices of the plan, too.
    shop.publish("dear", json!({ "kind": "usage", "tools": [{ "name": "*", "per_call": 8 }] })).await;
    eventually("the new price holds", async || receipt(&work(&client, "a").await)["credits"] == "8").await;
    let query = format!(
        "select count(*) from calls join periods on periods.id = calls.period_id
         where calls.tenant_id = '{}' and (started_at < starts_at or started_at >= ends_at)",
        key.tenant
    );
    let astray = rows(gateway.database_url(), &query).await;
    assert_eq!(astray, [["0".to_owned()]]);
}
