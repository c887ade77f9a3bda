//! Invoices: looking at them, paying and voiding them, and what the next one would be (docs.stripe.com/api/invoices).

use http::StatusCode;
use serde_json::{Value, json};

use super::super::agenda::Due;
use super::super::billing::calendar::Cycle;
use super::super::billing::invoice::{self, Draft, KIND};
use super::super::billing::{collect, cycle, is_going_on, lines, period};
use super::super::look::{listed, text, whole};
use super::super::refusal::Refusal;
use super::super::schema::{Field, Kind, METADATA, PAGE, TEXT, clear, opt, req};
use super::super::shelf::{in_range, page};
use super::super::world::{Call, World, overlay};
use super::payment_methods::attach_to;
use super::subscription_changes::{ITEM, item_changes, lay_items, waiting};
use super::subscriptions::PRORATION;
use super::{Done, Route, route, update};

/// Operations on invoices.
pub const ROUTES: &[Route] = &[
    route("GET", "/v1/invoices", KIND, &[PAGE, FILTERS], list),
    route("POST", "/v1/invoices/create_preview", KIND, &[PREVIEW], preview),
    route("GET", "/v1/invoices/{invoice}", KIND, &[], retrieve),
    route("POST", "/v1/invoices/{invoice}", KIND, &[CHANGES], |world, call| update(world, call, KIND)),
    route("GET", "/v1/invoices/{invoice}/lines", KIND, &[PAGE], lines_of),
    route("POST", "/v1/invoices/{invoice}/finalize", KIND, &[&[opt("auto_advance", Kind::Flag)]], finalize),
    route("POST", "/v1/invoices/{invoice}/pay", KIND, &[PAY], pay),
    route("POST", "/v1/invoices/{invoice}/void", KIND, &[], |world, call| {
        invoice::void(world, call, call.id().0)
    }),
    route("POST", "/v1/invoices/{invoice}/mark_uncollectible", KIND, &[], mark_uncollectible),
];

/// Previews whose lines are remembered.
const MOST_PREVIEWS: usize = 100;
const FILTERS: &[Field] = &[
    opt("collection_method", Kind::OneOf(&["charge_automatically", "send_invoice"])),
    opt("created", Kind::Range),
    opt("customer", TEXT),
    opt("status", Kind::OneOf(&["draft", "open", "paid", "uncollectible", "void"])),
    opt("subscription", TEXT),
];
const CHANGES: &[Field] = &[opt("auto_advance", Kind::Flag), clear("description", TEXT), METADATA];
const PAY: &[Field] = &[opt("off_session", Kind::Flag), opt("payment_method", TEXT)];
const PREVIEW: &[Field] = &[
    opt("customer", TEXT),
    opt("preview_mode", Kind::OneOf(&["next"])),
    req("subscription", TEXT),
    opt(
        "subscription_details",
        Kind::Object(&[
            opt("cancel_at_period_end", Kind::Flag),
            opt("items", Kind::Many(&Kind::Object(ITEM), 20)),
            opt("proration_behavior", PRORATION),
        ]),
    ),
];

fn list(world: &mut World, call: &Call) -> Done {
    world.list(KIND, call, |one| {
        let subscription = &one["parent"]["subscription_details"]["subscription"];
        call.wants("subscription", subscription)
            && ["collection_method", "customer", "status"].iter().all(|name| call.wants(name, &one[*name]))
            && in_range(call.params.get("created"), &one["created"])
    })
}

/// The invoice that the path names. In a draft, usage is as it is now.
fn retrieve(world: &mut World, call: &Call) -> Done {
    let mut found = world.named(KIND, call)?.clone();
    if found["status"] == "draft" {
        lines::refresh(world, &mut found);
        invoice::total(world, &mut found);
        world.replace(KIND, &found);
    }
    Ok(found)
}

/// Also of a preview, by its id. STANDIN-PREVIEW-2
fn lines_of(world: &mut World, call: &Call) -> Done {
    let foreseen = world.previews.iter().find(|(id, _)| id == call.id().0);
    if let Some((_, lines)) = foreseen {
        return page(lines.iter(), &call.params, &call.path);
    }
    let found = retrieve(world, call)?;
    page(listed(&found, "lines").iter(), &call.params, &call.path)
}

fn finalize(world: &mut World, call: &Call) -> Done {
    let id = call.id().0;
    if let Some(advance) = call.params.get("auto_advance").filter(|_| world.live(KIND, id).is_some()) {
        let mut before = world.named(KIND, call)?.clone();
        before["auto_advance"] = advance.clone();
        world.replace(KIND, &before);
    }
    let mut found = invoice::finalize(world, call, id)?;
    if found["auto_advance"] == true && found["status"] == "open" {
        let at = world.now() + 3600;
        found["next_payment_attempt"] = json!(at);
        world.replace(KIND, &found);
        world.agenda.put(at, Due::Retry, id);
    }
    Ok(found)
}

fn pay(world: &mut World, call: &Call) -> Done {
    let found = world.named(KIND, call)?.clone();
    let customer = text(&found, "customer");
    let method = match call.text("payment_method") {
        Some(method) => {
            Some(text(&attach_to(world, call, (method, "payment_method"), customer)?, "id").to_owned())
        }
        None => None,
    };
    let id = text(&found, "id");
    if found["status"] == "draft" {
        invoice::finalize(world, call, id)?;
    }
    if found["status"] == "draft" && world.named(KIND, call)?["status"] == "paid" {
        return world.named(KIND, call).cloned();
    }
    collect::attempt(world, call, id, method.as_deref(), false)
}

fn mark_uncollectible(world: &mut World, call: &Call) -> Done {
    let found = world.named(KIND, call)?;
    if found["status"] != "open" {
        let message = "You can only mark an open invoice as uncollectible.";
        return Err(Refusal::conflict(None, "invoice", message));
    }
    let (id, now) = (text(found, "id").to_owned(), world.now());
    let what = (KIND, id.as_str());
    Ok(super::super::billing::change(world, call, what, "invoice.marked_uncollectible", |invoice| {
        invoice["status"] = json!("uncollectible");
        invoice["status_transitions"]["marked_uncollectible_at"] = json!(now);
        invoice["auto_advance"] = json!(false);
        invoice["next_payment_attempt"] = Value::Null;
    }))
}

/// The invoice at the end of the running period, with the usage that summaries show by now; or with `always_invoice`, the one
/// that a change would bring at once. STANDIN-PREVIEW-1
fn preview(world: &mut World, call: &Call) -> Done {
    let id = call.text("subscription").unwrap_or_default();
    let before = world.need("subscription", id, "subscription", StatusCode::BAD_REQUEST)?.clone();
    if !call.wants("customer", &before["customer"]) {
        let message = "The subscription is not this customer's.";
        return Err(Refusal::conflict(None, "subscription", message));
    }
    let details = call.params.get("subscription_details").cloned().unwrap_or_default();
    let asked = details["items"].as_array().cloned().unwrap_or_default();
    let behavior = details["proration_behavior"].as_str();
    let changes = item_changes(world, &before, &asked)?;
    let mut after = before.clone();
    lay_items(&mut after, &changes, &asked)?;
    if let Some(flags) = details.as_object() {
        let cancel = flags.iter().filter(|(name, _)| *name == "cancel_at_period_end");
        overlay(&mut after, &cancel.map(|(name, value)| (name.clone(), value.clone())).collect());
    }
    let (now, (start, end)) = (world.now(), period(&after));
    let mut found: Vec<Value> = Vec::new();
    for one in waiting(world, &before, &changes, behavior) {
        found.push(one.line(world, &before));
    }
    let at_once = behavior == Some("always_invoice") && !changes.is_empty();
    if !at_once && is_going_on(&after) {
        let anchor = whole(&after, "billing_cycle_anchor");
        let recurring = &after["items"]["data"][0]["price"]["recurring"];
        let next = Some(Cycle::new(recurring, anchor).next_after(end))
            .filter(|_| after["cancel_at_period_end"] != true && after["cancel_at"] != end);
        let seen = Some(world.time());
        found.extend(cycle::due_lines(world, &after, end, next, seen));
    }
    if found.is_empty() {
        let message = "No upcoming invoices for customer.";
        return Err(Refusal::none_upcoming(message));
    }
    let draft = Draft {
        customer: text(&before, "customer"),
        subscription: &after,
        reason: "upcoming",
        lines: found,
        period: if at_once { (now, now) } else { (start, end) },
        taxed: after["automatic_tax"]["enabled"] == true,
        auto_advance: false,
        metadata: json!({}),
    };
    let id = world.ids.next("upcoming_in");
    let mut invoice = invoice::object(world, &id, draft);
    invoice["object"] = json!(KIND);
    invoice["created"] = json!(if at_once { now } else { end });
    invoice["livemode"] = json!(false);
    if world.previews.len() >= MOST_PREVIEWS {
        world.previews.pop_front();
    }
    world.previews.push_back((id, listed(&invoice, "lines").to_vec()));
    Ok(invoice)
}
