//! What is read of an event: its id, its type, its mode, and which object to ask for. Nothing else that it says is believed.
//!
//! Snapshot events: <https://docs.stripe.com/api/events/object>. Thin events: <https://docs.stripe.com/event-destinations>.

use serde::Deserialize;

use super::super::events::METER_ERRORS;
use super::super::mirror::{Reference, Subject};
use crate::clock::Timestamp;
use crate::db::stripe_events::ObjectKind;

/// Longest id and longest type that are taken, in bytes. <https://docs.stripe.com/upgrades#what-changes-does-stripe-consider-to-be-backwards-compatible>
const LONGEST: usize = 255;

/// As much of an event as is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// `evt_...`.
    pub id: String,
    /// Such as `invoice.paid`.
    pub kind: String,
    /// When it happened, to the second or better.
    pub created: Timestamp,
    /// Whether money is real.
    pub livemode: bool,
    /// What it is about.
    pub subject: Subject,
}

#[derive(Deserialize)]
struct Event {
    id: String,
    object: String,
    #[serde(rename = "type")]
    kind: String,
    created: Created,
    livemode: bool,
    data: Option<Data>,
    related_object: Option<Related>,
}

/// Snapshot events have seconds, thin ones a date.
#[derive(Deserialize)]
#[serde(untagged)]
enum Created {
    Seconds(i64),
    Date(Timestamp),
}

#[derive(Deserialize)]
struct Data {
    object: Option<Object>,
}

#[derive(Deserialize)]
struct Object {
    id: Option<String>,
    object: Option<String>,
    invoice: Option<Reference>,
    charge: Option<Reference>,
}

#[derive(Deserialize)]
struct Related {
    id: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Envelope {
    /// Reads an event of either kind; nothing, where it is none.
    #[must_use]
    pub fn read(body: &[u8]) -> Option<Self> {
        let event: Event = serde_json::from_slice(body).ok()?;
        let subject = match event.object.as_str() {
            "event" => event.data.and_then(|data| data.object).and_then(of_snapshot),
            "v2.core.event" => event.related_object.map(|related| of(&related.kind, related.id)),
            _ => return None,
        };
        let kind = event.kind;
        let other = || Subject { kind: ObjectKind::Other, id: String::new() };
        let mut subject = subject.filter(|subject| is_id(&subject.id)).unwrap_or_else(other);
        if METER_ERRORS.contains(&kind.as_str()) {
            subject.kind = ObjectKind::Meter;
        }
        let created = match event.created {
            Created::Seconds(seconds) => Timestamp::from_micros(seconds.checked_mul(1_000_000)?),
            Created::Date(date) => date,
        };
        let is_type = is_id(&kind);
        (is_id(&event.id) && is_type).then_some(Self {
            id: event.id,
            kind,
            created,
            livemode: event.livemode,
            subject,
        })
    }
}

/// What to ask for when this happened to that object. Of what belongs to another object, that one tells.
fn of_snapshot(object: Object) -> Option<Subject> {
    match object.object?.as_str() {
        "credit_note" => Some(Subject { kind: ObjectKind::Invoice, id: object.invoice?.into_id() }),
        "dispute" | "refund" => Some(Subject { kind: ObjectKind::Charge, id: object.charge?.into_id() }),
        kind => Some(of(kind, object.id?)),
    }
}

fn of(kind: &str, id: String) -> Subject {
    let kind = match kind {
        "subscription" | "customer.subscription" => ObjectKind::Subscription,
        "invoice" => ObjectKind::Invoice,
        "checkout.session" => ObjectKind::Checkout,
        "charge" => ObjectKind::Charge,
        "customer" => ObjectKind::Customer,
        "billing.meter" => ObjectKind::Meter,
        _ => ObjectKind::Other,
    };
    Subject { kind, id }
}

/// Whether this could be an id of Stripe's, or a type: nothing in it leads elsewhere in a path.
fn is_id(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(good) && !text.starts_with('.')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::fuzz::{config, damaged, damages};

    fn snapshot(kind: &str, object: &Value) -> Value {
        json!({
            "id": "evt_1", "object": "event", "type": kind, "created": 1_790_000_000, "livemode": false,
            "api_version": "2020-01-01", "data": { "object": object }, "pending_webhooks": 1,
        })
    }

    fn read(event: &Value) -> Option<Envelope> {
        Envelope::read(event.to_string().as_bytes())
    }

    fn subject(event: &Value) -> (ObjectKind, String) {
        let subject = read(event).expect("an event").subject;
        (subject.kind, subject.id)
    }

    #[test]
    fn an_event_names_the_object_to_ask_for() {
        let object =
            |kind: &str, id: &str| json!({ "object": kind, "id": id, "metadata": { "tenant": "x" } });
        for (kind, object, expected) in [
            ("invoice.paid", object("invoice", "in_1"), (ObjectKind::Invoice, "in_1")),
            (
                "customer.subscription.updated",
                object("subscription", "sub_1"),
                (ObjectKind::Subscription, "sub_1"),
            ),
            (
                "checkout.session.completed",
                object("checkout.session", "cs_1"),
                (ObjectKind::Checkout, "cs_1"),
            ),
            ("customer.deleted", object("customer", "cus_1"), (ObjectKind::Customer, "cus_1")),
            ("charge.refunded", object("charge", "ch_1"), (ObjectKind::Charge, "ch_1")),
            (
                "charge.dispute.created",
                json!({ "object": "dispute", "id": "dp_1", "charge": "ch_1" }),
                (ObjectKind::Charge, "ch_1"),
            ),
            (
                "refund.updated",
                json!({ "object": "refund", "id": "re_1", "charge": { "id": "ch_1", "object": "charge" } }),
                (ObjectKind::Charge, "ch_1"),
            ),
            (
                "credit_note.created",
                json!({ "object": "credit_note", "id": "cn_1", "invoice": "in_1" }),
                (ObjectKind::Invoice, "in_1"),
            ),
            (
                "refund.updated",
                json!({ "object": "refund", "id": "re_1", "charge": null }),
                (ObjectKind::Other, ""),
            ),
            ("price.created", object("price", "price_1"), (ObjectKind::Other, "price_1")),
            ("invoice.paid", object("invoice", "../charges"), (ObjectKind::Other, "")),
            ("invoice.upcoming", json!({ "object": "invoice" }), (ObjectKind::Other, "")),
        ] {
            assert_eq!(subject(&snapshot(kind, &object)), (expected.0, expected.1.to_owned()), "{kind}");
        }
    }

    #[test]
    fn thin_events_name_it_too() {
        let mut event = json!({
            "id": "evt_test_65", "object": "v2.core.event", "type": "v1.billing.meter.error_report_triggered",
            "created": "2026-09-17T06:20:52.246Z", "livemode": true, "context": null, "reason": null,
            "related_object": { "id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1" },
        });
        let read_event = read(&event).expect("an event");
        assert_eq!(read_event.created.to_string(), "2026-09-17T06:20:52.246000Z");
        assert!(read_event.livemode);
        assert_eq!(read_event.subject, Subject { kind: ObjectKind::Meter, id: "mtr_1".to_owned() });
        event["type"] = json!("v1.invoice.paid");
        event["related_object"] = json!({ "id": "in_1", "type": "invoice", "url": "/v1/invoices/in_1" });
        assert_eq!(subject(&event), (ObjectKind::Invoice, "in_1".to_owned()));
        event["type"] = json!("v1.billing.meter.no_meter_found");
        event["related_object"] = Value::Null;
        assert_eq!(subject(&event), (ObjectKind::Meter, String::new()));
    }

    #[test]
    fn what_lacks_a_field_is_no_event() {
        let good = snapshot("invoice.paid", &json!({ "object": "invoice", "id": "in_1" }));
        for field in ["id", "object", "type", "created", "livemode"] {
            let mut event = good.clone();
            event.as_object_mut().expect("an object").remove(field);
            assert_eq!(read(&event), None, "{field}");
            for wrong in [Value::Null, json!([]), json!(""), json!("a b/c")] {
                event[field] = wrong.clone();
                assert_eq!(read(&event), None, "{field} {wrong}");
            }
        }
        for body in ["", "{}", "[]", "null", "\"event\""] {
            assert_eq!(Envelope::read(body.as_bytes()), None, "{body}");
        }
    }

    proptest! {
        #![proptest_config(config(512))]

        #[test]
        fn fuzz_nothing_but_ids_comes_through(damage in damages(4)) {
            let event = snapshot("invoice.paid", &json!({ "object": "invoice", "id": "in_1", "charge": "ch_1" }));
            let body = damaged(event.to_string().as_bytes(), &damage);
            if let Some(read) = Envelope::read(&body) {
                prop_assert!(is_id(&read.id) && is_id(&read.kind));
                prop_assert!(read.subject.id.is_empty() || is_id(&read.subject.id));
            }
        }
    }
}
