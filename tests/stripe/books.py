"""The last part of the story: customers who do whatever they please, in an order that a seed draws, and books that balance
all the same. What is refused on the way is no matter here; what is not refused must add up."""

import random
import urllib.error

import stripe
from money import DAY, HOUR, Shop, end_of
from standin import control

SEEDS = (1, 2)
STEPS = 200
SMALLEST = 50
DOINGS = ["subscribe"] * 3 + ["use", "wait", "card", "change", "end", "cancel", "pay", "credit", "refund", "void"]


def act(shop, rng, customer):
    """One thing that somebody does."""
    api = shop.api
    subscription = next(iter(api.subscriptions.list({"customer": customer.id}).data), None)
    invoices = shop.invoices(customer)
    charges = api.charges.list({"customer": customer.id}).data
    what = rng.choice(DOINGS)
    if what == "subscribe" and not subscription:
        anchor = {"billing_cycle_anchor": shop.now() + DAY * rng.randrange(1, 27)}
        taxed = {"automatic_tax": {"enabled": True}}
        shop.subscribe(customer, **rng.choice([{}, {"trial_period_days": 5}, anchor, taxed]))
    elif what == "use":
        shop.use(customer, rng.randrange(-200, 2000))
    elif what == "wait":
        shop.to(shop.now() + rng.choice([HOUR, DAY, 9 * DAY, 32 * DAY]))
    elif what == "card":
        card = rng.choice(["visa", "visa", "chargeCustomerFail"])
        control(shop.base, "POST", f"customers/{customer.id}/card", {"card": card})
    elif what == "change" and subscription:
        item = {"id": subscription["items"].data[0].id, "quantity": rng.randrange(3)}
        item["price"] = rng.choice([shop.basic.id, shop.pro.id])
        behavior = rng.choice(["none", "create_prorations", "always_invoice"])
        api.subscriptions.update(subscription.id, {"items": [item], "proration_behavior": behavior})
    elif what == "end" and subscription:
        api.subscriptions.update(subscription.id, {"cancel_at_period_end": rng.random() < 0.5})
    elif what == "cancel" and subscription and rng.random() < 0.3:
        details = {"invoice_now": rng.random() < 0.5, "prorate": rng.random() < 0.5}
        api.subscriptions.cancel(subscription.id, details)
    elif what == "pay" and invoices:
        api.invoices.pay(rng.choice(invoices).id)
    elif what == "credit" and invoices:
        amount = rng.randrange(1, 1500)
        parts = rng.choice([{}, {"credit_amount": amount}, {"refund_amount": amount}])
        api.credit_notes.create({"invoice": rng.choice(invoices).id, "amount": amount, **parts})
    elif what == "refund" and charges:
        api.refunds.create({"charge": rng.choice(charges).id, "amount": rng.randrange(1, 800)})
    elif what == "void" and invoices and rng.random() < 0.3:
        api.invoices.void_invoice(rng.choice(invoices).id)


def balanced(shop, customer):
    """Lines make totals, totals and the balance make what is due, charges make what was paid."""
    api, whole = shop.api, {"limit": 100}
    transactions = api.customers.balance_transactions.list(customer.id, whole).auto_paging_iter()
    assert api.customers.retrieve(customer.id).balance == sum(one.amount for one in transactions)
    invoices = list(api.invoices.list({"customer": customer.id, **whole}).auto_paging_iter())
    for one in invoices:
        # An invoice itself has the first ten.
        lines = list(api.invoices.line_items.list(one.id, whole).auto_paging_iter())
        assert one.subtotal == sum(line.amount for line in lines), one.id
        assert one.total == one.subtotal + sum(tax.amount for line in lines for tax in line.taxes), one.id
        if one.status == "draft":
            continue
        raw = one.total + one.starting_balance
        charged = raw if raw >= SMALLEST else 0
        assert one.amount_due + one.pre_payment_credit_notes_amount == charged, one.id
        assert one.ending_balance == raw - charged, one.id
        assert one.amount_paid + one.amount_remaining == one.amount_due, one.id
    charges = list(api.charges.list({"customer": customer.id, **whole}).auto_paging_iter())
    assert sum(one.amount_paid for one in invoices) == sum(one.amount for one in charges if one.paid)
    refunds = [one for charge in charges for one in api.refunds.list({"charge": charge.id}).data]
    assert sum(one.amount for one in refunds) == sum(one.amount_refunded for one in charges)
    for one in api.subscriptions.list({"customer": customer.id, "status": "all"}).data:
        assert one.status in ("canceled", "incomplete_expired") or end_of(one) > shop.now(), one.id
    return len(invoices)


def books(api, base):
    for seed in SEEDS:
        rng = random.Random(seed)
        shop = Shop(api, base)
        after = rng.choice(["cancel", "unpaid", "past_due"])
        control(base, "POST", "settings", {"after_retries": after, "tax_basis_points": 810})
        customers = [shop.customer() for _ in range(5)]
        for _ in range(STEPS):
            try:
                act(shop, rng, rng.choice(customers))
            except (stripe.InvalidRequestError, stripe.CardError, urllib.error.HTTPError):
                continue
        shop.to(shop.now() + 40 * DAY)
        assert sum(balanced(shop, one) for one in customers) > 20, "something happened"
    control(base, "POST", "settings", {"after_retries": "unpaid", "tax_basis_points": 0})


CHAPTERS = [books]
