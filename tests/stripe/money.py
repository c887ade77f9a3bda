"""The second part of the story: subscriptions, invoices, refunds, credit notes and disputes, through Stripe's own SDK, on a
clock that the story moves."""

from datetime import datetime, timezone

import stripe
from standin import control
from told import refused

HOUR, DAY = 3600, 86400


class Shop:
    """A plan and a metered price, and customers who have a card."""

    def __init__(self, api, base):
        self.api, self.base = api, base
        event_name = "shop_credits"
        aggregation = {"default_aggregation": {"formula": "sum"}, "display_name": "Credits", "event_name": event_name}
        found = [one for one in api.billing.meters.list().data if one.event_name == event_name]
        self.meter = (found or [api.billing.meters.create(aggregation)])[0]
        self.plan = api.products.create({"name": "Pro"})
        self.usage = api.products.create({"name": "Credits"})
        self.basic, self.pro = self.price(1000), self.price(3000)
        recurring = {"interval": "month", "usage_type": "metered", "meter": self.meter.id}
        metered = {"currency": "usd", "product": self.usage.id, "recurring": recurring, "unit_amount_decimal": "0.5"}
        self.metered = api.prices.create(metered)

    def price(self, amount):
        month = {"currency": "usd", "product": self.plan.id, "recurring": {"interval": "month"}}
        return self.api.prices.create({**month, "unit_amount": amount})

    def customer(self, card="pm_card_visa"):
        customer = self.api.customers.create({"name": "Ada", "email": "ada@example.com"})
        if card:
            method = self.api.payment_methods.attach(card, {"customer": customer.id})
            settings = {"invoice_settings": {"default_payment_method": method.id}}
            customer = self.api.customers.update(customer.id, settings)
        return customer

    def items(self):
        return [{"price": self.basic.id, "quantity": 1}, {"price": self.metered.id}]

    def subscribe(self, customer, **rest):
        return self.api.subscriptions.create({"customer": customer.id, "items": self.items(), **rest})

    def use(self, customer, value):
        payload = {"stripe_customer_id": customer.id, "value": str(value)}
        self.api.billing.meter_events.create({"event_name": self.meter.event_name, "payload": payload})

    def now(self):
        return control(self.base, "GET", "clock")["now"]

    def to(self, time):
        """Moves the clock on to a time."""
        control(self.base, "POST", "clock", {"advance_seconds": time - self.now()})

    def invoices(self, customer, **rest):
        return self.api.invoices.list({"customer": customer.id, **rest}).data

    def events(self, *kinds):
        return self.api.events.list({"types": list(kinds), "limit": 100}).data


def end_of(subscription):
    """When the running period ends: in this version of the API it stands on the items."""
    return subscription["items"].data[0].current_period_end


def cards(api, base):
    shop = Shop(api, base)
    customer = shop.customer()
    method = customer.invoice_settings.default_payment_method
    assert api.payment_methods.retrieve(method).card.last4 == "4242"
    assert [one.id for one in api.payment_methods.list({"customer": customer.id, "type": "card"}).data] == [method]
    assert [one.id for one in api.customers.payment_methods.list(customer.id).data] == [method]
    attach = lambda card: api.payment_methods.attach(card, {"customer": customer.id})
    error = refused(stripe.CardError, lambda: attach("pm_card_chargeDeclinedInsufficientFunds"), 402, "card_declined")
    assert error.json_body["error"]["decline_code"] == "insufficient_funds"
    other = attach("pm_card_chargeCustomerFail")
    assert api.payment_methods.update(other.id, {"metadata": {"a": "b"}}).metadata["a"] == "b"
    someone = api.customers.create({"name": "Eve"})
    settings = {"invoice_settings": {"default_payment_method": method}}
    refused(stripe.InvalidRequestError, lambda: api.customers.update(someone.id, settings), 400, "resource_missing")
    assert api.payment_methods.detach(method).customer is None
    assert api.customers.retrieve(customer.id).invoice_settings.default_payment_method is None


def subscriptions(api, base):
    shop = Shop(api, base)
    customer = shop.customer()
    made = shop.subscribe(customer, metadata={"tenant": "t1"})
    start, end = made["items"].data[0].current_period_start, end_of(made)
    assert (made.status, made.metadata["tenant"], made.billing_mode.type) == ("active", "t1", "flexible")
    assert start <= shop.now() and end - start >= 28 * DAY
    first = api.invoices.retrieve(made.latest_invoice, {"expand": ["payments", "customer"]})
    assert (first.status, first.amount_paid, first.billing_reason) == ("paid", 1000, "subscription_create")
    assert len(first.lines.data) == 1 and first.customer.id == customer.id, "no line for usage"
    intent = api.payment_intents.retrieve(first.payments.data[0].payment.payment_intent, {"expand": ["latest_charge"]})
    assert intent.latest_charge.amount == 1000 and intent.latest_charge.paid
    paid_by = {"payment": {"type": "payment_intent", "payment_intent": intent.id}}
    assert [one.invoice for one in api.invoice_payments.list(paid_by).data] == [first.id]
    assert "payments" not in api.invoices.retrieve(first.id), "only where it is asked for"

    shop.use(customer, 101)
    preview = api.invoices.create_preview({"customer": customer.id, "subscription": made.id})
    assert preview.total == 1000 + 51 and preview.period_end == end
    shop.to(end)
    draft = shop.invoices(customer, status="draft")[0]
    assert (draft.billing_reason, draft.automatically_finalizes_at) == ("subscription_cycle", end + HOUR)
    # Usage of the old period that comes late, and of the new one.
    payload = {"stripe_customer_id": customer.id, "value": "100"}
    api.billing.meter_events.create({"event_name": shop.meter.event_name, "payload": payload, "timestamp": end - 60})
    shop.use(customer, 7)
    shop.to(end + HOUR)
    second = api.invoices.retrieve(draft.id)
    lines = {line.pricing.price_details.price: line for line in api.invoices.line_items.list(second.id).data}
    used = lines[shop.metered.id]
    assert (used.quantity, used.amount, used.period.start, used.period.end) == (201, 101, start, end)
    assert used.parent.subscription_item_details.subscription == made.id
    assert lines[shop.basic.id].period.start == end and second.status == "paid" and second.total == 1101
    assert second.number and second.hosted_invoice_url and second.status_transitions.finalized_at == end + HOUR

    api.subscriptions.update(made.id, {"cancel_at_period_end": True, "metadata": {"tenant": "t2"}})
    again = api.subscriptions.update(made.id, {"cancel_at_period_end": False})
    assert again.cancel_at is None and again.metadata["tenant"] == "t2"
    ending = api.subscriptions.update(made.id, {"cancel_at_period_end": True})
    assert ending.cancel_at == end_of(ending)
    shop.to(end_of(ending) + HOUR)
    over = api.subscriptions.retrieve(made.id)
    assert over.status == "canceled" and over.ended_at == end_of(ending)
    last = shop.invoices(customer)[0]
    assert (last.total, last.status, len(last.lines.data)) == (4, "paid", 1) or last.amount_due == 0, last
    assert not api.subscriptions.list({"customer": customer.id}).data
    assert [one.id for one in api.subscriptions.list({"customer": customer.id, "status": "all"}).data] == [made.id]
    change = lambda: api.subscriptions.update(made.id, {"cancel_at_period_end": True})
    refused(stripe.InvalidRequestError, change, 400)
    # What is too little to charge is owed until next time.
    assert api.customers.retrieve(customer.id).balance == 4
    transactions = api.customers.balance_transactions.list(customer.id).data
    assert [(one.type, one.amount, one.invoice) for one in transactions] == [("applied_to_invoice", 4, last.id)]

    now = shop.now()
    for wrong in ({"billing_cycle_anchor": now - 1}, {"billing_cycle_anchor": now + 40 * DAY}, {"trial_end": now}):
        refused(stripe.InvalidRequestError, lambda: shop.subscribe(customer, **wrong), 400)
    nothing = api.customers.create({"name": "No card"})
    refused(stripe.InvalidRequestError, lambda: shop.subscribe(nothing), 400, "resource_missing")
    assert shop.subscribe(nothing, payment_behavior="default_incomplete").status == "incomplete"
    poor = shop.customer("pm_card_chargeCustomerFail")
    strict = lambda: shop.subscribe(poor, payment_behavior="error_if_incomplete")
    refused(stripe.CardError, strict, 402, "card_declined")
    assert not api.subscriptions.list({"customer": poor.id, "status": "all"}).data


def changes(api, base):
    shop = Shop(api, base)
    customer = shop.customer()
    now = shop.now()
    anchored = shop.subscribe(customer, billing_cycle_anchor=now + 10 * DAY)
    part = api.invoices.retrieve(anchored.latest_invoice)
    assert 0 < part.total < 500 and end_of(anchored) == now + 10 * DAY
    free = shop.subscribe(shop.customer(), billing_cycle_anchor=now + 10 * DAY, proration_behavior="none")
    assert free.latest_invoice is None and free.status == "active"

    shop.to(now + 5 * DAY)
    item = anchored["items"].data[0].id
    change = {"items": [{"id": item, "price": shop.pro.id}], "proration_behavior": "create_prorations"}
    preview = api.invoices.create_preview({"subscription": anchored.id, "subscription_details": change})
    changed = api.subscriptions.update(anchored.id, change)
    assert changed["items"].data[0].price.id == shop.pro.id and end_of(changed) == now + 10 * DAY
    waiting = api.invoice_items.list({"customer": customer.id, "pending": True}).data
    assert sorted(one.amount < 0 for one in waiting) == [False, True] and all(one.proration for one in waiting)
    half = [one.amount for one in waiting if one.amount < 0][0]
    assert abs(half + part.total / 2) <= 1, "the credit is a part of what was billed"
    shop.to(now + 10 * DAY)
    draft = shop.invoices(customer)[0]
    assert draft.total == preview.total == 3000 + sum(one.amount for one in waiting)
    assert draft.lines.data[0].parent.subscription_item_details.proration

    without = {"items": [{"id": item, "price": shop.basic.id}], "proration_behavior": "none"}
    api.subscriptions.update(anchored.id, without)
    assert not api.invoice_items.list({"customer": customer.id, "pending": True}).data
    at_once = {"items": [{"id": item, "price": shop.pro.id, "quantity": 2}], "proration_behavior": "always_invoice"}
    updated = api.subscriptions.update(anchored.id, at_once)
    newest = api.invoices.retrieve(updated.latest_invoice)
    assert (newest.billing_reason, newest.status) == ("subscription_update", "paid")
    gone = api.subscriptions.cancel(anchored.id, {"invoice_now": True, "prorate": True})
    assert gone.status == "canceled" and gone.cancellation_details.reason == "cancellation_requested"
    shop.to(now + 11 * DAY)
    last = shop.invoices(customer)[0]
    # A sum below zero bills nothing and stays on the balance.
    assert last.total < 0 and last.amount_due == 0 and api.customers.retrieve(customer.id).balance == last.total

    trial = shop.subscribe(shop.customer(), trial_end=shop.now() + 10 * DAY)
    zero = api.invoices.retrieve(trial.latest_invoice)
    assert (trial.status, zero.total, zero.status) == ("trialing", 0, "paid")
    shop.to(trial.trial_end - 3 * DAY)
    assert trial.id in [one.data.object.id for one in shop.events("customer.subscription.trial_will_end")]
    shop.to(trial.trial_end + HOUR)
    assert api.subscriptions.retrieve(trial.id).status == "active"
    first = api.invoices.list({"subscription": trial.id}).data[0]
    assert first.total == 1000 and first.status == "paid"
    cut = shop.subscribe(shop.customer(), trial_period_days=14)
    cut = api.subscriptions.update(cut.id, {"trial_end": "now"})
    assert cut.status == "active" and api.invoices.retrieve(cut.latest_invoice).amount_paid == 1000
    unpaid = {"end_behavior": {"missing_payment_method": "cancel"}}
    lost = shop.subscribe(shop.customer(None), trial_period_days=1, trial_settings=unpaid)
    shop.to(shop.now() + DAY)
    assert api.subscriptions.retrieve(lost.id).status == "canceled"


def dunning(api, base):
    shop = Shop(api, base)
    control(base, "POST", "settings", {"after_retries": "unpaid", "finalization_grace_seconds": 72 * HOUR})
    customer = shop.customer()
    made = shop.subscribe(customer)
    control(base, "POST", f"customers/{customer.id}/card", {"card": "4000000000000341"})
    end = end_of(made)
    shop.to(end + 72 * HOUR - 1)
    assert shop.invoices(customer)[0].status == "draft"
    shop.to(end + 72 * HOUR)
    failed = shop.invoices(customer)[0]
    assert (failed.status, failed.attempt_count) == ("open", 1) and failed.next_payment_attempt == shop.now() + DAY
    assert api.subscriptions.retrieve(made.id).status == "past_due"
    told = [one for one in shop.events("invoice.payment_failed") if one.data.object.id == failed.id]
    assert len(told) == 1 and told[0].created == shop.now() and told[0].request.id is None
    finalized = shop.now()
    shop.to(finalized + 7 * DAY)
    failed = api.invoices.retrieve(failed.id)
    assert (failed.attempt_count, failed.next_payment_attempt) == (5, None)
    told = [one for one in shop.events("invoice.payment_failed") if one.data.object.id == failed.id]
    assert [one.created - finalized for one in told] == [7 * DAY, 5 * DAY, 3 * DAY, DAY, 0]
    assert api.subscriptions.retrieve(made.id).status == "unpaid"
    declined = api.charges.list({"customer": customer.id, "limit": 1}).data[0]
    assert (declined.paid, declined.failure_code) == (False, "card_declined")
    refused(stripe.CardError, lambda: api.invoices.pay(failed.id), 402, "card_declined")
    paid = api.invoices.pay(failed.id, {"payment_method": "pm_card_visa"})
    assert paid.status == "paid" and api.subscriptions.retrieve(made.id).status == "active"
    refused(stripe.InvalidRequestError, lambda: api.invoices.pay(failed.id), 400, "invoice_already_paid")

    control(base, "POST", "settings", {"after_retries": "cancel", "finalization_grace_seconds": HOUR})
    one, other = shop.customer(), shop.customer("pm_card_chargeCustomerFail")
    made = shop.subscribe(one)
    control(base, "POST", f"customers/{one.id}/card", {"card": "chargeCustomerFail"})
    shop.to(end_of(made) + HOUR + 7 * DAY)
    over = api.subscriptions.retrieve(made.id)
    assert (over.status, over.cancellation_details.reason) == ("canceled", "payment_failed")
    left = shop.invoices(one)[0]
    assert (left.status, left.auto_advance) == ("open", False)
    assert api.invoices.void_invoice(left.id).status == "void"
    refused(stripe.InvalidRequestError, lambda: api.invoices.void_invoice(left.id), 400)

    begun = shop.subscribe(other)
    assert begun.status == "incomplete"
    first = api.invoices.retrieve(begun.latest_invoice)
    assert first.status == "open" and api.invoices.mark_uncollectible(first.id).status == "uncollectible"
    shop.to(shop.now() + 23 * HOUR)
    assert api.subscriptions.retrieve(begun.id).status == "incomplete_expired"
    assert api.invoices.retrieve(first.id).status == "void"
    waits = shop.subscribe(other, payment_behavior="default_incomplete")
    assert api.invoices.retrieve(waits.latest_invoice).attempt_count == 0
    api.invoices.pay(waits.latest_invoice, {"payment_method": "pm_card_mastercard"})
    assert api.subscriptions.retrieve(waits.id).status == "active"
    control(base, "POST", "settings", {"after_retries": "unpaid"})


def corrections(api, base):
    shop = Shop(api, base)
    customer = shop.customer()
    made = shop.subscribe(customer)
    first = api.invoices.retrieve(made.latest_invoice, {"expand": ["payments.data.payment.payment_intent"]})
    intent = first.payments.data[0].payment.payment_intent
    some = api.refunds.create({"payment_intent": intent.id, "amount": 300, "metadata": {"why": "x"}})
    assert (some.status, some.charge) == ("succeeded", intent.latest_charge)
    too_much = lambda: api.refunds.create({"charge": some.charge, "amount": 701})
    refused(stripe.InvalidRequestError, too_much, 400, param="amount")
    assert api.refunds.update(some.id, {"metadata": {"why": "y"}}).metadata["why"] == "y"
    rest = api.refunds.create({"charge": some.charge, "reason": "requested_by_customer"})
    charge = api.charges.retrieve(some.charge, {"expand": ["refunds"]})
    assert (charge.refunded, charge.amount_refunded) == (True, 1000)
    assert [one.id for one in charge.refunds.data] == [rest.id, some.id]
    assert [one.id for one in api.refunds.list({"charge": charge.id}).data] == [rest.id, some.id]
    again = lambda: api.refunds.create({"charge": charge.id})
    refused(stripe.InvalidRequestError, again, 400, "charge_already_refunded")
    assert len([one for one in shop.events("charge.refunded") if one.data.object.id == charge.id]) == 2

    buyer = shop.customer()
    bought = shop.subscribe(buyer)
    paid = api.invoices.retrieve(bought.latest_invoice)
    for wrong in ({"amount": 1001, "credit_amount": 1001}, {"amount": 500}, {"amount": 500, "credit_amount": 400}):
        refused(stripe.InvalidRequestError, lambda: api.credit_notes.create({"invoice": paid.id, **wrong}), 400)
    line = {"type": "invoice_line_item", "invoice_line_item": paid.lines.data[0].id, "amount": 600}
    parts = {"credit_amount": 400, "refund_amount": 200, "lines": [line], "reason": "order_change"}
    note = api.credit_notes.create({"invoice": paid.id, **parts})
    assert (note.total, note.type, note.post_payment_amount) == (600, "post_payment", 600)
    assert api.refunds.retrieve(note.refunds[0].refund).amount == 200
    assert api.customers.retrieve(buyer.id).balance == -400
    assert api.invoices.retrieve(paid.id).post_payment_credit_notes_amount == 600
    assert [one.amount for one in api.credit_notes.line_items.list(note.id).data] == [600]
    shop.to(end_of(bought) + HOUR)
    next_one = shop.invoices(buyer)[0]
    assert (next_one.total, next_one.starting_balance, next_one.amount_due) == (1000, -400, 600)
    assert next_one.amount_paid == 600 and api.customers.retrieve(buyer.id).balance == 0

    owing = shop.customer()
    owes = shop.subscribe(owing)
    control(base, "POST", f"customers/{owing.id}/card", {"card": "chargeCustomerFail"})
    shop.to(end_of(owes) + HOUR)
    owed = shop.invoices(owing)[0]
    part = api.credit_notes.create({"invoice": owed.id, "amount": 250})
    assert part.type == "pre_payment" and api.invoices.retrieve(owed.id).amount_remaining == 750
    assert api.credit_notes.void_credit_note(part.id).status == "void"
    assert api.invoices.retrieve(owed.id).amount_remaining == 1000
    api.credit_notes.create({"invoice": owed.id, "amount": 1000, "memo": "all of it"})
    assert api.invoices.retrieve(owed.id).status == "paid"
    assert api.subscriptions.retrieve(owes.id).status == "active"
    assert len(api.credit_notes.list({"invoice": owed.id}).data) == 2
    adjusted = api.customers.balance_transactions.create(owing.id, {"amount": -100, "currency": "usd"})
    assert (adjusted.type, adjusted.ending_balance) == ("adjustment", -100)


def disputes(api, base):
    shop = Shop(api, base)
    customer = shop.customer()
    shop.subscribe(customer)
    charge = api.charges.list({"customer": customer.id}).data[0]
    opened = control(base, "POST", "disputes", {"charge": charge.id, "reason": "product_not_received"})
    assert api.disputes.retrieve(opened["id"]).status == "needs_response"
    assert api.charges.retrieve(charge.id).disputed
    refused(stripe.InvalidRequestError, lambda: api.refunds.create({"charge": charge.id}), 400, "charge_disputed")
    won = control(base, "POST", f"disputes/{opened['id']}", {"outcome": "won"})
    assert won["status"] == "won"
    refused(stripe.InvalidRequestError, lambda: api.disputes.close(opened["id"]), 400)
    angry = shop.customer("pm_card_createDispute")
    shop.subscribe(angry)
    charge = api.charges.list({"customer": angry.id}).data[0]
    found = api.disputes.list({"charge": charge.id}).data
    assert [one.reason for one in found] == ["fraudulent"] and api.disputes.close(found[0].id).status == "lost"
    kinds = ["charge.dispute.created", "charge.dispute.closed", "charge.dispute.funds_reinstated"]
    assert {one.type for one in shop.events(*kinds)} == set(kinds)


def taxes(api, base):
    shop = Shop(api, base)
    control(base, "POST", "settings", {"tax_basis_points": 810})
    customer = shop.customer()
    api.customers.update(customer.id, {"address": {"country": "CH"}})
    made = shop.subscribe(customer, automatic_tax={"enabled": True})
    first = api.invoices.retrieve(made.latest_invoice)
    assert (first.subtotal, first.total_taxes[0].amount, first.total) == (1000, 81, 1081)
    control(base, "POST", "settings", {"tax_basis_points": 0})
    assert control(base, "GET", "settings")["tax_basis_points"] == 0


def month_ends(api, base):
    """A subscription that is anchored on the last day of January, over a year."""
    shop = Shop(api, base)
    moment = datetime.fromtimestamp(shop.now(), timezone.utc)
    january = datetime(moment.year + 1, 1, 31, 12, tzinfo=timezone.utc)
    shop.to(int(january.timestamp()))
    customer = shop.customer()
    made = shop.subscribe(customer)
    ends = []
    for _ in range(12):
        end = end_of(api.subscriptions.retrieve(made.id))
        ends.append(datetime.fromtimestamp(end, timezone.utc))
        shop.use(customer, 200)
        shop.to(end + HOUR)
    last = 29 if (january.year % 4, january.year % 100) == (0, 0) or january.year % 4 == 0 else 28
    assert [one.day for one in ends] == [last, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31], ends
    assert all((one.hour, one.minute) == (12, 0) for one in ends)
    paid = [one.total for one in api.invoices.list({"customer": customer.id, "limit": 100}).data]
    assert paid == [1100] * 12 + [1000]


CHAPTERS = [cards, subscriptions, changes, dunning, corrections, disputes, taxes, month_ends]
