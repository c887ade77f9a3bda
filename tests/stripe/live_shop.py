"""What checks of money need: something for sale, somebody who buys, and a time that can be moved on."""

import functools

from live_checks import event, new_customer, new_meter, new_product, summaries
from standin import control

MINUTE, HOUR, DAY = 60, 3600, 86400


class Clock:
    """A time that its customers live in: a test clock of Stripe's, or the stand-in's own."""

    def __init__(self, site):
        self.site, self.id = site, None
        self.clocks = site.api.test_helpers.test_clocks
        if not site.base:
            # A week of it lies in the past, so that no usage in it is refused as one of the future.
            self.id = self.clocks.create({"frozen_time": site.now() - 7 * DAY, "name": site.name("clock")[:100]}).id
            site.later(self.clocks.delete, self.id)

    def now(self):
        return self.clocks.retrieve(self.id).frozen_time if self.id else self.site.now()

    def to(self, time):
        """Moves it on, by two days at most: Stripe goes no further where subscriptions are by the day."""
        if self.id:
            self.clocks.advance(self.id, {"frozen_time": time})
            self.site.until(lambda: self.clocks.retrieve(self.id).status == "ready")
        else:
            control(self.site.base, "POST", "clock", {"advance_seconds": time - self.site.now()})


class Shop:
    """Two plans of 10.00 and 30.00 a day, and usage at half a cent."""

    def __init__(self, site):
        self.site, self.product, self.meter = site, new_product(site), new_meter(site, "shop")
        self.basic, self.pro = self.price("1000"), self.price("3000")
        self.metered = self.price("0.5", usage_type="metered", meter=self.meter.id)

    def price(self, each, **recurring):
        recurring = {"interval": "day", **recurring}
        asked = {"currency": "usd", "product": self.product, "recurring": recurring, "unit_amount_decimal": each}
        return self.site.api.prices.create(asked).id


# One is enough for all checks at a site.
shop = functools.cache(Shop)


def buyer(site, clock=None, card="pm_card_visa"):
    """A customer with a card, in the time of a clock."""
    customer = new_customer(site, **({"test_clock": clock.id} if clock and clock.id else {}))
    if card:
        give(site, customer, card)
    return customer


def give(site, customer, card):
    """From now on the customer pays with this card."""
    method = site.api.payment_methods.attach(card, {"customer": customer}).id
    site.api.customers.update(customer, {"invoice_settings": {"default_payment_method": method}})


def subscribe(site, customer, *prices, **rest):
    return site.api.subscriptions.create({"customer": customer, "items": [{"price": one} for one in prices], **rest})


def period(subscription):
    """In this version of the API it stands on the items."""
    first = subscription["items"].data[0]
    return first.current_period_start, first.current_period_end


def use(site, customer, value, at):
    """Usage at a time. Comes back when summaries show it, for before that it may not be on an invoice."""
    meter, minute = shop(site).meter, at // MINUTE * MINUTE
    shown = lambda: sum(sum_ for _, sum_ in summaries(site, meter, customer, minute, minute + MINUTE))
    before = shown()
    site.api.billing.meter_events.create(event(meter, customer, str(value), timestamp=at))
    site.until(lambda: shown() == before + value)


def invoices(site, customer, **rest):
    """The newest first."""
    return site.api.invoices.list({"customer": customer, **rest}).data


def priced(invoice):
    """Price, quantity and amount of each line."""
    return [(one.pricing.price_details.price, one.quantity, one.amount) for one in invoice.lines.data]


def waiting(site, customer):
    """What waits for an invoice: when from, at which price, and how much."""
    found = site.api.invoice_items.list({"customer": customer, "pending": True}).data
    return [(one.period.start, one.pricing.price_details.price, one.amount) for one in found]


def charge_of(site, subscription):
    """The charge that paid a subscription's first invoice."""
    invoice = site.api.invoices.retrieve(subscription.latest_invoice, {"expand": ["payments"]})
    return site.api.payment_intents.retrieve(invoice.payments.data[0].payment.payment_intent).latest_charge


def disputed(site):
    """A charge that its owner disputes, and the dispute."""
    charge = charge_of(site, subscribe(site, buyer(site, card="pm_card_createDispute"), shop(site).basic))
    found = lambda: site.api.disputes.list({"charge": charge}).data
    site.until(found)
    return charge, found()[0]


def win(site, dispute):
    if site.base:
        control(site.base, "POST", f"disputes/{dispute}", {"outcome": "won"})
    else:
        # Whoever says this to a sandbox wins: docs.stripe.com/testing
        site.api.disputes.update(dispute, {"evidence": {"uncategorized_text": "winning_evidence"}, "submit": True})
    site.until(lambda: site.api.disputes.retrieve(dispute).status == "won")
