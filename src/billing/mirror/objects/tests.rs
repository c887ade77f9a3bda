//! What is kept of objects as Stripe tells them.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

fn fetched(found: Found) -> Fetched {
    match found {
        Found::Object(fetched) => *fetched,
        other => panic!("{other:?}"),
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn item(id: &str, usage_type: &str, (start, end): (i64, i64)) -> Value {
    json!({
        "id": id, "object": "subscription_item", "current_period_start": start, "current_period_end": end,
        "price": {
            "id": format!("price_of_{id}"), "unit_amount": if usage_type == "licensed" { json!(900) } else { json!(null) },
            "recurring": { "interval": "month", "usage_type": usage_type },
        },
    })
}

#[test]
fn of_a_subscription_the_items_are_told_apart() {
    let mut object = json!({
        "id": "sub_1", "object": "subscription", "customer": { "id": "cus_1", "object": "customer" },
        "status": "active", "metadata": { "plan": "pro", "tenant": "tn_of_somebody_else" },
        "billing_cycle_anchor": 100, "created": 50, "latest_invoice": "in_1", "cancel_at_period_end": true,
        "cancel_at": 300, "canceled_at": 150, "ended_at": null, "trial_end": null, "something_new": [1],
        "items": { "object": "list", "has_more": false, "data": [
            item("si_m", "metered", (100, 300)), item("si_b", "licensed", (90, 280)),
        ] },
    });
    let found = fetched(read::<RawSubscription>(object.clone()).kept());
    let expected = Subscription {
        id: "sub_1".to_owned(),
        customer: "cus_1".to_owned(),
        status: "active".to_owned(),
        plan: Some("pro".to_owned()),
        plan_before: None,
        plan_from: None,
        billing_cycle_anchor: at(100),
        current_period_start: Some(at(90)),
        current_period_end: Some(at(300)),
        trial_end: None,
        cancel_at: Some(at(300)),
        cancel_at_period_end: true,
        canceled_at: Some(at(150)),
        ended_at: None,
        base_price: Some("price_of_si_b".to_owned()),
        base_item: Some("si_b".to_owned()),
        base_amount: Some(900),
        metered_item: Some("si_m".to_owned()),
        latest_invoice: Some("in_1".to_owned()),
        created_at: at(50),
    };
    assert_eq!(found, Fetched::Subscription(expected));
    let paid = |object: &Value| read::<RawSubscription>(object.clone()).current().expect("somebody's").paid;
    assert_eq!(paid(&object), None);
    object["metadata"] = json!({ "paid_until": "300", "paid_price": "price_1", "paid_amount": "1900" });
    let price = Some("price_1".to_owned());
    assert_eq!(paid(&object), Some(Paid { until: at(300), price, amount: 1900 }));
    object["metadata"] = json!({ "paid_until": "300" });
    assert_eq!(paid(&object), Some(Paid { until: at(300), price: None, amount: 0 }), "no base fee");
    object["customer"] = Value::Null;
    assert_eq!(read::<RawSubscription>(object).kept(), Found::Nobodys);
}

fn line(id: &str, product: &Value, quantity: Option<i64>, period: (i64, i64)) -> Value {
    json!({
        "id": id, "amount": 7, "quantity": quantity, "period": { "start": period.0, "end": period.1 },
        "pricing": { "type": "price_details", "price_details": { "price": "price_1", "product": product } },
    })
}

#[test]
fn of_an_invoice_the_metered_lines_are_summed() {
    let object = json!({
        "id": "in_1", "object": "invoice", "customer": "cus_1", "status": "open", "currency": "usd", "total": 1_000,
        "amount_due": 1_000, "amount_paid": 1, "amount_remaining": 999, "attempt_count": 2, "attempted": true,
        "next_payment_attempt": 900, "due_date": null, "hosted_invoice_url": "https://example.com/i", "number": "A-1",
        "billing_reason": "subscription_cycle", "created": 500,
        "status_transitions": { "finalized_at": 600, "paid_at": null, "voided_at": null },
        "parent": { "type": "subscription_details", "subscription_details": { "subscription": "sub_1" } },
        "lines": { "has_more": false, "data": [] },
    });
    let lines: Vec<Line> = read(json!([
        line("il_1", &json!("weir_plan_pro"), Some(1), (0, 1)),
        line("il_2", &json!("weir_credits"), Some(2_000_000), (100, 200)),
        line("il_3", &json!({ "id": "weir_credits" }), Some(40), (90, 150)),
        line("il_4", &json!("weir_credits"), Some(0), (100, 200)),
        { "id": "il_5", "amount": 5, "quantity": 5, "period": { "start": 0, "end": 0 }, "pricing": null },
    ]));
    let Fetched::Invoice(with) = fetched(read::<RawInvoice>(object.clone()).kept(&lines, "weir_credits"))
    else {
        panic!("an invoice")
    };
    assert_eq!((with.metered_quantity, with.metered_amount), (Some(2_000_040), Some(21)));
    assert_eq!((with.metered_from, with.metered_to), (Some(at(90)), Some(at(200))));
    assert_eq!((with.subscription.as_deref(), with.status.as_str()), (Some("sub_1"), "open"));
    assert_eq!(
        (with.next_payment_attempt, with.finalized_at, with.paid_at),
        (Some(at(900)), Some(at(600)), None)
    );
    let Fetched::Invoice(without) =
        fetched(read::<RawInvoice>(object.clone()).kept(&lines[..1], "weir_credits"))
    else {
        panic!("an invoice")
    };
    assert_eq!((without.metered_quantity, without.metered_from), (None, None));
    let lines: Vec<Line> = read(json!([
        line("il_1", &json!("weir_credits"), Some(1), (100, 200)),
        line("il_2", &json!("weir_credits"), None, (100, 200)),
    ]));
    let Fetched::Invoice(unknown) = fetched(read::<RawInvoice>(object).kept(&lines, "weir_credits")) else {
        panic!("an invoice")
    };
    assert_eq!((unknown.metered_quantity, unknown.metered_from), (None, Some(at(100))));
}

#[test]
fn of_a_checkout_and_a_charge_what_matters_is_kept() {
    let session = json!({
        "id": "cs_1", "object": "checkout.session", "customer": "cus_1", "mode": "payment", "status": "complete",
        "payment_status": "paid", "payment_intent": "pi_1", "subscription": null, "invoice": "in_9",
        "amount_total": 2_000, "currency": "usd", "metadata": { "topup": "gr_1" }, "created": 5,
    });
    let Fetched::Checkout(session) = fetched(read::<RawCheckout>(session).kept()) else {
        panic!("a session")
    };
    assert_eq!((session.topup.as_deref(), session.amount_total), (Some("gr_1"), Some(2_000)));
    let charge = json!({
        "id": "ch_1", "customer": "cus_1", "payment_intent": "pi_1", "status": "succeeded", "currency": "usd",
        "amount": 2_000, "amount_refunded": 500, "disputed": true, "created": 5,
    });
    let Fetched::Charge(charge) =
        fetched(read::<RawCharge>(charge).kept(Some(read(json!({ "id": "dp_1", "status": "lost" })))))
    else {
        panic!("a charge")
    };
    assert_eq!((charge.amount_refunded, charge.disputed), (500, true));
    assert_eq!(charge.dispute_status.as_deref(), Some("lost"));
    let deleted = read::<RawCustomer>(json!({ "id": "cus_1", "object": "customer", "deleted": true })).kept();
    let expected = Customer { id: "cus_1".to_owned(), deleted: true };
    assert_eq!(fetched(deleted), Fetched::Customer(expected));
}
