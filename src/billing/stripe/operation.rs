//! What an operation is called in errors, logs and metrics: its method and its path without ids.

use std::fmt;
use std::sync::Arc;

use stripe_client::{RequestBuilder, StripeMethod};

/// The words of paths that name no object. Everything else is an id, and would make a series of its own.
const WORDS: [&str; 41] = [
    "account",
    "adjustments",
    "advance",
    "balance",
    "billing",
    "billing_portal",
    "cancel",
    "charges",
    "checkout",
    "configurations",
    "create_preview",
    "credit_notes",
    "customers",
    "deactivate",
    "disputes",
    "event_summaries",
    "events",
    "expire",
    "finalize",
    "invoice_payments",
    "invoiceitems",
    "invoices",
    "line_items",
    "lines",
    "meter_event_adjustments",
    "meter_events",
    "meters",
    "pay",
    "payment_intents",
    "payment_methods",
    "prices",
    "products",
    "reactivate",
    "refunds",
    "search",
    "sessions",
    "subscription_items",
    "subscriptions",
    "test_clocks",
    "test_helpers",
    "webhook_endpoints",
];

/// Such as `POST /products/{id}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Operation(Arc<str>);

impl Operation {
    pub(super) fn of(request: &RequestBuilder) -> Self {
        let mut text = method(request.method).to_string();
        text.push(' ');
        for part in request.path.split('/').filter(|part| !part.is_empty()) {
            text.push('/');
            text.push_str(if WORDS.contains(&part) { part } else { "{id}" });
        }
        Self(text.into())
    }

    /// For what does not know what was asked.
    pub(super) fn unnamed() -> Self {
        Self("Stripe".into())
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn method(method: StripeMethod) -> http::Method {
    match method {
        StripeMethod::Get => http::Method::GET,
        StripeMethod::Post => http::Method::POST,
        StripeMethod::Delete => http::Method::DELETE,
    }
}

/// Whether a path has only what Stripe's paths have, so that no id can lead elsewhere.
pub(super) fn is_plain(path: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "/_-.:".contains(c);
    path.starts_with('/') && path.chars().all(good) && !path.split('/').any(|part| matches!(part, "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_left_out() {
        let name = |method, path: &str| Operation::of(&RequestBuilder::new(method, path)).to_string();
        assert_eq!(name(StripeMethod::Get, "/billing/meters"), "GET /billing/meters");
        assert_eq!(name(StripeMethod::Post, "/customers/cus_123"), "POST /customers/{id}");
        assert_eq!(
            name(StripeMethod::Get, "/billing/meters/mtr_1/event_summaries"),
            "GET /billing/meters/{id}/event_summaries"
        );
        assert_eq!(name(StripeMethod::Delete, "/products/weir_credits"), "DELETE /products/{id}");
        assert!(WORDS.is_sorted());
    }

    /// `make stripe-requests` sees to it that the list is complete.
    #[test]
    fn every_operation_of_weirs_has_its_name() {
        let all = include_str!("../../../tests/stripe/operations.txt");
        for line in all.lines().filter(|line| !line.starts_with('#')) {
            let (method, path) = line.split_once(" /v1").expect("a method and a path");
            let method = match method {
                "GET" => StripeMethod::Get,
                "POST" => StripeMethod::Post,
                _ => StripeMethod::Delete,
            };
            let request = RequestBuilder::new(method, path.replace("{id}", "an_id"));
            assert_eq!(Operation::of(&request).to_string(), line.replace("/v1", ""));
        }
    }

    #[test]
    fn no_id_leads_elsewhere() {
        for good in ["/products/a-b_c.d:e", "/billing/meters"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in ["/products/..", "/a/../b", "/a?b", "/a#b", "/a%2e", "products", "/a b", "/\u{e4}", ""] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
