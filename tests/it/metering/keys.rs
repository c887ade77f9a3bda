//! Calls that come again with their key.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{built, client, gateway, receipt, shop, terms};
use crate::support::database::rows;
use crate::support::{Draft, Gateway, Modern, Reply};

fn keyed(client: &Modern, key: &str, arguments: &Value) -> Draft {
    client.draft_call("work", arguments).set("/params/_meta/dev.weir~1idempotencyKey", json!(key))
}

fn text(reply: &Reply) -> String {
    assert_eq!(reply.result()["isError"], false, "{}", reply.text);
    reply.tool_text().to_owned()
}

async fn charged(gateway: &Gateway, tenant: impl std::fmt::Display) -> String {
    gateway.is_recorded().await;
    let query = format!(
        "select count(*), cast(coalesce(sum(credits), 0) as bigint) from calls where tenant_id = '{tenant}' and outcome = 'ok'"
    );
    rows(gateway.database_url(), &query).await.remove(0).join(" ")
}

#[tokio::test]
async fn however_often_it_comes_it_is_made_and_charged_once() {
    let gateway = gateway().await;
    let shop = shop(&gateway);
    shop.publish("usage", terms("usage", "0")).await;
    let key = shop.customer("usage").await;
    let client = client(&gateway, &key);
    let arguments = json!({ "id": "once", "delay_ms": 200, "bytes": 10 });
    let replies = join_all((0..20).map(|_| keyed(&client, "k", &arguments).send())).await;
    let first = text(&replies[0]);
    let call = receipt(&replies[0])["call"].clone();
    for reply in &replies {
        assert_eq!((text(reply), &receipt(reply)["call"]), (first.clone(), &call));
        assert_eq!(receipt(reply)["credits"], "0.25");
    }
    let fresh = replies.iter().filter(|reply| receipt(reply).get("replayed").is_none()).count();
    assert_eq!(fresh, 1);
    assert!(first.starts_with("once 1 "), "{first}");
    assert_eq!(charged(&gateway, key.tenant).await, "1 250000");

    // The same JSON in other words is the same call; anything else is another.
    let reordered = keyed(&client, "k", &json!({ "bytes": 10, "delay_ms": 200, "id": "once" })).send().await;
    assert_eq!(text(&reordered), first);
    let other = keyed(&client, "k", &json!({ "id": "other" })).send().await;
    assert_eq!(other.error(), (200, -32602));
    assert!(
        other.message().contains("belongs to a call of another tool or with other arguments"),
        "{}",
        other.text
    );
    let malformed = keyed(&client, "", &arguments).send().await;
    assert!(malformed.message().contains("1 to 255 bytes"), "{}", malformed.text);
}

#[tokio::test]
async fn a_key_belongs_to_one_credential() {
    let gateway = gateway().await;
    let shop = shop(&gateway);
    shop.publish("usage", terms("usage", "0")).await;
    let one = shop.customer("usage").await;
    let colleague = gateway.key(one.tenant).await;
    let stranger = shop.customer("usage").await;
    for (n, key) in [&one, &colleague, &stranger].into_iter().enumerate() {
        let client = client(&gateway, key);
        let id = format!("by {n}");
        let reply = keyed(&client, "same", &json!({ "id": id })).send().await;
        assert!(text(&reply).starts_with(&id), "{}", reply.text);
    }
}

#[tokio::test]
async fn it_may_stand_in_a_header_or_in_an_argument() {
    let gateway = gateway().await;
    // Free calls have keys as well.
    let key = gateway.caller().await;
    let client = client(&gateway, &key);
    let in_header =
        |id: &str| client.draft_call("work", &json!({ "id": id })).header("idempotency-key", "\"h\"");
    let first = text(&in_header("a").send().await);
    assert_eq!(text(&in_header("a").send().await), first);
    assert_eq!(in_header("b").send().await.error(), (200, -32602));
    let with_argument = json!({ "id": "c", "request_id": "r" });
    let first = text(&client.call("work", with_argument.clone()).await);
    assert_eq!(text(&client.call("work", with_argument).await), first);
    // Without one, every call is one.
    let free = json!({ "id": "d" });
    let (one, two) = (client.call("work", free.clone()).await, client.call("work", free).await);
    assert_ne!(receipt(&one)["call"], receipt(&two)["call"]);
}

#[tokio::test]
async fn a_call_that_failed_leaves_its_key() {
    let gateway = built(Gateway::build().set("mcp.tool_timeout_ms", 300)).await;
    let shop = shop(&gateway);
    shop.publish("usage", terms("usage", "0")).await;
    let key = shop.customer("usage").await;
    let client = client(&gateway, &key);
    for ending in ["breaks", "panics", "hangs"] {
        let failed = keyed(&client, "k", &json!({ "id": "x", "ending": ending })).send().await;
        assert!(failed.json().get("error").is_some(), "{}", failed.text);
    }
    let done = keyed(&client, "k", &json!({ "id": "x" })).send().await;
    text(&done);
    // A tool's own "no" is an answer.
    let no = json!({ "id": "y", "ending": "no" });
    let first = keyed(&client, "n", &no).send().await;
    let again = keyed(&client, "n", &no).send().await;
    assert_eq!(first.tool_text(), again.tool_text());
    assert_eq!((&receipt(&again)["replayed"], &receipt(&again)["credits"]), (&json!(true), &json!("0")));
    assert_eq!(charged(&gateway, key.tenant).await, "1 250000");
}

#[tokio::test]
async fn it_holds_at_every_replica_and_after_a_restart() {
    let mut gateway = gateway().await;
    let shop = shop(&gateway);
    shop.publish("usage", terms("usage", "0")).await;
    let key = shop.customer("usage").await;
    let other = gateway.replica().set("metering.lead_ms", 500).start().await;
    let (here, there) = (client(&gateway, &key), client(&other, &key));
    let slow = json!({ "id": "slow", "delay_ms": 300 });
    let both = [&here, &there].into_iter().cycle().take(10).map(|client| keyed(client, "k", &slow).send());
    let replies = join_all(both).await;
    let first = text(&replies[0]);
    assert!(replies.iter().all(|reply| text(reply) == first));
    gateway.begin_stop();
    gateway.stopped().await;
    assert_eq!(text(&keyed(&there, "k", &slow).send().await), first);
    assert_eq!(charged(&other, key.tenant).await, "1 250000");
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_kept_and_the_call_not_made_again() {
    let gateway = built(Gateway::build().set("metering.replay_bytes", 1000)).await;
    let shop = shop(&gateway);
    shop.publish("usage", terms("usage", "0")).await;
    let key = shop.customer("usage").await;
    let client = client(&gateway, &key);
    let large = json!({ "id": "large", "bytes": 2000 });
    text(&keyed(&client, "k", &large).send().await);
    let again = keyed(&client, "k", &large).send().await;
    assert_eq!(again.error(), (200, -31008), "{}", again.text);
    assert!(again.message().contains("charged"), "{}", again.text);
    assert_eq!(charged(&gateway, key.tenant).await, "1 250000");
}

#[tokio::test]
async fn kept_answers_are_sealed() {
    let gateway = gateway().await;
    let client = client(&gateway, &gateway.caller().await);
    text(&keyed(&client, "a secret key", &json!({ "id": "a secret answer" })).send().await);
    let kept =
        rows(gateway.database_url(), "select key_hash, fingerprint, result from idempotency_keys").await;
    assert_eq!(kept.len(), 1);
    assert!(!kept[0].iter().any(|column| column.contains("secret")), "{kept:?}");
}
