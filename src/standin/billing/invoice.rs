//! Invoices: drafts, their totals, and how they become final (docs.stripe.com/invoicing/integration/workflow-transitions).

use http::StatusCode;
use serde_json::{Value, json};

use super::super::agenda::Due;
use super::super::api::Done;
use super::super::deliveries::tell;
use super::super::look::{both, listed, text, whole};
use super::super::refusal::Refusal;
use super::super::world::{Call, World};
use super::{balance, change, charge, collect, lines, list_of, money};

pub const KIND: &str = "invoice";

/// What an invoice is made of.
pub struct Draft<'a> {
    /// Who pays.
    pub customer: &'a str,
    /// Of which subscription, the whole object; null where of none.
    pub subscription: &'a Value,
    /// `billing_reason`.
    pub reason: &'a str,
    /// Its lines.
    pub lines: Vec<Value>,
    /// What the invoice calls its period: the one that has ended.
    pub period: (i64, i64),
    /// Whether tax is worked out.
    pub taxed: bool,
    /// Whether it goes its way by itself.
    pub auto_advance: bool,
    /// Its own `metadata`.
    pub metadata: Value,
}

/// Makes a draft that nobody is told of and that is not kept: an invoice, or the preview of one.
pub fn object(world: &World, id: &str, draft: Draft<'_>) -> Value {
    let subscription = draft.subscription;
    let parent = if subscription.is_null() {
        Value::Null
    } else {
        let details = json!({ "metadata": subscription["metadata"], "subscription": subscription["id"] });
        json!({ "quote_details": null, "subscription_details": details, "type": "subscription_details" })
    };
    let nobody = Value::Null;
    let customer = world.live("customer", draft.customer).unwrap_or(&nobody);
    let currency = draft.lines.first().map_or(&subscription["currency"], |line| &line["currency"]).clone();
    let mut data = draft.lines;
    data.iter_mut().for_each(|line| line["invoice"] = json!(id));
    let whom = json!({
        "customer": draft.customer, "customer_account": null, "customer_address": customer["address"],
        "customer_email": customer["email"], "customer_name": customer["name"], "customer_phone": customer["phone"],
        "customer_shipping": null, "customer_tax_exempt": customer["tax_exempt"], "customer_tax_ids": [],
        "default_payment_method": null, "default_source": null, "default_tax_rates": [], "description": null,
        "discounts": [], "due_date": null, "effective_at": null, "ending_balance": null, "footer": null,
        "from_invoice": null, "hosted_invoice_url": null, "invoice_pdf": null,
        "issuer": { "type": "self" }, "last_finalization_error": null, "latest_revision": null,
    });
    let sums = json!({
        "period_end": draft.period.1, "period_start": draft.period.0, "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0, "receipt_number": null, "rendering": null, "shipping_cost": null,
        "shipping_details": null, "starting_balance": 0, "statement_descriptor": null, "status": "draft",
        "status_transitions": {
            "finalized_at": null, "marked_uncollectible_at": null, "paid_at": null, "voided_at": null,
        },
        "subtotal": 0, "subtotal_excluding_tax": 0, "test_clock": null, "total": 0, "total_discount_amounts": [],
        "total_excluding_tax": 0, "total_pretax_credit_amounts": [], "total_taxes": [], "webhooks_delivered_at": null,
    });
    let invoice = json!({
        "id": id, "account_country": "US", "account_name": "Stand-in, not Stripe", "account_tax_ids": null,
        "amount_due": 0, "amount_overpaid": 0, "amount_paid": 0, "amount_remaining": 0, "amount_shipping": 0,
        "application": null, "attempt_count": 0, "attempted": false, "auto_advance": draft.auto_advance,
        "automatic_tax": {
            "disabled_reason": null, "enabled": draft.taxed, "liability": null, "provider": null,
            "status": if draft.taxed { json!("complete") } else { Value::Null },
        },
        "automatically_finalizes_at": null, "billing_reason": draft.reason,
        "collection_method": "charge_automatically", "currency": currency, "custom_fields": null,
        "lines": list_of(&data, &format!("/v1/invoices/{id}/lines")), "metadata": draft.metadata,
        "next_payment_attempt": null, "number": null, "on_behalf_of": null, "parent": parent,
        "payment_settings": { "default_mandate": null, "payment_method_options": null, "payment_method_types": null },
        "payments": list_of(&[], &format!("/v1/invoice_payments?invoice={id}")),
    });
    let mut invoice = both(both(invoice, whom), sums);
    total(world, &mut invoice);
    invoice
}

/// Makes a draft. Where it goes on by itself, it is finalised after the account's grace. STANDIN-INVOICE-1
///
/// # Errors
/// Where there are too many objects.
pub fn draft(world: &mut World, call: &Call, draft: Draft<'_>) -> Done {
    let id = world.ids.next("in");
    let advances = draft.auto_advance && draft.reason == "subscription_cycle";
    let mut invoice = object(world, &id, draft);
    if advances {
        let grace = i64::try_from(world.settings.finalization_grace_seconds).unwrap_or_default();
        let at = world.now() + grace;
        invoice["automatically_finalizes_at"] = json!(at);
        invoice["next_payment_attempt"] = json!(at);
        world.agenda.put(at, Due::Finalize, &id);
    }
    let invoice = world.create(KIND, "in", invoice)?;
    tell(world, call, "invoice.created", &invoice, None);
    Ok(invoice)
}

/// Adds the lines up, with tax, and what the customer's balance makes of the sum. A sum below zero bills nothing and is kept
/// on the balance, and so is one that is too small to be charged. STANDIN-INVOICE-3 STANDIN-INVOICE-5
pub fn total(world: &World, invoice: &mut Value) {
    let basis = if invoice["automatic_tax"]["enabled"] == true { world.settings.tax_basis_points } else { 0 };
    let (mut subtotal, mut tax) = (0_i64, 0_i64);
    for line in invoice["lines"]["data"].as_array_mut().into_iter().flatten() {
        let amount = whole(line, "amount");
        let taxed = money::share(amount, basis, 10_000);
        line["taxes"] = if basis == 0 { json!([]) } else { json!([taxes(taxed, amount)]) };
        subtotal = subtotal.saturating_add(amount);
        tax = tax.saturating_add(taxed);
    }
    let sum = subtotal.saturating_add(tax);
    let start = balance::of(world, text(invoice, "customer"));
    let due = sum.saturating_add(start);
    let charged = if due < money::SMALLEST { 0 } else { due };
    invoice["subtotal"] = json!(subtotal);
    invoice["subtotal_excluding_tax"] = json!(subtotal);
    invoice["total_excluding_tax"] = json!(subtotal);
    invoice["total_taxes"] = if basis == 0 { json!([]) } else { json!([taxes(tax, subtotal)]) };
    invoice["total"] = json!(sum);
    invoice["starting_balance"] = json!(start);
    invoice["amount_due"] = json!(charged);
    invoice["amount_remaining"] = json!(charged);
}

fn taxes(amount: i64, of: i64) -> Value {
    json!({
        "amount": amount, "tax_behavior": "exclusive", "tax_rate_details": null, "taxability_reason": "standard_rated",
        "taxable_amount": of, "type": "tax_rate_details",
    })
}

/// A draft's time has come: it is finalised, and paid where it can be.
pub fn finalizes(world: &mut World, id: &str, at: i64) {
    let call = Call::nobodys();
    let due = world.live(KIND, id).is_some_and(|invoice| {
        invoice["status"] == "draft"
            && invoice["auto_advance"] == true
            && whole(invoice, "automatically_finalizes_at") == at
    });
    // Where the stand-in is full, the draft stays one.
    if due && finalize(world, &call, id).is_ok() {
        let _ = collect::attempt(world, &call, id, None, true);
    }
}

/// Makes a draft final: usage is read for the last time, the balance is applied, and the amount is fixed.
///
/// # Errors
/// 400 where it is no draft; where there are too many objects.
pub fn finalize(world: &mut World, call: &Call, id: &str) -> Done {
    let mut invoice = world.need(KIND, id, "invoice", StatusCode::NOT_FOUND)?.clone();
    if invoice["status"] != "draft" {
        return Err(Refusal::conflict(None, "invoice", "This invoice is already finalized."));
    }
    lines::refresh(world, &mut invoice);
    total(world, &mut invoice);
    let (customer, now) = (text(&invoice, "customer").to_owned(), world.now());
    let (start, due) = (whole(&invoice, "starting_balance"), whole(&invoice, "amount_due"));
    let end = if due == 0 { start.saturating_add(whole(&invoice, "total")) } else { 0 };
    let number = number(world, &customer);
    let currency = text(&invoice, "currency").to_owned();
    if end != start {
        let entry = ("applied_to_invoice", end - start, currency.as_str());
        balance::transact(world, call, &customer, entry, Some(("invoice", id)))?;
    }
    invoice["status"] = json!("open");
    invoice["number"] = json!(number);
    invoice["ending_balance"] = json!(end);
    invoice["effective_at"] = json!(now);
    invoice["automatically_finalizes_at"] = Value::Null;
    invoice["status_transitions"]["finalized_at"] = json!(now);
    invoice["hosted_invoice_url"] = json!(format!("{}/_standin/invoices/{id}", world.base_url));
    if due > 0 {
        let sum = (due, &invoice["currency"]);
        let description = json!(format!("Payment for Invoice {number}"));
        let intent = charge::intend(world, call, &invoice["customer"], sum, (&json!({}), &description))?;
        let payment = payment(world, &invoice, &intent)?;
        invoice["payments"]["data"] = json!([payment]);
    }
    world.replace(KIND, &invoice);
    tell(world, call, "invoice.finalized", &invoice, None);
    if due == 0 {
        collect::paid(world, call, id);
    }
    Ok(world.live(KIND, id).cloned().unwrap_or(invoice))
}

/// What ties an invoice to its payment intent.
fn payment(world: &mut World, invoice: &Value, intent: &Value) -> Done {
    let payment = json!({
        "amount_paid": null, "amount_requested": invoice["amount_due"], "currency": invoice["currency"],
        "invoice": invoice["id"], "is_default": true,
        "payment": { "payment_intent": intent["id"], "type": "payment_intent" }, "status": "open",
        "status_transitions": { "canceled_at": null, "paid_at": null },
    });
    world.create("invoice_payment", "inpay", payment)
}

/// An invoice over what has been paid already: with Checkout, for a payment that is no subscription's. The balance has no
/// part in it.
///
/// # Errors
/// Where there are too many objects.
pub fn receipt(world: &mut World, call: &Call, what: Draft<'_>, intent: &Value) -> Done {
    let customer = what.customer.to_owned();
    let made = draft(world, call, what)?;
    let (id, now) = (text(&made, "id").to_owned(), world.now());
    let number = number(world, &customer);
    let url = format!("{}/_standin/invoices/{id}", world.base_url);
    let mut invoice = made;
    let total = invoice["total"].clone();
    invoice["starting_balance"] = json!(0);
    invoice["ending_balance"] = json!(0);
    invoice["amount_due"] = total.clone();
    invoice["amount_remaining"] = total;
    invoice["status"] = json!("open");
    invoice["number"] = json!(number);
    invoice["effective_at"] = json!(now);
    invoice["status_transitions"]["finalized_at"] = json!(now);
    invoice["hosted_invoice_url"] = json!(url);
    let payment = payment(world, &invoice, intent)?;
    invoice["payments"]["data"] = json!([payment]);
    world.replace(KIND, &invoice);
    tell(world, call, "invoice.finalized", &invoice, None);
    collect::paid(world, call, &id);
    Ok(world.live(KIND, &id).cloned().unwrap_or(invoice))
}

/// The payment intent of a final invoice.
pub fn intent(invoice: &Value) -> Option<&str> {
    listed(invoice, "payments").first()?["payment"]["payment_intent"].as_str()
}

fn number(world: &mut World, customer: &str) -> String {
    let Some(mut object) = world.live("customer", customer).cloned() else { return String::new() };
    let sequence = whole(&object, "next_invoice_sequence");
    object["next_invoice_sequence"] = json!(sequence + 1);
    world.replace("customer", &object);
    format!("{}-{sequence:04}", text(&object, "invoice_prefix"))
}

/// Makes an open invoice void: nothing is owed any more, and the balance is as before.
///
/// # Errors
/// 400 where it is not open; where there are too many objects.
pub fn void(world: &mut World, call: &Call, id: &str) -> Done {
    let invoice = world.need(KIND, id, "invoice", StatusCode::NOT_FOUND)?.clone();
    if !matches!(text(&invoice, "status"), "open" | "uncollectible") {
        return Err(Refusal::conflict(
            None,
            "invoice",
            "You can only void an open or uncollectible invoice.",
        ));
    }
    let applied = whole(&invoice, "ending_balance") - whole(&invoice, "starting_balance");
    if applied != 0 {
        let entry = ("unapplied_from_invoice", -applied, text(&invoice, "currency"));
        balance::transact(world, call, text(&invoice, "customer"), entry, Some(("invoice", id)))?;
    }
    if let Some(intent) = intent(&invoice) {
        collect::call_off(world, call, intent);
    }
    let now = world.now();
    let after = change(world, call, (KIND, id), "invoice.voided", |invoice| {
        invoice["status"] = json!("void");
        invoice["status_transitions"]["voided_at"] = json!(now);
        invoice["next_payment_attempt"] = Value::Null;
        invoice["auto_advance"] = json!(false);
    });
    collect::follow(world, call, &after);
    Ok(after)
}
