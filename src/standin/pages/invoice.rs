//! The page of an invoice.

use http::StatusCode;
use serde_json::Value;

use super::super::Shared;
use super::super::answer::Answer;
use super::super::billing::{collect, invoice};
use super::super::checkout::set_card;
use super::super::look::{listed, text, whole};
use super::super::world::Call;
use super::{amount, card_fields, cards, day, escape, gone, page, see_other, sent};

/// The page, or what its button does: pays, with the card that was given.
pub fn answer(shared: &Shared, id: &str, asked: Option<&Value>) -> Answer {
    let found = shared.world().live(invoice::KIND, id).cloned();
    let Some(found) = found.filter(|found| found["status"] != "draft") else {
        return gone("There is no such invoice.");
    };
    let card = sent(asked, "card").filter(|_| found["status"] == "open");
    let Some(card) = card else { return show(&found, None) };
    let customer = text(&found, "customer").to_owned();
    let done = shared.act(|world| {
        let method = set_card(world, &customer, card)?;
        collect::attempt(world, &Call::nobodys(), id, method["id"].as_str(), false)
    });
    match done {
        Ok(_) => see_other(&format!("/_standin/invoices/{id}")),
        Err(refusal) => show(&found, Some(refusal.message())),
    }
}

fn show(found: &Value, wrong: Option<&str>) -> Answer {
    let currency = &found["currency"];
    let rows: String = listed(found, "lines")
        .iter()
        .map(|line| {
            let period = &line["period"];
            format!(
                "<tr><td>{}<br><small>{} to {}</small></td><td>{}</td></tr>",
                escape(text(line, "description")),
                day(whole(period, "start")),
                day(whole(period, "end")),
                amount(whole(line, "amount"), currency),
            )
        })
        .collect();
    let sums: String = [
        ("Subtotal", whole(found, "subtotal")),
        ("Tax", whole(found, "total") - whole(found, "subtotal")),
        ("From your balance", whole(found, "starting_balance") - whole(found, "ending_balance")),
        ("Credit notes", -whole(found, "pre_payment_credit_notes_amount")),
        ("Amount due", whole(found, "amount_due")),
        ("Paid", whole(found, "amount_paid")),
    ]
    .into_iter()
    .filter(|(name, sum)| *sum != 0 || *name == "Amount due")
    .map(|(name, sum)| format!("<tr><th>{name}</th><th>{}</th></tr>", amount(sum, currency)))
    .collect();
    let pay = if found["status"] == "open" {
        let button = format!("Pay {}", amount(whole(found, "amount_remaining"), currency));
        format!("<form method=\"post\">{}</form>{}", card_fields(&button, wrong), cards())
    } else {
        String::new()
    };
    let body = format!("<p>Status: {}</p><table>{rows}{sums}</table>{pay}", escape(text(found, "status")),);
    let status = if wrong.is_some() { StatusCode::PAYMENT_REQUIRED } else { StatusCode::OK };
    page(status, &format!("Invoice {}", text(found, "number")), &body)
}
