"""Checks of cards, first invoices, Checkout and of money that goes back: what shows without any waiting."""

import stripe
from live_shop import DAY, HOUR, buyer, charge_of, disputed, give, invoices, period, priced, shop, subscribe, use, win
from verdicts import NotRun, check, expect, refused, same

DECLINED = {
    "pm_card_chargeDeclined": "card_declined",
    "pm_card_chargeDeclinedInsufficientFunds": "card_declined",
    "pm_card_chargeDeclinedExpiredCard": "expired_card",
    "pm_card_chargeDeclinedIncorrectCvc": "incorrect_cvc",
    "pm_card_chargeDeclinedProcessingError": "processing_error",
}


@check("STANDIN-CARD-1")
def cards(site):
    customer = buyer(site, card=None)
    attach = lambda card: site.api.payment_methods.attach(card, {"customer": customer}).id
    one, other = attach("pm_card_visa"), attach("pm_card_visa")
    expect(len({one, other, "pm_card_visa"}) == 3, f"the payment methods are {one} and {other}")
    for card, code in DECLINED.items():
        refused(lambda: attach(card), 402, "card_error", code=code)
    give(site, customer, "pm_card_chargeCustomerFail")
    pays = lambda: subscribe(site, customer, shop(site).basic, payment_behavior="error_if_incomplete")
    refused(pays, 402, "card_error", code="card_declined")


@check("STANDIN-SUB-1")
def first_invoices(site):
    sale, now = shop(site), site.now()
    made = subscribe(site, buyer(site), sale.basic, sale.metered)
    same(made.billing_mode.type, "flexible", "the billing mode")
    first = site.api.invoices.retrieve(made.latest_invoice)
    same((first.status, priced(first)), ("paid", [(sale.basic, 1, 1000)]), "the first invoice")
    same(subscribe(site, buyer(site), sale.metered).latest_invoice, None, "the invoice of usage alone")
    free = {"billing_cycle_anchor": now + DAY // 2, "proration_behavior": "none"}
    same(subscribe(site, buyer(site), sale.basic, **free).latest_invoice, None, "the invoice up to the anchor")


def many_lines(site):
    """A customer's subscription to eleven prices."""
    customer, sale = buyer(site), shop(site)
    return customer, subscribe(site, customer, *(sale.price(str(100 + each)) for each in range(11)))


def listed(site, invoice):
    """How many lines its pages have, and what they come to."""
    lines = list(site.api.invoices.line_items.list(invoice.id, {"limit": 4}).auto_paging_iter())
    return len({one.id for one in lines}), sum(one.amount for one in lines)


@check("STANDIN-INVOICE-6")
def included_lines(site):
    bill = site.api.invoices.retrieve(many_lines(site)[1].latest_invoice)
    same((len(bill.lines.data), bill.lines.has_more), (10, True), "the lines of an invoice of eleven")
    same(listed(site, bill), (11, bill.total), "the lines on its pages, and their sum")


@check("STANDIN-PREVIEW-2")
def lines_of_a_preview(site):
    customer, made = many_lines(site)
    preview = site.api.invoices.create_preview({"customer": customer, "subscription": made.id})
    same((len(preview.lines.data), preview.lines.has_more), (10, True), "the lines of a preview of eleven")
    same(listed(site, preview), (11, preview.total), "the lines on its pages, and their sum")


@check("STANDIN-INVOICE-2")
def rounding(site):
    sale = shop(site)
    lines = [("0.5", 101, 51), ("0.333333333333", 300, 100), ("0.124999999999", 100, 12), ("0.125", 100, 13)]
    items = [{"price": sale.price(each), "quantity": count} for each, count, _ in lines]
    made = site.api.subscriptions.create({"customer": buyer(site), "items": items})
    found = {price: amount for price, _, amount in priced(site.api.invoices.retrieve(made.latest_invoice))}
    same([found[one["price"]] for one in items], [amount for _, _, amount in lines], "the amounts")


@check("STANDIN-INVOICE-3")
def below_zero(site):
    sale, customer = shop(site), buyer(site)
    made = subscribe(site, customer, sale.basic, sale.metered)
    use(site, customer, -3, period(made)[0])
    preview = site.api.invoices.create_preview({"customer": customer, "subscription": made.id})
    used = [line[1:] for line in priced(preview) if line[0] == sale.metered]
    same(used, [(0, 0)], "quantity and amount of usage below zero")
    site.api.subscriptions.cancel(made.id, {"invoice_now": True, "prorate": True})
    last = invoices(site, customer)[0]
    if last.status == "draft":
        last = site.api.invoices.finalize_invoice(last.id)
    expect(last.total < 0, f"the last invoice is over {last.total}")
    balance = site.api.customers.retrieve(customer).balance
    same((last.amount_due, balance), (0, last.total), "what is due, and the balance")


@check("STANDIN-INVOICE-5")
def too_little(site):
    customer = buyer(site)
    made = subscribe(site, customer, shop(site).price("49"))
    first = site.api.invoices.retrieve(made.latest_invoice)
    found = (first.total, first.status, first.amount_due, first.amount_paid)
    same(found, (49, "paid", 0, 0), "total, status, and what is due and paid")
    same(site.api.customers.retrieve(customer).balance, 49, "the balance")
    made = subscribe(site, buyer(site), shop(site).price("50"))
    same(site.api.invoices.retrieve(made.latest_invoice).amount_paid, 50, "what is paid of 50")
    return "for US dollars"


@check("STANDIN-PREVIEW-1")
def previews(site):
    sale, customer = shop(site), buyer(site)
    made = subscribe(site, customer, sale.basic, sale.metered)
    use(site, customer, 101, period(made)[0])
    preview = lambda **rest: site.api.invoices.create_preview({"customer": customer, "subscription": made.id, **rest})
    same(sorted(priced(preview())), sorted([(sale.basic, 1, 1000), (sale.metered, 101, 51)]), "the next invoice")
    item = {"id": made["items"].data[0].id, "price": sale.pro}
    change = {"items": [item], "proration_behavior": "always_invoice"}
    now = priced(preview(subscription_details=change))
    same({(price, amount > 0) for price, _, amount in now}, {(sale.basic, False), (sale.pro, True)}, "a change's lines")


def session(site, customer, **rest):
    sale = shop(site)
    lines = [{"price": sale.basic, "quantity": 1}, {"price": sale.metered}]
    fixed = {"mode": "subscription", "customer": customer, "success_url": "https://example.com/", "line_items": lines}
    made = site.api.checkout.sessions.create({**fixed, **rest})
    site.later(site.api.checkout.sessions.expire, made.id)
    return made


@check("STANDIN-TAX-1")
def tax_in_checkout(site):
    customer, taxed = buyer(site, card=None), {"automatic_tax": {"enabled": True}}
    try:
        session(site, customer, customer_update={"address": "auto"}, **taxed)
    except stripe.InvalidRequestError as error:
        raise NotRun(f"needs Stripe Tax, set up in the Dashboard: {error}") from error
    refused(lambda: session(site, customer, **taxed), 400, code="customer_tax_location_invalid")
    return "for Checkout; what tax comes to is set by where the account is registered, and not looked at"


@check("STANDIN-CHECKOUT-1")
def times_in_checkout(site):
    customer, now = buyer(site, card=None), site.now()
    made = session(site, customer)
    same(made.expires_at - made.created, DAY, "how long a session is open")
    for name, near, far, wrong in [
        ("billing_cycle_anchor", now + HOUR, now + DAY - HOUR, now + DAY + HOUR),
        ("trial_end", now + 49 * HOUR, now + 60 * DAY, now + 47 * HOUR),
    ]:
        for time in (near, far):
            session(site, customer, subscription_data={name: time})
        refused(lambda: session(site, customer, subscription_data={name: wrong}), 400)
    return "an anchor that goes by while the session is open is not looked at"


@check("STANDIN-REFUND-1")
def refunds(site):
    charge = charge_of(site, subscribe(site, buyer(site), shop(site).basic))
    refund = lambda **rest: site.api.refunds.create({"charge": charge, **rest})
    same(refund(amount=300).status, "succeeded", "the refund's status")
    refused(lambda: refund(amount=701), 400)
    same(refund().amount, 700, "what was left")
    refused(refund, 400, code="charge_already_refunded")
    charge, dispute = disputed(site)
    refused(refund, 400, code="charge_disputed")
    win(site, dispute.id)
    refused(refund, 400, code="charge_disputed")


@check("STANDIN-CREDIT-1")
def credit_notes(site):
    sale, buys = shop(site), lambda **rest: subscribe(site, buyer(site), shop(site).basic, **rest).latest_invoice
    note = lambda invoice, amount, **rest: site.api.credit_notes.create({"invoice": invoice, "amount": amount, **rest})
    left = lambda invoice: (invoice.status, invoice.amount_remaining)
    owed = buys(payment_behavior="default_incomplete")
    refused(lambda: note(owed, 250, credit_amount=250), 400)
    for amount, wanted in [(250, ("open", 750)), (750, ("paid", 0))]:
        note(owed, amount)
        same(left(site.api.invoices.retrieve(owed)), wanted, f"status and rest after {amount}")
    customer = buyer(site)
    paid = subscribe(site, customer, sale.basic).latest_invoice
    for wrong in ({}, {"credit_amount": 400}, {"credit_amount": 400, "refund_amount": 201}):
        refused(lambda: note(paid, 600, **wrong), 400)
    note(paid, 600, credit_amount=300, refund_amount=200, out_of_band_amount=100)
    same(site.api.customers.retrieve(customer).balance, -300, "the balance")
    refused(lambda: note(paid, 401, credit_amount=401), 400)
    note(paid, 400, credit_amount=400)
    return "without tax"


@check("STANDIN-DISPUTE-1")
def disputes(site):
    _, dispute = disputed(site)
    same(dispute.status, "needs_response", "the status")
    days = (dispute.evidence_details.due_by - dispute.created) / DAY
    expect(20 < days < 22, f"it needs a response for {days:.2f} days")

    def told(kind):
        found = site.api.events.list({"types": [f"charge.dispute.{kind}"], "limit": 100}).data
        return dispute.id in [one.data.object.id for one in found]

    site.until(lambda: told("funds_withdrawn"))
    expect(not told("funds_reinstated"), "the money is back at once")
    win(site, dispute.id)
    site.until(lambda: told("funds_reinstated"))
    return f"with {days:.2f} days; that it stays open all that time is not looked at"
