//! Payments that their owners' banks take back (docs.stripe.com/disputes/how-disputes-work).

use http::StatusCode;
use serde_json::{Value, json};

use super::super::api::{Done, changed};
use super::super::deliveries::tell;
use super::super::look::{text, whole};
use super::super::refusal::Refusal;
use super::super::world::{Call, World};
use super::change;

/// The objects' kind.
pub const KIND: &str = "dispute";
/// Seconds in which it can be answered. STANDIN-DISPUTE-1
const ANSWERED_IN: i64 = 21 * 24 * 3600;
/// Reasons that there are (docs.stripe.com/api/disputes/object).
const REASONS: &[&str] = &[
    "credit_not_processed",
    "duplicate",
    "fraudulent",
    "general",
    "product_not_received",
    "product_unacceptable",
    "subscription_canceled",
    "unrecognized",
];

/// Opens a dispute over a charge: the money is gone until it is won. STANDIN-DISPUTE-1
///
/// # Errors
/// 400 where the charge was not paid, was given back, or is disputed already.
pub fn open(world: &mut World, call: &Call, id: &str, what: (Option<i64>, &str)) -> Done {
    let charge = world.need("charge", id, "charge", StatusCode::NOT_FOUND)?.clone();
    let left = whole(&charge, "amount_captured") - whole(&charge, "amount_refunded");
    let (amount, reason) = (what.0.unwrap_or(left), what.1);
    if !REASONS.contains(&reason) {
        return Err(Refusal::conflict(None, "reason", format!("reason: one of {}", REASONS.join(", "))));
    }
    if charge["disputed"] == true || amount <= 0 || amount > left {
        let message = format!("Of the charge {id}, {amount} cannot be disputed.");
        return Err(Refusal::conflict(None, "charge", message));
    }
    let evidence = [
        "access_activity_log",
        "billing_address",
        "cancellation_policy",
        "cancellation_policy_disclosure",
        "cancellation_rebuttal",
        "customer_communication",
        "customer_email_address",
        "customer_name",
        "customer_purchase_ip",
        "customer_signature",
        "duplicate_charge_documentation",
        "duplicate_charge_explanation",
        "duplicate_charge_id",
        "product_description",
        "receipt",
        "refund_policy",
        "refund_policy_disclosure",
        "refund_refusal_explanation",
        "service_date",
        "service_documentation",
        "shipping_address",
        "shipping_carrier",
        "shipping_date",
        "shipping_documentation",
        "shipping_tracking_number",
        "uncategorized_file",
        "uncategorized_text",
    ];
    let mut evidence: Value = evidence.into_iter().map(|name| (name.to_owned(), Value::Null)).collect();
    evidence["enhanced_evidence"] = json!({});
    let due_by = world.now() + ANSWERED_IN;
    let dispute = json!({
        "amount": amount, "balance_transactions": [], "charge": id, "currency": charge["currency"],
        "enhanced_eligibility_types": [], "evidence": evidence,
        "evidence_details": {
            "due_by": due_by, "enhanced_eligibility": {}, "has_evidence": false, "past_due": false,
            "submission_count": 0,
        },
        "is_charge_refundable": false, "metadata": {}, "payment_intent": charge["payment_intent"],
        "payment_method_details": {
            "card": { "brand": charge["payment_method_details"]["card"]["brand"], "case_type": "chargeback",
                "network": charge["payment_method_details"]["card"]["network"],
                "network_reason_code": null },
            "type": "card",
        },
        "reason": reason, "status": "needs_response",
    });
    let dispute = world.create(KIND, "du", dispute)?;
    let mut after = charge.clone();
    after["disputed"] = json!(true);
    world.replace("charge", &after);
    changed(world, call, "charge.updated", &charge, &after);
    tell(world, call, "charge.dispute.created", &dispute, None);
    tell(world, call, "charge.dispute.funds_withdrawn", &dispute, None);
    Ok(dispute)
}

/// Closes it: won, the money is back; lost, it is gone.
///
/// # Errors
/// 404 where there is none, 400 where it is closed.
pub fn close(world: &mut World, call: &Call, id: &str, won: bool) -> Done {
    let dispute = world.need(KIND, id, "dispute", StatusCode::NOT_FOUND)?;
    if matches!(text(dispute, "status"), "won" | "lost") {
        return Err(Refusal::conflict(None, "dispute", "This dispute is already closed."));
    }
    let after = change(world, call, (KIND, id), "charge.dispute.closed", |dispute| {
        dispute["status"] = json!(if won { "won" } else { "lost" });
        dispute["is_charge_refundable"] = json!(won);
    });
    if won {
        tell(world, call, "charge.dispute.funds_reinstated", &after, None);
    }
    Ok(after)
}
