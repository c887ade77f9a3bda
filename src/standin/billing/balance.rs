//! What a customer has to its credit (below zero) or owes, applied to the next invoice
//! (docs.stripe.com/billing/customer/balance).

use serde_json::{Value, json};

use super::super::api::Done;
use super::super::look::whole;
use super::super::world::{Call, World};
use super::change;

/// Moves a customer's balance and writes the transaction down. `of` is the invoice or credit note that it is about, by the
/// name of its field.
///
/// # Errors
/// Where there are too many objects.
pub fn transact(
    world: &mut World,
    call: &Call,
    customer: &str,
    entry: (&str, i64, &str),
    of: Option<(&str, &str)>,
) -> Done {
    let (kind, amount, currency) = entry;
    let after = change(world, call, ("customer", customer), "customer.updated", |customer| {
        let balance = whole(customer, "balance").saturating_add(amount);
        customer["balance"] = json!(balance);
        if customer["currency"].is_null() {
            customer["currency"] = json!(currency);
        }
    });
    let mut transaction = json!({
        "amount": amount, "checkout_session": null, "credit_note": null, "currency": currency, "customer": customer,
        "customer_account": null, "description": null, "ending_balance": whole(&after, "balance"), "invoice": null,
        "metadata": {}, "type": kind,
    });
    if let Some((field, id)) = of {
        transaction[field] = json!(id);
    }
    world.create("customer_balance_transaction", "cbtxn", transaction)
}

/// What a customer has (below zero) or owes.
pub fn of(world: &World, customer: &str) -> i64 {
    world.live("customer", customer).map_or(0, |customer: &Value| whole(customer, "balance"))
}
