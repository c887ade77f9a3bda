//! How long Stripe leaves invoices open for late usage. The setting itself is not part of the API; what it did is.
//! <https://docs.stripe.com/billing/subscriptions/usage-based/configure-grace-period>

use std::collections::BTreeMap;

use miniserde::Deserialize;
use stripe_client::{RequestBuilder, StripeMethod};

use super::super::report::{Line, Verdict};
use super::super::stripe::{Key, Stripe};

/// How much later than planned Stripe may finalize without this being the setting, in seconds.
const LATE: i64 = 1800;
const HOUR: i64 = 3600;

/// As much of an invoice as is looked at.
#[derive(Deserialize)]
struct Invoice {
    id: Option<String>,
    billing_reason: Option<String>,
    created: i64,
    automatically_finalizes_at: Option<i64>,
    status_transitions: Option<Transitions>,
}

#[derive(Deserialize)]
struct Transitions {
    finalized_at: Option<i64>,
}

#[derive(Deserialize)]
struct Invoices {
    data: Vec<Invoice>,
}

/// Where the setting is.
const PLACE: &str = "in the dashboard: Settings, Billing, Invoices, Invoice finalization grace period";

/// `hours` is what is configured. Where no invoice can be read, somebody has to look; that the key may read them is looked at
/// elsewhere.
pub(super) async fn check(stripe: &Stripe, hours: u32) -> Line {
    let request =
        RequestBuilder::new(StripeMethod::Get, "/invoices").query(&BTreeMap::from([("limit", "100")]));
    let (verdict, text) = match stripe.send_raw::<Invoices>(request, Key::Fresh).await {
        Ok(invoices) => judge(&invoices.data, hours),
        Err(error) => {
            (Verdict::Look, format!("invoices do not show it ({error}); see that it is {hours} h {PLACE}"))
        }
    };
    Line::new(verdict, "finalization grace", text)
}

/// What the newest invoice of a cycle says; the newest come first.
fn judge(invoices: &[Invoice], hours: u32) -> (Verdict, String) {
    let cycles =
        invoices.iter().filter(|invoice| invoice.billing_reason.as_deref() == Some("subscription_cycle"));
    let spans = cycles.filter_map(|invoice| {
        let finalized = invoice.status_transitions.as_ref().and_then(|transitions| transitions.finalized_at);
        let end = invoice.automatically_finalizes_at.or(finalized)?;
        Some((invoice.id.as_deref().unwrap_or("an invoice"), end - invoice.created))
    });
    let wanted = i64::from(hours) * HOUR;
    match spans.into_iter().next() {
        None => {
            let text = format!(
                "no invoice of a subscription's cycle shows it yet; see that it is {hours} h {PLACE}"
            );
            (Verdict::Look, text)
        }
        Some((id, span)) if (wanted - 60..=wanted + LATE).contains(&span) => {
            (Verdict::There, format!("{hours} h, as {id} shows"))
        }
        Some((id, span)) => {
            let minutes = span / 60;
            let text = format!(
                "{id} was open for {minutes} minutes; set {hours} h {PLACE}, or billing.finalization_grace_hours"
            );
            (Verdict::Wrong, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invoices(text: &str) -> Vec<Invoice> {
        miniserde::json::from_str(text).expect("invoices")
    }

    #[test]
    fn the_newest_invoice_of_a_cycle_shows_the_setting() {
        let other =
            r#"{"id": "in_0", "billing_reason": "manual", "created": 0, "automatically_finalizes_at": 60}"#;
        let open = r#"{"id": "in_1", "billing_reason": "subscription_cycle", "created": 100, "automatically_finalizes_at": 3700}"#;
        let old = r#"{"id": "in_2", "billing_reason": "subscription_cycle", "created": 0, "automatically_finalizes_at": null,
            "status_transitions": {"finalized_at": 259300}}"#;
        for (list, hours, verdict) in [
            (vec![], 1, Verdict::Look),
            (vec![other], 1, Verdict::Look),
            (vec![other, open, old], 1, Verdict::There),
            (vec![open], 24, Verdict::Wrong),
            (vec![old], 72, Verdict::There),
            (vec![old], 1, Verdict::Wrong),
        ] {
            let found = judge(&invoices(&format!("[{}]", list.join(","))), hours);
            assert_eq!(found.0, verdict, "{list:?} {hours}: {}", found.1);
            assert!(verdict == Verdict::There || found.1.contains("Settings"), "{}", found.1);
        }
    }
}
