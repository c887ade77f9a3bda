//! Money that goes back (docs.stripe.com/refunds).

use http::StatusCode;
use serde_json::{Value, json};

use super::super::api::{Done, create};
use super::super::look::{text, whole};
use super::super::refusal::Refusal;
use super::super::world::{Call, World};
use super::change;

/// Gives a charge back, all that is left of it or an amount of that. STANDIN-REFUND-1
///
/// # Errors
/// 400 where it was not paid, is disputed, or less is left than asked for; where there are too many objects.
pub fn refund(world: &mut World, call: &Call, id: &str, amount: Option<i64>, rest: (&Value, &Value)) -> Done {
    let charge = world.need("charge", id, "charge", StatusCode::NOT_FOUND)?.clone();
    let left = whole(&charge, "amount_captured") - whole(&charge, "amount_refunded");
    if charge["disputed"] == true {
        let message = format!("Charge {id} has been charged back; cannot issue a refund.");
        return Err(Refusal::conflict(Some("charge_disputed"), "charge", message));
    }
    if left <= 0 {
        let message = format!("Charge {id} has already been refunded.");
        return Err(Refusal::conflict(Some("charge_already_refunded"), "charge", message));
    }
    let amount = amount.unwrap_or(left);
    if amount <= 0 || amount > left {
        let message =
            format!("Refund amount ({amount}) is greater than unrefunded amount on charge ({left})");
        return Err(Refusal::conflict(None, "amount", message));
    }
    let (reason, metadata) = rest;
    let refund = json!({
        "amount": amount, "balance_transaction": null, "charge": id, "currency": charge["currency"], "customer": null,
        "customer_account": null,
        "destination_details": {
            "card": {
                "reference": null, "reference_status": "pending", "reference_type": "acquirer_reference_number",
                "type": "refund",
            },
            "type": "card",
        },
        "metadata": if metadata.is_object() { metadata.clone() } else { json!({}) },
        "payment_intent": charge["payment_intent"], "payment_method": null, "reason": reason,
        "receipt_number": null, "source_transfer_reversal": null, "status": "succeeded", "transfer_reversal": null,
    });
    let refund = create(world, call, "refund", "re", refund)?;
    change(world, call, ("charge", id), "charge.refunded", |charge| {
        let refunded = whole(charge, "amount_refunded") + amount;
        charge["amount_refunded"] = json!(refunded);
        charge["refunded"] = json!(refunded == whole(charge, "amount"));
        if let Some(refunds) = charge["refunds"]["data"].as_array_mut() {
            refunds.insert(0, refund.clone());
        }
    });
    Ok(refund)
}

/// The charge that paid a payment intent.
///
/// # Errors
/// 400 where there is no such intent, or it was not paid.
pub fn charge_of(world: &World, intent: &str) -> Result<String, Refusal> {
    let intent = world.need("payment_intent", intent, "payment_intent", StatusCode::BAD_REQUEST)?;
    if intent["status"] != "succeeded" {
        let message = format!(
            "This PaymentIntent ({}) does not have a successful charge to refund.",
            text(intent, "id")
        );
        return Err(Refusal::conflict(Some("payment_intent_unexpected_state"), "payment_intent", message));
    }
    Ok(text(intent, "latest_charge").to_owned())
}
