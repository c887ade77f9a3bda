//! What Weir wants to hear of from Stripe, and where.

/// Path of the webhook endpoint, under `server.public_url`.
pub const PATH: &str = "/webhooks/stripe";

/// The types of events that the endpoint needs. <https://docs.stripe.com/api/events/types>
pub const EVENTS: [&str; 29] = [
    "charge.dispute.closed",
    "charge.dispute.created",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.updated",
    "charge.refunded",
    "charge.succeeded",
    "checkout.session.async_payment_failed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.completed",
    "checkout.session.expired",
    "credit_note.created",
    "customer.deleted",
    "customer.subscription.created",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.resumed",
    "customer.subscription.trial_will_end",
    "customer.subscription.updated",
    "customer.updated",
    "invoice.created",
    "invoice.finalization_failed",
    "invoice.finalized",
    "invoice.marked_uncollectible",
    "invoice.paid",
    "invoice.payment_action_required",
    "invoice.payment_failed",
    "invoice.updated",
    "invoice.voided",
    "refund.updated",
];

/// Types of thin events about usage that was accepted and could not be counted. They come where the account has an event
/// destination for them; the list of events does not have them. <https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage#handle-meter-event-errors>
pub const METER_ERRORS: [&str; 2] =
    ["v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found"];

/// Whether something is done about events of this type. Thin events have the names of the others behind `v1.`.
#[must_use]
pub fn is_followed(kind: &str) -> bool {
    METER_ERRORS.contains(&kind) || EVENTS.contains(&kind.strip_prefix("v1.").unwrap_or(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_both_kinds_are_followed_and_others_not() {
        assert!(EVENTS.is_sorted());
        for kind in ["invoice.paid", "v1.invoice.paid", METER_ERRORS[0], METER_ERRORS[1]] {
            assert!(is_followed(kind), "{kind}");
        }
        for kind in
            ["invoice.sent", "v1.v1.invoice.paid", "v2.invoice.paid", "billing.meter.created", "", "*"]
        {
            assert!(!is_followed(kind), "{kind}");
        }
    }
}
