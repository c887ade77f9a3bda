"""Checks of what comes with time: periods, trials, changes in the middle, and payments that fail. All periods are days."""

from live_shop import DAY, HOUR, MINUTE, Clock, buyer, give, invoices, period, priced, shop, subscribe, use, waiting
from verdicts import Unseen, check, expect, refused, same

LONGEST_GRACE = 72 * HOUR


def share(amount, part, whole):
    """A part of an amount, rounded half away from zero."""
    return (2 * amount * part + whole) // (2 * whole)


def status(site, subscription):
    return site.api.subscriptions.retrieve(subscription.id).status


def quantities(site, invoice):
    """How much usage an invoice bills."""
    return [quantity for price, quantity, _ in priced(invoice) if price == shop(site).metered]


def final(site, clock, customer):
    """The newest invoice; while it is a draft, the time moves on until it is none."""
    newest = invoices(site, customer)[0]
    if newest.status == "draft":
        expect(newest.automatically_finalizes_at, "the newest invoice stays a draft")
        clock.to(newest.automatically_finalizes_at + MINUTE)
    return site.api.invoices.retrieve(newest.id)


@check("STANDIN-SUB-2")
def incomplete(site):
    clock, sale = Clock(site), shop(site)
    refused(lambda: subscribe(site, buyer(site, clock, card=None), sale.basic), 400, code="resource_missing")
    made = subscribe(site, buyer(site, clock, "pm_card_chargeCustomerFail"), sale.basic)
    same(made.status, "incomplete", "the status")
    first = lambda: site.api.invoices.retrieve(made.latest_invoice)
    for after, wanted in [(-MINUTE, ("incomplete", "open", 1)), (MINUTE, ("incomplete_expired", "void", 1))]:
        clock.to(period(made)[0] + 23 * HOUR + after)
        found = (status(site, made), first().status, first().attempt_count)
        same(found, wanted, f"the statuses and the attempts {after} s after 23 hours")


@check("STANDIN-SUB-3")
def endings(site):
    clock, sale, api = Clock(site), shop(site), site.api
    at_end, at_once, with_bill = (buyer(site, clock) for _ in range(3))
    made = {one: subscribe(site, one, sale.basic, sale.metered) for one in (at_end, at_once, with_bill)}
    for customer, subscription in made.items():
        use(site, customer, 200, period(subscription)[0])
    clock.to(clock.now() + HOUR)
    api.subscriptions.update(made[at_end].id, {"cancel_at_period_end": True})
    api.subscriptions.cancel(made[at_once].id)
    api.subscriptions.cancel(made[with_bill].id, {"invoice_now": True})
    found = final(site, clock, with_bill)
    same((found.status, priced(found)), ("paid", [(sale.metered, 200, 100)]), "the invoice that was asked for")
    owing = subscribe(site, at_once, sale.basic)
    give(site, at_once, "pm_card_chargeCustomerFail")
    clock.to(period(owing)[1] + MINUTE)
    same(status(site, made[at_end]), "canceled", "the status after the period")
    found = final(site, clock, at_end)
    same((found.status, priced(found)), ("paid", [(sale.metered, 200, 100)]), "the last invoice")
    same(final(site, clock, at_once).status, "open", "the status of what is owed")
    api.subscriptions.cancel(owing.id)
    billed = [(one.status, one.auto_advance, one.total) for one in invoices(site, at_once)]
    same(billed[0], ("open", False, 1000), "status, auto_advance and total after the end")
    same([total for _, _, total in billed], [1000] * 3, "the invoices of who was not billed for usage")


@check("STANDIN-CANCEL-1")
def ends_at(site):
    clock, sale, api = Clock(site), shop(site), site.api
    customer = buyer(site, clock)
    made = subscribe(site, customer, sale.basic, sale.metered)
    end = period(made)[1]
    change = lambda **what: api.subscriptions.update(made.id, what)
    ending = lambda one: (one.cancel_at, one.cancel_at_period_end)
    same(ending(change(cancel_at=end)), (end, False), "a time to end at, and the flag")
    same(ending(change(cancel_at_period_end=False)), (end, False), "the time, after the flag is taken back")
    refused(lambda: change(cancel_at="", cancel_at_period_end=False), 400)
    same(ending(change(cancel_at="")), (None, False), "the time, after it is cleared")
    change(cancel_at=end)
    use(site, customer, 200, period(made)[0])
    clock.to(end + MINUTE)
    same(status(site, made), "canceled", "the status after that time")
    found = final(site, clock, customer)
    same((found.status, priced(found)), ("paid", [(sale.metered, 200, 100)]), "the last invoice")


@check("STANDIN-TRIAL-1")
def trials(site):
    clock, sale = Clock(site), shop(site)
    customer = buyer(site, clock)
    made = subscribe(site, customer, sale.basic, sale.metered, trial_end=clock.now() + DAY)
    use(site, customer, 200, made.trial_start)
    clock.to(made.trial_end + MINUTE)
    first = final(site, clock, customer)
    same((sum(quantities(site, first)), first.total), (0, 1000), "usage and total of the first bill")
    clock.to(made.trial_end + DAY + MINUTE)
    same(quantities(site, final(site, clock, customer)), [0], "the usage of the next bill")


@check("STANDIN-PRORATE-1")
def parts_of_periods(site):
    clock, sale = Clock(site), shop(site)
    paid, free = buyer(site, clock), buyer(site, clock)
    made = subscribe(site, paid, sale.basic)
    start, end = period(made)
    given = subscribe(site, free, sale.basic, billing_cycle_anchor=end, proration_behavior="none")
    # At this second, 502.5 of 1000 and 1507.5 of 3000 are left.
    clock.to(end - 43416)
    for one in (made, given):
        items = [{"id": one["items"].data[0].id, "price": sale.pro}]
        site.api.subscriptions.update(one.id, {"items": items, "proration_behavior": "create_prorations"})
    for customer, credited in [(paid, 1000), (free, 0)]:
        found = waiting(site, customer)
        left = end - found[0][0]
        wanted = {sale.pro: share(3000, left, DAY), sale.basic: -share(credited, left, end - start)}
        wanted = {price: amount for price, amount in wanted.items() if amount}
        same({price: amount for _, price, amount in found}, wanted, f"what waits with {left} s left")
    return f"with {left} s left"


@check("STANDIN-PRORATE-2")
def changed_usage(site):
    clock, sale = Clock(site), shop(site)
    customer, dear = buyer(site, clock), sale.price("2", usage_type="metered", meter=sale.meter.id)
    made = subscribe(site, customer, sale.metered)
    start, end = period(made)
    use(site, customer, 200, start)
    clock.to(start + 6 * HOUR)
    site.api.subscriptions.update(made.id, {"items": [{"id": made["items"].data[0].id, "price": dear}]})
    found = [(price, amount) for _, price, amount in waiting(site, customer)]
    same(found, [(sale.metered, 100)], "what waits")
    clock.to(start + 7 * HOUR)
    use(site, customer, 100, clock.now())
    use(site, customer, 50, start + HOUR)
    clock.to(end + MINUTE)
    found = sorted((price, amount) for price, _, amount in priced(final(site, clock, customer)))
    same(found, sorted([(sale.metered, 100), (dear, 200)]), "the lines")


@check("STANDIN-INVOICE-1")
def grace(site):
    clock, sale = Clock(site), shop(site)
    customer = buyer(site, clock)
    made = subscribe(site, customer, sale.basic, sale.metered)
    end = period(made)[1]
    clock.to(end + MINUTE)
    draft = invoices(site, customer)[0]
    kept = draft.automatically_finalizes_at - end
    expect(draft.status == "draft" and 0 < kept <= LONGEST_GRACE, f"it is {draft.status} for {kept} s")
    use(site, customer, 100, end - HOUR)
    clock.to(end + kept - MINUTE)
    same(invoices(site, customer)[0].status, "draft", "the status before the grace is over")
    clock.to(end + kept + MINUTE)
    bill = site.api.invoices.retrieve(draft.id)
    same((bill.status, quantities(site, bill)), ("paid", [100]), "status and usage after it")
    use(site, customer, 50, end - HOUR)
    clock.to(end + DAY + MINUTE)
    same(quantities(site, final(site, clock, customer)), [0], "the usage of the next bill")
    return f"with a grace of {kept} s; usage that summaries do not show yet is not looked at"


@check("STANDIN-INVOICE-4")
def order_of_lines(site):
    clock, sale = Clock(site), shop(site)
    customer = buyer(site, clock)
    made = subscribe(site, customer, sale.metered, sale.basic)
    start, end = period(made)
    clock.to(start + 6 * HOUR)
    licensed = next(one.id for one in made["items"].data if one.price.id == sale.basic)
    change = {"items": [{"id": licensed, "quantity": 2}], "proration_behavior": "create_prorations"}
    site.api.subscriptions.update(made.id, change)
    count = len(waiting(site, customer))
    clock.to(end + MINUTE)
    found = [line[:2] for line in priced(invoices(site, customer)[0])]
    same([price for price, _ in found[:count]], [sale.basic] * count, "the lines of what waited")
    same(found[count:], [(sale.metered, 0), (sale.basic, 2)], "the lines after it")


@check("STANDIN-DUNNING-2")
def active_again(site):
    clock, sale = Clock(site), shop(site)
    latest, earlier = buyer(site, clock), buyer(site, clock)
    made = {one: subscribe(site, one, sale.basic) for one in (latest, earlier)}
    ends = period(made[latest])[1]
    for customer in made:
        give(site, customer, "pm_card_chargeCustomerFail")
    for end in (ends, ends + DAY):
        clock.to(end + MINUTE)
        for customer in made:
            final(site, clock, customer)
    for customer, subscription in made.items():
        if status(site, subscription) != "past_due" or len(invoices(site, customer, status="open")) != 2:
            raise Unseen("the account's retries are over within a day")
        give(site, customer, "pm_card_visa")
    for customer, place, wanted in [(latest, 0, "active"), (earlier, 1, "past_due")]:
        site.api.invoices.pay(invoices(site, customer, status="open")[place].id)
        same(status(site, made[customer]), wanted, f"the status after paying invoice {place} of the two")
    return "how an unpaid one is made is set in the Dashboard, and its drafts are not looked at"
