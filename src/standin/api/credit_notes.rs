//! Credit notes: less to pay on an open invoice, or money and credit back for a paid one
//! (docs.stripe.com/api/credit_notes, docs.stripe.com/invoicing/dashboard/credit-notes).

use http::StatusCode;
use serde_json::{Value, json};

use super::super::billing::invoice::{self, intent};
use super::super::billing::{balance, change, collect, refund};
use super::super::look::{listed, text, whole};
use super::super::refusal::Refusal;
use super::super::schema::{Field, Kind, METADATA, PAGE, TEXT, opt, req};
use super::super::shelf::{Shelf, in_range, page};
use super::super::world::{Call, World};
use super::{Done, Route, create, route, update};

const KIND: &str = "credit_note";
const ALL: &str = "/v1/credit_notes";
const ONE: &str = "/v1/credit_notes/{id}";

/// Operations on credit notes.
pub const ROUTES: &[Route] = &[
    route("POST", ALL, KIND, &[FIELDS], make),
    route("GET", ALL, KIND, &[PAGE, FILTERS], list),
    route("GET", ONE, KIND, &[], |world, call| world.named(KIND, call).cloned()),
    route("POST", ONE, KIND, &[&[opt("memo", TEXT), METADATA]], |world, call| update(world, call, KIND)),
    route("GET", "/v1/credit_notes/{id}/lines", KIND, &[PAGE], |world, call| {
        page(listed(world.named(KIND, call)?, "lines").iter(), &call.params, &call.path)
    }),
    route("POST", "/v1/credit_notes/{id}/void", KIND, &[], void),
];

const FIELDS: &[Field] = &[
    opt("amount", Kind::Whole),
    opt("credit_amount", Kind::Whole),
    opt("email_type", Kind::OneOf(&["credit_note", "none"])),
    req("invoice", TEXT),
    opt("lines", Kind::Many(&Kind::Object(LINE), 20)),
    opt("memo", TEXT),
    METADATA,
    opt("out_of_band_amount", Kind::Whole),
    opt("reason", Kind::OneOf(&["duplicate", "fraudulent", "order_change", "product_unsatisfactory"])),
    opt("refund_amount", Kind::Whole),
];
const LINE: &[Field] = &[
    opt("amount", Kind::Whole),
    opt("description", TEXT),
    opt("invoice_line_item", TEXT),
    opt("quantity", Kind::Whole),
    req("type", Kind::OneOf(&["custom_line_item", "invoice_line_item"])),
    opt("unit_amount", Kind::Whole),
];
const FILTERS: &[Field] = &[opt("created", Kind::Range), opt("customer", TEXT), opt("invoice", TEXT)];

/// How a credit note's amount is split.
struct Split {
    total: i64,
    /// Off what is still to pay.
    before_payment: i64,
    refund: i64,
    credit: i64,
    elsewhere: i64,
}

/// Issues a credit note. STANDIN-CREDIT-1
fn make(world: &mut World, call: &Call) -> Done {
    let id = call.text("invoice").unwrap_or_default().to_owned();
    let invoice = world.need(invoice::KIND, &id, "invoice", StatusCode::BAD_REQUEST)?.clone();
    if !matches!(text(&invoice, "status"), "open" | "paid" | "uncollectible") {
        let message = "You can only create credit notes for open, uncollectible and paid invoices.";
        return Err(Refusal::conflict(None, "invoice", message));
    }
    let note_id = world.ids.next("cn");
    let lines = lines(world, call, &invoice)?;
    let split = split(world, call, &invoice, &lines)?;
    let customer = text(&invoice, "customer");
    let mut refunds = Vec::new();
    if split.refund > 0 {
        let charge = intent(&invoice).map(|intent| refund::charge_of(world, intent)).transpose()?;
        let nothing = (&Value::Null, &Value::Null);
        let made = refund::refund(world, call, &charge.unwrap_or_default(), Some(split.refund), nothing)?;
        refunds.push(json!({
            "amount_refunded": split.refund, "payment_record_refund": null, "refund": made["id"], "type": "refund",
        }));
    }
    let mut transaction = Value::Null;
    if split.credit > 0 {
        let entry = ("credit_note", -split.credit, text(&invoice, "currency"));
        transaction = balance::transact(world, call, customer, entry, Some((KIND, &note_id)))?["id"].clone();
    }
    reduce(world, call, &invoice, &split);
    let given = |name: &str| call.params.get(name).cloned().unwrap_or(Value::Null);
    let metadata = given("metadata");
    let sequence = notes_of(world, &id).count() + 1;
    let after_payment = split.total - split.before_payment;
    let kind = match (split.before_payment, after_payment) {
        (_, 0) => "pre_payment",
        (0, _) => "post_payment",
        _ => "mixed",
    };
    let note = json!({
        "id": note_id, "amount": split.total, "amount_shipping": 0, "currency": invoice["currency"],
        "customer": customer, "customer_account": null, "customer_balance_transaction": transaction,
        "discount_amount": 0, "discount_amounts": [], "effective_at": world.now(), "invoice": id,
        "lines": super::super::billing::list_of(&lines, &format!("{ALL}/{note_id}/lines")), "memo": given("memo"),
        "metadata": if metadata.is_object() { metadata } else { json!({}) },
        "number": format!("{}-CN-{sequence:02}", text(&invoice, "number")),
        "out_of_band_amount": if split.elsewhere > 0 { json!(split.elsewhere) } else { Value::Null },
        "pdf": format!("{}/_standin/invoices/{id}", world.base_url), "post_payment_amount": after_payment,
        "pre_payment_amount": split.before_payment, "pretax_credit_amounts": [], "reason": given("reason"),
        "refunds": refunds, "shipping_cost": null, "status": "issued", "subtotal": split.total,
        "subtotal_excluding_tax": split.total, "total": split.total, "total_excluding_tax": split.total,
        "total_taxes": [], "type": kind, "voided_at": null,
    });
    create(world, call, KIND, "cn", note)
}

fn notes_of<'a>(world: &'a World, invoice: &'a str) -> impl Iterator<Item = &'a Value> {
    world
        .shelf(KIND)
        .into_iter()
        .flat_map(Shelf::newest_first)
        .filter(move |note| note["invoice"] == invoice && note["status"] == "issued")
}

/// The note's lines: those that were asked for, or one over the whole amount.
fn lines(world: &mut World, call: &Call, invoice: &Value) -> Result<Vec<Value>, Refusal> {
    let asked = call.params.get("lines").and_then(Value::as_array).cloned().unwrap_or_default();
    let amount = call.params.get("amount").and_then(Value::as_i64);
    if asked.is_empty() {
        let parts = ["credit_amount", "refund_amount", "out_of_band_amount"];
        let sum: i64 = parts.iter().filter_map(|name| call.params.get(*name).and_then(Value::as_i64)).sum();
        let Some(amount) = amount.or((sum > 0).then_some(sum)) else {
            return Err(Refusal::missing("amount"));
        };
        return Ok(vec![line(world, amount, (&Value::Null, "Credit"), 1)]);
    }
    let mut found = Vec::new();
    for (n, one) in asked.iter().enumerate() {
        let at = format!("lines[{n}]");
        let of = one["invoice_line_item"].as_str();
        let billed = listed(invoice, "lines").iter().find(|line| of.is_some_and(|of| line["id"] == of));
        if one["type"] == "invoice_line_item" && billed.is_none() {
            let message = format!("No such invoice line item: '{}'", of.unwrap_or_default());
            return Err(Refusal::conflict(
                Some("resource_missing"),
                &format!("{at}[invoice_line_item]"),
                message,
            ));
        }
        let quantity = one["quantity"].as_i64().unwrap_or(1);
        let unit = one["unit_amount"].as_i64().map(|unit| unit.saturating_mul(quantity));
        let Some(amount) = one["amount"].as_i64().or(unit).or(billed.map(|line| whole(line, "amount")))
        else {
            return Err(Refusal::missing(&format!("{at}[amount]")));
        };
        let limit = billed.map_or(i64::MAX, |line| whole(line, "amount"));
        if amount < 0 || amount > limit {
            let message = "The credit note's line is over more than the invoice's line.";
            return Err(Refusal::conflict(None, &format!("{at}[amount]"), message));
        }
        let description = one["description"].as_str().or(billed.map(|line| text(line, "description")));
        let of = billed.map_or(Value::Null, |line| line["id"].clone());
        found.push(line(world, amount, (&of, description.unwrap_or("Credit")), quantity));
    }
    Ok(found)
}

fn line(world: &mut World, amount: i64, what: (&Value, &str), quantity: i64) -> Value {
    let kind = if what.0.is_null() { "custom_line_item" } else { "invoice_line_item" };
    json!({
        "id": world.ids.next("cnli"), "object": "credit_note_line_item", "amount": amount, "description": what.1,
        "discount_amount": 0, "discount_amounts": [], "invoice_line_item": what.0, "livemode": false, "metadata": {},
        "pretax_credit_amounts": [], "quantity": quantity, "tax_rates": [], "taxes": [], "type": kind,
        "unit_amount": null, "unit_amount_decimal": null,
    })
}

/// Off what is still to pay first; the rest as it was asked for, which must come to exactly that.
fn split(world: &World, call: &Call, invoice: &Value, lines: &[Value]) -> Result<Split, Refusal> {
    let total: i64 = lines.iter().map(|line| whole(line, "amount")).sum();
    let given = |name: &str| call.params.get(name).and_then(Value::as_i64).unwrap_or_default();
    let (credit, refund, elsewhere) =
        (given("credit_amount"), given("refund_amount"), given("out_of_band_amount"));
    let asked = call.params.get("amount").and_then(Value::as_i64);
    if asked.is_some_and(|asked| asked != total) || total <= 0 || credit.min(refund).min(elsewhere) < 0 {
        let message = "The amounts of the credit note must be positive and add up.";
        return Err(Refusal::conflict(None, "amount", message));
    }
    let credited: i64 = notes_of(world, text(invoice, "id")).map(|note| whole(note, "amount")).sum();
    if total > whole(invoice, "total").saturating_sub(credited) {
        let message = "The sum of credit notes cannot be greater than the invoice's total.";
        return Err(Refusal::conflict(None, "amount", message));
    }
    let before_payment = total.min(whole(invoice, "amount_remaining"));
    if credit + refund + elsewhere != total - before_payment {
        let message = format!(
            "The sum of credit amount, refund amount and out of band amount ({}) must equal the credit note amount \
             after payment ({}).",
            credit + refund + elsewhere,
            total - before_payment
        );
        return Err(Refusal::conflict(None, "credit_amount", message));
    }
    Ok(Split { total, before_payment, refund, credit, elsewhere })
}

/// Takes the note off its invoice. One on which nothing is left to pay is paid.
fn reduce(world: &mut World, call: &Call, invoice: &Value, split: &Split) {
    let id = text(invoice, "id");
    let off = split.before_payment;
    let mut left = 0;
    change(world, call, (invoice::KIND, id), "invoice.updated", |invoice| {
        let add = |invoice: &mut Value, name: &str, amount: i64| {
            let sum = whole(invoice, name) + amount;
            invoice[name] = json!(sum);
        };
        add(invoice, "pre_payment_credit_notes_amount", off);
        add(invoice, "post_payment_credit_notes_amount", split.total - off);
        add(invoice, "amount_due", -off);
        add(invoice, "amount_remaining", -off);
        left = whole(invoice, "amount_remaining");
        if off != 0 {
            for payment in invoice["payments"]["data"].as_array_mut().into_iter().flatten() {
                payment["amount_requested"] = json!(left);
            }
        }
    });
    if off == 0 {
        return;
    }
    if let Some(intent) = intent(invoice) {
        if left == 0 {
            collect::call_off(world, call, intent);
            collect::paid(world, call, id);
        } else if let Some(mut open) = world.live("payment_intent", intent).cloned() {
            open["amount"] = json!(left);
            world.replace("payment_intent", &open);
        }
    }
}

fn list(world: &mut World, call: &Call) -> Done {
    world.list(KIND, call, |one| {
        ["customer", "invoice"].iter().all(|name| call.wants(name, &one[*name]))
            && in_range(call.params.get("created"), &one["created"])
    })
}

/// Only what has moved no money can be taken back: notes on open invoices.
fn void(world: &mut World, call: &Call) -> Done {
    let note = world.named(KIND, call)?.clone();
    let invoice = world.live(invoice::KIND, text(&note, "invoice")).cloned().unwrap_or_default();
    if note["status"] != "issued" || note["type"] != "pre_payment" || invoice["status"] != "open" {
        let message = "You can only void a credit note of an open invoice.";
        return Err(Refusal::conflict(None, "id", message));
    }
    let back = Split {
        total: -whole(&note, "amount"),
        before_payment: -whole(&note, "amount"),
        refund: 0,
        credit: 0,
        elsewhere: 0,
    };
    reduce(world, call, &invoice, &back);
    let now = world.now();
    Ok(change(world, call, (KIND, text(&note, "id")), "credit_note.voided", |note| {
        note["status"] = json!("void");
        note["voided_at"] = json!(now);
    }))
}
