//! Whether the key may do each thing that Weir does. <https://docs.stripe.com/keys/restricted-api-keys>
//!
//! Stripe shows nobody what a key may do; it says so when asked to do it. So each thing is asked for in a way that cannot
//! succeed: for an object that cannot exist, or without what it needs. A key that may not gets 403, and Stripe's words name
//! the permission; one that may gets 400 or 404. That the permission is looked at first is an assumption (not verified live).

use std::collections::BTreeMap;

use miniserde::Deserialize;
use stripe_client::{RequestBuilder, StripeMethod};

use super::super::report::{Line, Verdict};
use super::super::stripe::{Key, Stripe, StripeError};

/// No object has this id: Stripe's have no underscore there.
const NOTHING: &str = "weir_doctor_asks_for_nothing";

/// A thing that Weir does, and a request that would be that thing, were there something to do it to.
struct Need {
    what: &'static str,
    method: StripeMethod,
    /// `{}` stands for [`NOTHING`].
    path: &'static str,
    /// Fields and values; `{}` stands for [`NOTHING`].
    fields: &'static [(&'static str, &'static str)],
}

const fn read(what: &'static str, path: &'static str) -> Need {
    Need { what, method: StripeMethod::Get, path, fields: &[("limit", "1")] }
}

const fn write(what: &'static str, path: &'static str) -> Need {
    Need { what, method: StripeMethod::Post, path, fields: &[] }
}

const NEEDS: [Need; 19] = [
    read("read meters", "/billing/meters"),
    write("write meters", "/billing/meters/{}"),
    // Without the name of an event it is none.
    write("send meter events", "/billing/meter_events"),
    write("write products", "/products/{}"),
    write("write prices", "/prices/{}"),
    write("write the portal's configuration", "/billing_portal/configurations/{}"),
    Need {
        what: "open the portal",
        method: StripeMethod::Post,
        path: "/billing_portal/sessions",
        fields: &[("customer", "{}")],
    },
    write("write customers", "/customers/{}"),
    write("write checkout sessions", "/checkout/sessions/{}"),
    write("write subscriptions", "/subscriptions/{}"),
    read("read invoices", "/invoices"),
    read("read payments of invoices", "/invoice_payments"),
    write("write invoices", "/invoices/{}"),
    read("read charges", "/charges"),
    read("read disputes", "/disputes"),
    write("write refunds", "/refunds/{}"),
    write("write credit notes", "/credit_notes/{}"),
    read("read events", "/events"),
    read("read webhook endpoints", "/webhook_endpoints"),
];

/// Whatever the answer is.
#[derive(Deserialize)]
struct Anything {}

/// One line where all is well; otherwise one for each thing that is not.
pub(super) async fn check(stripe: &Stripe) -> Vec<Line> {
    let mut lines = Vec::new();
    for need in &NEEDS {
        if let Err(error) = ask(stripe, need).await
            && !is_allowed(&error)
        {
            lines.push(Line::new(Verdict::Wrong, "permission", format!("to {}: {error}", need.what)));
        }
    }
    if lines.is_empty() {
        let text = format!("to do all {} things that Weir does", NEEDS.len());
        lines.push(Line::new(Verdict::There, "permission", text));
    }
    lines
}

async fn ask(stripe: &Stripe, need: &Need) -> Result<Anything, StripeError> {
    let request = RequestBuilder::new(need.method, need.path.replace("{}", NOTHING));
    let fields: BTreeMap<_, _> =
        need.fields.iter().map(|(name, value)| (*name, value.replace("{}", NOTHING))).collect();
    let request = match need.method {
        // What is made of no fields is not nothing, but a field without a name.
        _ if fields.is_empty() => request,
        StripeMethod::Get => request.query(&fields),
        _ => request.form(&fields),
    };
    stripe.send_raw(request, Key::Fresh).await
}

/// Stripe looked at what was asked for, and so had nothing against who asks.
fn is_allowed(error: &StripeError) -> bool {
    error.said.is_some() && matches!(error.status, Some(400 | 404))
}
