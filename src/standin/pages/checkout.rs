//! The page of a Checkout session.

use http::StatusCode;
use serde_json::Value;

use super::super::answer::Answer;
use super::super::look::{listed, text, whole};
use super::super::{Shared, checkout};
use super::{amount, card_fields, cards, escape, gone, page, see_other, sent, unit_price};

/// The page, or what its buttons do: pay, then on to `success_url`; or back to `cancel_url`.
pub fn answer(shared: &Shared, id: &str, asked: Option<&Value>) -> Answer {
    let Some(session) = shared.world().live(checkout::KIND, id).cloned() else {
        return gone("There is no such Checkout session.");
    };
    if session["status"] == "complete" {
        // Whoever comes back sees where it led.
        return see_other(&success_url(&session));
    }
    if session["status"] != "open" {
        return gone("This Checkout session is over. Go back and begin again.");
    }
    match sent(asked, "card") {
        Some(card) => match shared.act(|world| checkout::complete(world, id, card)) {
            Ok(session) => see_other(&success_url(&session)),
            Err(refusal) => show(shared, &session, Some(refusal.message())),
        },
        None => show(shared, &session, None),
    }
}

/// With the session's id in its place.
fn success_url(session: &Value) -> String {
    text(session, "success_url").replace("{CHECKOUT_SESSION_ID}", text(session, "id"))
}

fn show(shared: &Shared, session: &Value, wrong: Option<&str>) -> Answer {
    let currency = &session["currency"];
    let rows: String = listed(session, "line_items")
        .iter()
        .map(|line| {
            let metered = line["price"]["recurring"]["usage_type"] == "metered";
            let quantity =
                line["quantity"].as_i64().map_or(String::new(), |quantity| format!(" × {quantity}"));
            let sum = if metered {
                format!("{} for each, as used", unit_price(&line["price"]))
            } else {
                amount(whole(line, "amount_total"), currency)
            };
            format!(
                "<tr><td>{}{quantity}</td><td>{}</td></tr>",
                escape(text(line, "description")),
                escape(&sum)
            )
        })
        .collect();
    let total = amount(whole(session, "amount_total"), currency);
    let customer = shared.world().live("customer", text(session, "customer")).cloned().unwrap_or_default();
    let who = customer["name"].as_str().or(customer["email"].as_str()).unwrap_or_default();
    let is_subscription = session["mode"] == "subscription";
    let (title, button) = if is_subscription {
        ("Subscribe", format!("Subscribe, and pay {total} now"))
    } else {
        ("Pay", format!("Pay {total}"))
    };
    let back = session["cancel_url"].as_str().map_or(String::new(), |url| {
        format!("<p><a href=\"{}\">Go back without paying</a></p>", escape(url))
    });
    let body = format!(
        "<p>{}</p><table>{rows}<tr><th>To pay now</th><th>{}</th></tr></table><form method=\"post\">{}</form>{back}{}",
        escape(who),
        escape(&total),
        card_fields(&button, wrong),
        cards(),
    );
    let status = if wrong.is_some() { StatusCode::PAYMENT_REQUIRED } else { StatusCode::OK };
    page(status, title, &body)
}
