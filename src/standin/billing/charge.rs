//! Payment intents and the charges that come of them (docs.stripe.com/api/payment_intents, /api/charges).

use serde_json::{Value, json};

use super::super::api::Done;
use super::super::cards::{Card, Conduct, Decline, NO_CARD};
use super::super::deliveries::tell;
use super::super::look::{text, whole};
use super::super::refusal::Refusal;
use super::super::world::{Call, World};
use super::{change, dispute, list_of};

/// Makes a payment intent that waits for a payment method.
///
/// # Errors
/// Where there are too many objects.
pub fn intend(
    world: &mut World,
    call: &Call,
    customer: &Value,
    sum: (i64, &Value),
    rest: (&Value, &Value),
) -> Done {
    let id = world.ids.next("pi");
    let (metadata, description) = rest;
    let intent = json!({
        "id": id, "amount": sum.0, "amount_capturable": 0, "amount_details": { "tip": {} }, "amount_received": 0,
        "application": null, "application_fee_amount": null, "automatic_payment_methods": null, "canceled_at": null,
        "cancellation_reason": null, "capture_method": "automatic", "client_secret": format!("{id}_secret_standin"),
        "confirmation_method": "automatic", "currency": sum.1, "customer": customer, "customer_account": null,
        "description": description, "excluded_payment_method_types": null, "last_payment_error": null,
        "latest_charge": null, "metadata": metadata, "next_action": null, "on_behalf_of": null,
        "payment_method": null, "payment_method_configuration_details": null, "payment_method_options": {},
        "payment_method_types": ["card"], "processing": null, "receipt_email": null, "review": null,
        "setup_future_usage": null, "shipping": null, "source": null, "statement_descriptor": null,
        "statement_descriptor_suffix": null, "status": "requires_payment_method", "transfer_data": null,
        "transfer_group": null,
    });
    let intent = world.create("payment_intent", "pi", intent)?;
    tell(world, call, "payment_intent.created", &intent, None);
    Ok(intent)
}

/// Charges a payment method for an intent. The charge, whether it went well or not, stays behind.
///
/// # Errors
/// Why the card was declined, or that there is none; and in the outer result, that there are too many objects.
pub fn charge(
    world: &mut World,
    call: &Call,
    intent: &str,
    method: Option<&str>,
) -> Result<Result<Value, Decline>, Refusal> {
    let found = method.and_then(|method| world.live("payment_method", method)).cloned();
    let Some((method, card)) = found.and_then(|method| Card::of(&method).map(|card| (method, card))) else {
        return Ok(Err(NO_CARD));
    };
    let Some(before) = world.live("payment_intent", intent).cloned() else { return Ok(Err(NO_CARD)) };
    let decline = card.decline();
    let charge = object(world, &before, &method, card);
    let charge = world.create("charge", "ch", charge)?;
    let event = if decline.is_some() { "charge.failed" } else { "charge.succeeded" };
    tell(world, call, event, &charge, None);
    let event = if decline.is_some() { "payment_intent.payment_failed" } else { "payment_intent.succeeded" };
    change(world, call, ("payment_intent", intent), event, |intent| {
        intent["latest_charge"] = charge["id"].clone();
        if let Some(decline) = decline {
            intent["last_payment_error"] = json!({
                "charge": charge["id"], "code": decline.code, "decline_code": decline.reason,
                "message": decline.message, "payment_method": method, "type": "card_error",
            });
            intent["payment_method"] = Value::Null;
        } else {
            intent["status"] = json!("succeeded");
            intent["amount_received"] = intent["amount"].clone();
            intent["last_payment_error"] = Value::Null;
            intent["payment_method"] = method["id"].clone();
        }
    });
    if let Conduct::Disputes(reason) = card.conduct {
        dispute::open(world, call, text(&charge, "id"), (None, reason))?;
    }
    Ok(decline.map_or(Ok(charge), Err))
}

fn object(world: &mut World, intent: &Value, method: &Value, card: &Card) -> Value {
    let decline = card.decline();
    let id = world.ids.next("ch");
    let amount = whole(intent, "amount");
    let outcome = json!({
        "advice_code": null, "network_advice_code": null, "network_decline_code": null,
        "network_status": if decline.is_some() { "declined_by_network" } else { "approved_by_network" },
        "reason": decline.and_then(|decline| decline.reason), "risk_level": "normal", "risk_score": 20,
        "seller_message": decline.map_or("Payment complete.", |decline| decline.message),
        "type": if decline.is_some() { "issuer_declined" } else { "authorized" },
    });
    json!({
        "id": id, "amount": amount, "amount_captured": if decline.is_some() { 0 } else { amount },
        "amount_refunded": 0, "application": null, "application_fee": null, "application_fee_amount": null,
        "balance_transaction": null, "billing_details": method["billing_details"],
        "calculated_statement_descriptor": "WEIR STANDIN", "captured": decline.is_none(),
        "currency": intent["currency"], "customer": intent["customer"], "description": intent["description"],
        "disputed": false, "failure_balance_transaction": null, "failure_code": decline.map(|decline| decline.code),
        "failure_message": decline.map(|decline| decline.message), "fraud_details": {},
        "metadata": intent["metadata"], "on_behalf_of": null, "outcome": outcome, "paid": decline.is_none(),
        "payment_intent": intent["id"], "payment_method": method["id"], "payment_method_details": card.details(),
        "receipt_email": null, "receipt_number": null, "receipt_url": null, "refunded": false,
        "refunds": list_of(&[], &format!("/v1/charges/{id}/refunds")), "review": null, "shipping": null,
        "source": null, "source_transfer": null, "statement_descriptor": null, "statement_descriptor_suffix": null,
        "status": if decline.is_some() { "failed" } else { "succeeded" }, "transfer_data": null,
        "transfer_group": null,
    })
}
