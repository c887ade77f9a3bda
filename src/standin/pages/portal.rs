//! The page of the customer portal: what its configuration lets a customer do.

use http::StatusCode;
use serde_json::{Value, json};

use super::super::answer::Answer;
use super::super::api::change_subscription;
use super::super::billing::period;
use super::super::checkout::set_card;
use super::super::look::{listed, text, whole};
use super::super::refusal::Refusal;
use super::super::shelf::Shelf;
use super::super::world::{Call, World};
use super::super::{Shared, billing};
use super::{amount, card_fields, cards, day, escape, gone, page, see_other, sent, unit_price};

/// The page, or what its buttons do: cancel at the end of the period, or not after all; another card. It names the time at which the
/// subscription ends, and leaves `cancel_at_period_end` as it is. STANDIN-PORTAL-3
pub fn answer(shared: &Shared, id: &str, asked: Option<&Value>) -> Answer {
    let Some(session) = shared.world().live("billing_portal.session", id).cloned() else {
        return gone("There is no such session of the customer portal.");
    };
    let Some(action) = sent(asked, "do") else { return show(&shared.world(), &session, None) };
    let done = shared.act(|world| act(world, &session, action, asked).map(|()| Value::Null));
    match done {
        Ok(_) => see_other(&format!("/_standin/portal/{id}")),
        Err(refusal) => show(&shared.world(), &session, Some(refusal.message())),
    }
}

/// Whether the session's configuration has a feature on.
fn allows(world: &World, session: &Value, feature: &str) -> bool {
    let configuration = world.live("billing_portal.configuration", text(session, "configuration"));
    configuration.is_some_and(|configuration| configuration["features"][feature]["enabled"] == true)
}

fn act(world: &mut World, session: &Value, action: &str, asked: Option<&Value>) -> Result<(), Refusal> {
    let customer = text(session, "customer").to_owned();
    let no = || Refusal::plain(StatusCode::FORBIDDEN, "The portal is not set up for that.");
    match action {
        "pay" => {
            if !allows(world, session, "payment_method_update") {
                return Err(no());
            }
            set_card(world, &customer, sent(asked, "card").unwrap_or_default())?;
        }
        "cancel" | "resume" => {
            let id = sent(asked, "subscription").unwrap_or_default();
            let subscription = world.need(billing::start::KIND, id, "subscription", StatusCode::NOT_FOUND)?;
            if subscription["customer"] != customer || !allows(world, session, "subscription_cancel") {
                return Err(no());
            }
            let end = if action == "cancel" { json!(period(subscription).1) } else { Value::Null };
            let params = json!({ "cancel_at": end });
            let call = Call {
                ids: vec![("subscription", id.to_owned())],
                params: params.as_object().cloned().unwrap_or_default(),
                ..Call::nobodys()
            };
            change_subscription(world, &call)?;
        }
        _ => return Err(no()),
    }
    Ok(())
}

fn show(world: &World, session: &Value, wrong: Option<&str>) -> Answer {
    let customer = text(session, "customer");
    let of = |kind: &'static str| {
        let all = world.shelf(kind).into_iter().flat_map(Shelf::newest_first);
        all.filter(|one| one["customer"] == customer)
    };
    let cancels = allows(world, session, "subscription_cancel");
    let subscriptions: String = of(billing::start::KIND)
        .filter(|one| one["ended_at"].is_null())
        .map(|one| subscription(world, one, cancels))
        .collect();
    let card = billing::default_method(world, customer, of(billing::start::KIND).next())
        .and_then(|method| world.live("payment_method", &method));
    let card = card.map_or("No card.".to_owned(), |method| {
        format!("Card: {} •••• {}", text(&method["card"], "brand"), text(&method["card"], "last4"))
    });
    let change = if allows(world, session, "payment_method_update") {
        format!("<form method=\"post\">{}</form>{}", card_fields("Use this card", wrong), cards())
    } else {
        String::new()
    };
    let invoices: String = of(billing::invoice::KIND)
        .filter(|_| allows(world, session, "invoice_history"))
        .filter(|one| one["status"] != "draft")
        .map(|one| {
            format!(
                "<tr><td><a href=\"/_standin/invoices/{}\">{}</a> {}</td><td>{} ({})</td></tr>",
                escape(text(one, "id")),
                escape(text(one, "number")),
                day(whole(one, "created")),
                amount(whole(one, "total"), &one["currency"]),
                escape(text(one, "status")),
            )
        })
        .collect();
    let back = session["return_url"]
        .as_str()
        .filter(|url| url.starts_with("http"))
        .map_or(String::new(), |url| format!("<p><a href=\"{}\">Back</a></p>", escape(url)));
    let name =
        world.live("customer", customer).and_then(|customer| customer["name"].as_str()).unwrap_or(customer);
    let body = format!(
        "<p>{}</p>{subscriptions}<h2>Payment</h2><p>{}</p>{change}<h2>Invoices</h2><table>{invoices}</table>{back}",
        escape(name),
        escape(&card),
    );
    let status = if wrong.is_some() { StatusCode::PAYMENT_REQUIRED } else { StatusCode::OK };
    page(status, "Customer portal", &body)
}

fn subscription(world: &World, one: &Value, cancels: bool) -> String {
    let names: Vec<_> = listed(one, "items")
        .iter()
        .map(|item| {
            let price = &item["price"];
            format!("{} ({})", billing::lines::name_of(world, price), unit_price(price))
        })
        .collect();
    let end = day(period(one).1);
    let (note, action, label) = if let Some(at) = one["cancel_at"].as_i64() {
        (format!("Ends on {}.", day(at)), "resume", "Do not cancel")
    } else {
        (format!("Goes on after {end}."), "cancel", "Cancel at the end of the period")
    };
    let form = if cancels {
        format!(
            "<form method=\"post\"><input type=\"hidden\" name=\"subscription\" value=\"{}\">\
             <button class=\"plain\" name=\"do\" value=\"{action}\">{label}</button></form>",
            escape(text(one, "id"))
        )
    } else {
        String::new()
    };
    format!(
        "<h2>Subscription</h2><p>{}<br>Status: {}. {note}</p>{form}",
        escape(&names.join(", ")),
        escape(text(one, "status"))
    )
}
