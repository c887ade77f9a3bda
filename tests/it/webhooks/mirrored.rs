//! What objects are mirrored, also those that take more than one request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use weir::clock::Timestamp;
use weir::db::mirror::{charges, checkouts, invoices, subscriptions};
use weir::tasks::Tasks;

use super::{START, World};
use crate::support::shop::Shop;

/// What a server says to whoever asks for a path. For objects that take more than one request.
type Answers = Arc<Mutex<HashMap<String, Value>>>;

/// Such a server. Who asks for something else gets 404 in Stripe's words.
async fn pages(answers: &Answers) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let answers = answers.clone();
    let answer = move |uri: http::Uri| {
        let found = answers.lock().expect("answers").get(&uri.to_string()).map(Value::to_string);
        let missing = json!({ "error": { "type": "invalid_request_error", "code": "resource_missing" } });
        let answer = match found {
            Some(found) => (http::StatusCode::OK, found),
            None => (http::StatusCode::NOT_FOUND, missing.to_string()),
        };
        std::future::ready(answer)
    };
    let router = axum::Router::new().fallback(answer);
    Tasks::new().spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

fn line(number: i64, product: &str) -> Value {
    json!({
        "id": format!("il_{number}"), "object": "line_item", "amount": number, "quantity": 1_000_000,
        "period": { "start": START - 100 + number, "end": START + number },
        "pricing": { "type": "price_details", "price_details": { "price": "price_1", "product": product } },
    })
}

/// An object of each kind, of this customer, by the paths at which they are.
fn objects(customer: &str) -> HashMap<String, Value> {
    let product = |number| if number == 1 { "weir_plan_pro" } else { "weir_credits" };
    let lines: Vec<_> = (1..=103).map(|number| line(number, product(number))).collect();
    let mut all = HashMap::from([
        ("/v1/invoices/in_1/lines?limit=100".to_owned(), json!({ "data": lines[..100], "has_more": true })),
        (
            "/v1/invoices/in_1/lines?limit=100&starting_after=il_100".to_owned(),
            json!({ "data": lines[100..], "has_more": false }),
        ),
    ]);
    let mut add = |path: &str, object: Value| {
        let mut object = object;
        object["customer"] = json!(customer);
        object["created"] = json!(START);
        all.insert(path.to_owned(), object);
    };
    let item = json!({
        "id": "si_1", "current_period_start": START, "current_period_end": START + 100,
        "price": { "id": "price_1", "unit_amount": 900, "recurring": { "usage_type": "licensed" } },
    });
    add(
        "/v1/subscriptions/sub_1",
        json!({
            "id": "sub_1", "status": "active", "billing_cycle_anchor": START, "cancel_at_period_end": false,
            "metadata": { "plan": "pro" }, "latest_invoice": "in_1", "items": { "has_more": false, "data": [item] },
        }),
    );
    add(
        "/v1/invoices/in_1",
        json!({
            "id": "in_1", "status": "open", "currency": "usd", "total": 5_000, "amount_due": 5_000, "amount_paid": 0,
            "amount_remaining": 5_000, "attempt_count": 0, "status_transitions": { "finalized_at": START },
            "lines": { "has_more": true, "data": lines[..10] },
            "parent": { "subscription_details": { "subscription": "sub_1" } },
        }),
    );
    add(
        "/v1/checkout/sessions/cs_1",
        json!({
            "id": "cs_1", "mode": "payment", "status": "complete", "payment_status": "paid", "payment_intent": "pi_1",
            "amount_total": 2_000, "currency": "usd", "metadata": { "topup": "tu_1" },
        }),
    );
    add(
        "/v1/charges/ch_1",
        json!({
            "id": "ch_1", "payment_intent": "pi_1", "status": "succeeded", "currency": "usd", "amount": 2_000,
            "amount_refunded": 2_000, "disputed": true,
        }),
    );
    let dispute = json!({ "id": "dp_1", "object": "dispute", "charge": "ch_1", "status": "needs_response" });
    all.insert(
        "/v1/disputes?charge=ch_1&limit=1".to_owned(),
        json!({ "data": [dispute], "has_more": false }),
    );
    all
}

#[tokio::test]
async fn subscriptions_invoices_sessions_and_charges_are_mirrored() {
    let answers = Answers::default();
    let url = pages(&answers).await;
    let world = World::with(|builder| builder.set("billing.stripe_url", url)).await;
    let shop = Shop { db: &world.gateway.app.db, clock: &world.clock };
    shop.publish("pro", json!({ "kind": "prepaid" })).await;
    answers.lock().expect("answers").extend(objects(&world.customer));
    let about = |id: &str, kind: &str, object: Value| {
        json!({
            "id": id, "object": "event", "type": kind, "created": START, "livemode": false,
            "data": { "object": object },
        })
    };
    let send = async |events: &[(&str, &str, &str, Value)]| {
        for (id, kind, object, more) in events {
            let mut said =
                json!({ "object": object, "customer": "cus_of_somebody_else", "status": "made up" });
            said.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            let said = world.tell(&about(id, kind, said)).await;
            assert_eq!(said.body["received"], "stored", "{kind}");
        }
        world.is_done().await;
    };
    send(&[
        ("evt_1", "customer.subscription.updated", "subscription", json!({ "id": "sub_1" })),
        ("evt_2", "invoice.finalized", "invoice", json!({ "id": "in_1" })),
        ("evt_3", "checkout.session.completed", "checkout.session", json!({ "id": "cs_1" })),
        ("evt_4", "charge.dispute.created", "dispute", json!({ "id": "dp_1", "charge": "ch_1" })),
        ("evt_5", "credit_note.created", "credit_note", json!({ "id": "cn_1", "invoice": "in_1" })),
        ("evt_6", "refund.updated", "refund", json!({ "id": "re_1", "charge": "ch_1" })),
    ])
    .await;
    assert_eq!(world.events("done").await, 6);
    let db = &world.gateway.app.db;
    let subscription = subscriptions::get(db, "sub_1").await.expect("a row").expect("mirrored");
    assert_eq!((subscription.tenant, subscription.object.plan.as_deref()), (world.tenant, Some("pro")));
    assert_eq!(subscription.object.base_amount, Some(900));
    let invoice = invoices::get(db, "in_1").await.expect("a row").expect("mirrored").object;
    // 102 lines of metered usage on two pages; their amounts are 2 to 103.
    assert_eq!((invoice.metered_quantity, invoice.metered_amount), (Some(102_000_000), Some(5_355)));
    let at = |seconds: i64| Some(Timestamp::from_micros(seconds * 1_000_000));
    assert_eq!((invoice.metered_from, invoice.metered_to), (at(START - 98), at(START + 103)));
    let session = checkouts::of_tenant(db, world.tenant, 10).await.expect("rows").remove(0).object;
    assert_eq!((session.payment_status.as_str(), session.topup.as_deref()), ("paid", Some("tu_1")));
    let charge = charges::of_tenant(db, world.tenant, 10).await.expect("rows").remove(0).object;
    assert_eq!((charge.amount_refunded, charge.disputed), (2_000, true));
    assert_eq!(charge.dispute_status.as_deref(), Some("needs_response"));

    // Of later and of earlier events the same comes, which is what Stripe says by then.
    answers.lock().expect("answers").entry("/v1/subscriptions/sub_1".to_owned()).and_modify(|subscription| {
        subscription["status"] = json!("canceled");
    });
    send(&[
        ("evt_8", "customer.subscription.deleted", "subscription", json!({ "id": "sub_1" })),
        ("evt_7", "customer.subscription.created", "subscription", json!({ "id": "sub_1" })),
    ])
    .await;
    let canceled = subscriptions::get(db, "sub_1").await.expect("a row").expect("mirrored");
    assert_eq!(canceled.object.status, "canceled");
    assert!(canceled.revision > subscription.revision);
}
