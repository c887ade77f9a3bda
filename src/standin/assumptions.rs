//! What the stand-in takes for granted about Stripe. Each has an id, which stands in a comment where the code relies on it.
//! None has been checked against Stripe itself yet.

/// One assumption.
pub struct Assumption {
    /// `STANDIN-...`.
    pub id: &'static str,
    /// What is taken for granted.
    pub what: &'static str,
    /// Where that comes from; where the page says less than the assumption, `what` says so.
    pub source: &'static str,
    /// Whether it was seen to hold against Stripe itself.
    pub verified_live: bool,
}

const fn assume(id: &'static str, what: &'static str, source: &'static str) -> Assumption {
    Assumption { id, what, source, verified_live: false }
}

/// All of them.
pub const ASSUMPTIONS: &[Assumption] = &[
    assume(
        "STANDIN-KEY-1",
        "A restricted key needs `<resource>_read` for GET and `<resource>_write` for the rest, and may read what it may \
         write. The names product, plan (prices), customer, webhook, event, billing_meter, billing_meter_event, customer_portal, \
         subscription, invoice, payment_method, payment_intent, charge (with refunds), dispute, credit_note and \
         checkout_session are in part guesses.",
        "docs.stripe.com/keys",
    ),
    assume(
        "STANDIN-KEY-2",
        "A permission that is missing gives 403 with type invalid_request_error, no code, and a message that names it.",
        "github.com/stripe/stripe-node/issues/2246",
    ),
    assume(
        "STANDIN-IDEM-1",
        "An answer is kept for its idempotency key once the endpoint began: 200, 500, and what the endpoint refused. \
         Parameters that are wrong in themselves, 401, 403, 404 for a path and 429 are not kept.",
        "docs.stripe.com/api/idempotent_requests",
    ),
    assume(
        "STANDIN-IDEM-2",
        "Keys are forgotten after exactly 24 hours; the page says at least.",
        "docs.stripe.com/api/idempotent_requests",
    ),
    assume(
        "STANDIN-IDEM-3",
        "A second request while the first with its key runs gets 409 with type idempotency_error and code \
         idempotency_key_in_use; the type is a guess.",
        "docs.stripe.com/error-codes",
    ),
    assume(
        "STANDIN-RETRY-1",
        "Stripe-Should-Retry is false on 400 to 404 and left out otherwise. Seen on a duplicate of a usage event only.",
        "github.com/langfuse/langfuse/pull/16292",
    ),
    assume(
        "STANDIN-RATE-1",
        "Too many requests give 429 with code rate_limit and without Retry-After, and nothing is carried out.",
        "docs.stripe.com/rate-limits",
    ),
    assume(
        "STANDIN-RATE-2",
        "Two usage events at once for one customer and meter: the second gets 429 and is not carried out. The code \
         lock_timeout is a guess.",
        "docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api",
    ),
    assume(
        "STANDIN-USAGE-1",
        "An identifier is taken, over all meters, for exactly 24 hours from when its event was accepted, also where the \
         event is dropped later; the page says at least 24 hours. A duplicate gets 400 with the message `An event already \
         exists with identifier X.`, type invalid_request_error and no code.",
        "docs.stripe.com/api/billing/meter-event/create, github.com/langfuse/langfuse/pull/16292",
    ),
    assume(
        "STANDIN-USAGE-2",
        "Usage older than 35 days of 24 hours or more than 5 minutes ahead is refused with 400 at once. The codes are \
         those of Stripe's reports on events that it could not process.",
        "docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api",
    ),
    assume(
        "STANDIN-USAGE-3",
        "A value that is no whole number is refused with 400 at once; a negative one is taken.",
        "docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api",
    ),
    assume(
        "STANDIN-USAGE-4",
        "An event of an unknown or inactive meter, of an unknown or deleted customer, or without customer or value is \
         accepted with 200 and never counts. Stripe reports such events later; the stand-in does not.",
        "docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api",
    ),
    assume(
        "STANDIN-USAGE-5",
        "An event shows in summaries a fixed time after it was accepted, at once where none is set; no page names a time.",
        "docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api",
    ),
    assume(
        "STANDIN-SUMMARY-1",
        "Summaries are over [start, end) by the events' own time, the newest window first, and there is none for a window \
         without events. Bounds lie on minutes, or on hours or days of UTC where grouped by them.",
        "docs.stripe.com/api/billing/meter-event-summary/list",
    ),
    assume(
        "STANDIN-METER-1",
        "One active meter per event_name; a second is refused with 400. The code is a guess.",
        "docs.stripe.com/api/billing/meter/create",
    ),
    assume(
        "STANDIN-PRICE-1",
        "A metered price needs an active meter, and no other price may have one.",
        "docs.stripe.com/changelog/basil/2025-03-31/deprecate-legacy-usage-based-billing",
    ),
    assume(
        "STANDIN-PRICE-2",
        "A price has unit_amount or unit_amount_decimal and tells both; unit_amount is null where it is not whole, and a \
         decimal is told without zeros at its end.",
        "docs.stripe.com/api/prices/object",
    ),
    assume(
        "STANDIN-PRICE-3",
        "A lookup key belongs to one price, active or not. Another gets it only with transfer_lookup_key; else 400.",
        "docs.stripe.com/products-prices/manage-prices",
    ),
    assume(
        "STANDIN-PORTAL-1",
        "An account has no default configuration of the portal until somebody makes one in the Dashboard, and sessions \
         need one. Configurations always tell their products here; Stripe does so on request.",
        "docs.stripe.com/customer-management/integrate-customer-portal",
    ),
    assume(
        "STANDIN-PORTAL-2",
        "Plan changes in the portal need products, prices that are theirs, and default_allowed_updates.",
        "docs.stripe.com/api/customer_portal/configurations/create",
    ),
    assume(
        "STANDIN-PORTAL-3",
        "Who cancels in the portal at the end of a period sets cancel_at to that time and leaves cancel_at_period_end false. \
         No page says so of billing mode flexible in these words.",
        "docs.stripe.com/billing/subscriptions/billing-mode/compare",
    ),
    assume(
        "STANDIN-CARD-1",
        "A test card becomes a payment method of its own when it is attached. Those that are documented as declined cannot be \
         attached at all, with 402; 4000000000000341 can, and pays nothing. Its fingerprint here says which card it is.",
        "docs.stripe.com/testing",
    ),
    assume(
        "STANDIN-SUB-1",
        "Subscriptions are of billing mode flexible, the default of this version of the API. The first invoice is final at \
         once; it has no line for usage, and without lines there is none, as with an anchor and proration_behavior none. All \
         items of a subscription have one interval here; Stripe takes several.",
        "docs.stripe.com/billing/subscriptions/billing-mode/compare",
    ),
    assume(
        "STANDIN-SUB-2",
        "A subscription whose first payment fails is incomplete, and is not tried again by itself. After exactly 23 hours it \
         is incomplete_expired, and the invoice void. Without any card and with something to pay there is none: 400.",
        "docs.stripe.com/billing/subscriptions/overview",
    ),
    assume(
        "STANDIN-SUB-3",
        "A subscription that ends leaves its open invoices open, with auto_advance off. At the end of a period its usage is \
         billed on a last invoice; when it is cancelled at once, only with invoice_now, after the usual grace.",
        "docs.stripe.com/billing/subscriptions/cancel",
    ),
    assume(
        "STANDIN-CANCEL-1",
        "cancel_at ends a subscription at that time, which an empty value takes back; cancel_at_period_end=false does not. Both at \
         once are refused with 400. Usage until then is billed, and nothing of the period is given back here; Stripe may \
         shorten the period.",
        "docs.stripe.com/api/subscriptions/update",
    ),
    assume(
        "STANDIN-TRIAL-1",
        "Usage in a trial is never billed. The page says so of fees, not of meters.",
        "docs.stripe.com/billing/subscriptions/trials",
    ),
    assume(
        "STANDIN-PRORATE-1",
        "Parts of a period are worked out to the second and rounded half away from zero. A credit is a part of what was last \
         billed for the item and the time, a charge a part of the full price over the whole cycle that ends with the period. \
         Nothing is credited for what was free.",
        "docs.stripe.com/billing/subscriptions/prorations",
    ),
    assume(
        "STANDIN-PRORATE-2",
        "When a metered item goes or changes its price, its usage so far waits as an invoice item at the old price, and only \
         later usage, by its own time, is billed at the new one. The page goes by when usage was reported.",
        "docs.stripe.com/billing/subscriptions/billing-mode/compare",
    ),
    assume(
        "STANDIN-INVOICE-1",
        "The invoice at a period's end stays a draft for exactly the account's grace, an hour where nothing is set and 72 at \
         most, and counts the usage of its period that was accepted by then, whether summaries show it yet or not. Usage \
         that comes later is never billed. Payment is tried at once then.",
        "docs.stripe.com/billing/subscriptions/usage-based/how-it-works, docs.stripe.com/invoicing/scheduled-finalization",
    ),
    assume(
        "STANDIN-INVOICE-2",
        "A line is quantity times the price per unit, exactly, rounded half up to the smallest unit of currency.",
        "docs.stripe.com/products-prices/pricing-models",
    ),
    assume(
        "STANDIN-INVOICE-3",
        "Usage below zero bills a quantity of 0. An invoice below zero has an amount due of 0, and the rest goes to the \
         customer's balance.",
        "docs.stripe.com/billing/customer/balance",
    ),
    assume(
        "STANDIN-INVOICE-4",
        "At a period's end there is a line for usage also where it is 0, after what waited, in the order of the items.",
        "docs.stripe.com/billing/subscriptions/billing-mode/compare",
    ),
    assume(
        "STANDIN-INVOICE-5",
        "An amount due of less than 50 is not charged: the invoice is paid, and the amount is owed on the customer's balance. \
         Stripe has a smallest amount per currency; here it is 50 in all.",
        "docs.stripe.com/currencies, docs.stripe.com/billing/customer/balance",
    ),
    assume(
        "STANDIN-INVOICE-6",
        "An invoice includes its first ten lines and says has_more; all are listed at /lines.",
        "docs.stripe.com/api/invoice-line-item/retrieve",
    ),
    assume(
        "STANDIN-PREVIEW-2",
        "The lines of a preview are listed by its id, page after page, for a while. No page says so since previews have ids.",
        "docs.stripe.com/api/invoice-line-item/retrieve",
    ),
    assume(
        "STANDIN-PREVIEW-1",
        "The preview bills the usage that summaries show by then, and what a change would bring; with always_invoice only \
         that.",
        "docs.stripe.com/api/invoices/create_preview",
    ),
    assume(
        "STANDIN-DUNNING-1",
        "A payment that failed is tried again 1, 3, 5 and 7 days after the invoice became final, or as set; then the \
         subscription is unpaid, past_due or cancelled, as set. Stripe's own times are its secret, or set in the Dashboard.",
        "docs.stripe.com/billing/revenue-recovery/smart-retries",
    ),
    assume(
        "STANDIN-DUNNING-2",
        "A subscription is active again when its latest final invoice is paid, whatever became of earlier ones. Invoices of \
         an unpaid one stay drafts.",
        "docs.stripe.com/billing/subscriptions/overview",
    ),
    assume(
        "STANDIN-TAX-1",
        "With automatic_tax there is one rate, which is set, on every line and on top of it. Checkout refuses it for a \
         customer without a country, unless customer_update[address] is auto.",
        "docs.stripe.com/tax/checkout",
    ),
    assume(
        "STANDIN-CHECKOUT-1",
        "A session is open for 24 hours where nothing is said. The anchor is at most one interval ahead; where it goes by \
         while the session is open, a whole period from it is billed. A trial ends 48 hours ahead at least.",
        "docs.stripe.com/payments/checkout/billing-cycle, docs.stripe.com/api/checkout/sessions/create",
    ),
    assume(
        "STANDIN-CHECKOUT-2",
        "A card that is declined leaves the session open. In mode payment the payment intent comes with the first attempt \
         and is the same for the next; in mode subscription nothing is made before the payment goes well. The card \
         becomes the subscription's default, not the customer's.",
        "docs.stripe.com/payments/checkout/how-checkout-works",
    ),
    assume(
        "STANDIN-REFUND-1",
        "A refund succeeds at once, up to what is left of the charge; a charge that is or was disputed cannot be refunded.",
        "docs.stripe.com/refunds",
    ),
    assume(
        "STANDIN-CREDIT-1",
        "A credit note first takes off what is still to pay, and the rest must be split exactly into credit, refund and \
         elsewhere; all notes together come to the invoice's total at most. Nothing left to pay makes the invoice paid. \
         Tax is not split here.",
        "docs.stripe.com/api/credit_notes/create",
    ),
    assume(
        "STANDIN-DISPUTE-1",
        "A dispute needs a response for 21 days and stays open until it is closed by hand. The money is gone at once and \
         comes back when it is won.",
        "docs.stripe.com/disputes/how-disputes-work",
    ),
    assume(
        "STANDIN-HOOK-1",
        "Signatures carry the time of the wall, not that of a test clock, and one v1 per secret while a secret is rolled.",
        "docs.stripe.com/webhooks",
    ),
    assume(
        "STANDIN-HOOK-2",
        "A delivery that fails is tried again with growing pauses over three days. The pauses are made up. Redirects are \
         failures.",
        "docs.stripe.com/webhooks",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Ids in the sources beside this file.
    fn in_code(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).expect("the sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                in_code(&path, found);
            } else if !path.ends_with("assumptions.rs") {
                let text = std::fs::read_to_string(&path).expect("a source");
                for part in text.split("STANDIN-").skip(1) {
                    let id: String =
                        part.chars().take_while(|c| c.is_ascii_uppercase() || *c == '-').collect();
                    let number: String = part[id.len()..].chars().take_while(char::is_ascii_digit).collect();
                    found.insert(format!("STANDIN-{id}{number}"));
                }
            }
        }
    }

    #[test]
    fn every_assumption_stands_in_the_code_and_in_the_list() {
        let mut found = BTreeSet::new();
        in_code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/standin"), &mut found);
        let listed: BTreeSet<_> = ASSUMPTIONS.iter().map(|one| one.id.to_owned()).collect();
        assert_eq!(found, listed);
        assert_eq!(listed.len(), ASSUMPTIONS.len(), "an id stands for one thing");
    }
}
