"""One check per assumption of the stand-in's, by its id; those of money are in `live_money` and `live_calendar`. Each asks
through Stripe's SDK and may be run against Stripe and against the stand-in alike; what it returns is told beside the
verdict."""

from verdicts import Unseen, check, expect, header, refused, same

# Why nobody can check some of them in a minute and from outside.
NOT_CHECKABLE = {
    "STANDIN-IDEM-2": "takes a day of waiting",
    "STANDIN-RATE-1": "takes a load that docs.stripe.com/rate-limits asks not to put on sandboxes",
    "STANDIN-DUNNING-1": "when payments are tried again, and what comes then, is set in the Dashboard, and no API tells it",
    "STANDIN-CHECKOUT-2": "takes somebody who pays on Stripe's page",
    "STANDIN-PORTAL-3": "takes somebody who cancels on Stripe's page",
    "STANDIN-HOOK-1": "takes an address that Stripe reaches",
    "STANDIN-HOOK-2": "takes three days of waiting, and an address that Stripe reaches",
}


def new_customer(site, **rest):
    customer = site.api.customers.create({"name": site.name("customer"), **rest})
    site.later(site.api.customers.delete, customer.id)
    expect(customer.livemode is False, "the key is one of live mode")
    return customer.id


def new_product(site):
    product = site.api.products.create({"name": site.name("product")})
    # A product that has prices cannot be deleted.
    site.later(lambda id: site.api.products.update(id, {"active": False}), product.id)
    return product.id


def meter_of(event_name):
    return {
        "display_name": event_name,
        "event_name": event_name,
        "default_aggregation": {"formula": "sum"},
        "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
        "value_settings": {"event_payload_key": "value"},
    }


def new_meter(site, what, active=True):
    meter = site.api.billing.meters.create(meter_of(site.name(what)))
    (site.later if active else lambda undo, id: undo(id))(site.api.billing.meters.deactivate, meter.id)
    return meter


def event(meter, customer, value="1", **rest):
    payload = {"stripe_customer_id": customer, "value": value}
    return {"event_name": meter.event_name, "payload": payload, **rest}


def summaries(site, meter, customer, start, end, **rest):
    """Start and sum of each summary."""
    span = {"customer": customer, "start_time": start, "end_time": end, **rest}
    found = site.api.billing.meters.event_summaries.list(meter.id, span).data
    return [(one.start_time, one.aggregated_value) for one in found]


@check("STANDIN-KEY-1")
def permissions(site):
    site.narrow.customers.list({"limit": 1})
    refused(lambda: site.narrow.customers.create({}), 403)
    refused(lambda: site.narrow.products.list({"limit": 1}), 403)
    return "for customers and products; that writing includes reading is not looked at"


@check("STANDIN-KEY-2")
def a_missing_permission(site):
    error = refused(lambda: site.narrow.customers.create({}), 403, code=None)
    expect("customer_write" in str(error), f"the message is {error}")


@check("STANDIN-IDEM-1")
def what_is_kept(site):
    api, key = site.api, lambda what: {"idempotency_key": site.name(what)}
    made = [api.customers.create({"name": "kept"}, key("kept")) for _ in range(2)]
    site.later(api.customers.delete, made[0].id)
    same(made[1].id, made[0].id, "the second customer")
    same(header(made[1].last_response.headers, "idempotent-replayed"), "true", "Idempotent-Replayed")
    product = new_product(site)
    again = lambda: api.products.create({"id": product, "name": "again"}, key("refused"))
    for replayed in (None, "true"):
        error = refused(again, 400)
        same(header(error.headers, "idempotent-replayed"), replayed, "Idempotent-Replayed of a refusal")
    for what, wrong, status in [
        ("unknown", lambda: api.customers.create({"nmae": "x"}, key("unknown")), 400),
        ("nowhere", lambda: site.client.raw_request("post", "/v1/weir_nowhere", **key("nowhere")), 404),
    ]:
        refused(wrong, status)
        right = api.customers.create({"name": "right"}, key(what))
        site.later(api.customers.delete, right.id)
    return "for 200, a refusal, an unknown parameter and an unknown path; 500, 401 and 429 cannot be provoked"


@check("STANDIN-IDEM-3")
def one_key_at_once(site):
    product = new_product(site)
    number = iter(range(1000))

    def ask():
        # Each pair of requests has its key and its parameters; an equal pair after it would only get what is kept.
        pair = next(number) // 2
        changes = {"metadata": {"pair": str(pair)}}
        site.api.products.update(product, changes, {"idempotency_key": site.name(f"pair_{pair}")})

    error = site.at_once("/v1/products", ask)
    found = error.json_body["error"]
    found = (error.http_status, found.get("type"), found.get("code"))
    same(found, (409, "idempotency_error", "idempotency_key_in_use"), "status, type and code")


@check("STANDIN-RETRY-1")
def should_retry(site):
    name = "stripe-should-retry"
    nobody = site.client_of("sk_test_nobody_has_this_key_0000").v1
    for ask, status in [
        (lambda: site.api.customers.create({"nmae": "x"}), 400),
        (lambda: site.api.customers.retrieve("cus_weir_nobody"), 404),
        (lambda: nobody.customers.list(), 401),
    ]:
        same(header(refused(ask, status).headers, name), "false", f"Stripe-Should-Retry with {status}")
    listed = site.api.customers.list({"limit": 1})
    same(header(listed.last_response.headers, name), None, "Stripe-Should-Retry with 200")


@check("STANDIN-RATE-2")
def two_events_at_once(site):
    meter, customer = new_meter(site, "at_once"), new_customer(site)
    ask = lambda: site.api.billing.meter_events.create(event(meter, customer))
    error = site.at_once("/v1/billing/meter_events", ask)
    same((error.http_status, error.json_body["error"].get("code")), (429, "lock_timeout"), "status and code")


@check("STANDIN-USAGE-1")
def identifiers(site):
    meter, other, customer = new_meter(site, "usage_1"), new_meter(site, "usage_1b"), new_customer(site)
    record, identifier = site.api.billing.meter_events.create, site.name("identifier")
    record(event(meter, customer, identifier=identifier))
    for one, value in [(meter, "1"), (meter, "2"), (other, "1")]:
        error = refused(lambda: record(event(one, customer, value, identifier=identifier)), 400, code=None)
        expect(f"An event already exists with identifier {identifier}." in str(error), f"the message is {error}")
    return "for now; how long it is taken is not looked at"


@check("STANDIN-USAGE-2")
def times(site):
    meter, customer, now = new_meter(site, "usage_2"), new_customer(site), site.now()
    record = site.api.billing.meter_events.create
    for timestamp in (now - 35 * 86400 + 600, now + 200):
        record(event(meter, customer, timestamp=timestamp))
    for timestamp, code in [(now - 36 * 86400, "timestamp_too_far_in_past"), (now + 900, "timestamp_in_future")]:
        refused(lambda: record(event(meter, customer, timestamp=timestamp)), 400, code=code)


@check("STANDIN-USAGE-3")
def values(site):
    meter, customer = new_meter(site, "usage_3"), new_customer(site)
    for value in ("1.5", "many"):
        refused(lambda: site.api.billing.meter_events.create(event(meter, customer, value)), 400)
    site.api.billing.meter_events.create(event(meter, customer, "-3"))


@check("STANDIN-USAGE-4")
def what_never_counts(site):
    meter, idle, customer = new_meter(site, "usage_4"), new_meter(site, "idle", active=False), new_customer(site)
    gone = site.api.customers.create({"name": "gone"}).id
    site.api.customers.delete(gone)
    nameless = {"event_name": site.name("nobody_made_this"), "payload": {"stripe_customer_id": customer, "value": "1"}}
    empty = {"event_name": meter.event_name, "payload": {"stripe_customer_id": customer}}
    stray = {"event_name": meter.event_name, "payload": {"value": "1"}}
    for one in (nameless, empty, stray, event(idle, customer), event(meter, gone), event(meter, "cus_weir_nobody")):
        site.api.billing.meter_events.create(one)
    # Once this one counts, the others would, too.
    site.api.billing.meter_events.create(event(meter, customer, "64"))
    hour = site.now() // 3600 * 3600
    shown = lambda: [sum for _, sum in summaries(site, meter, customer, hour - 3600, hour + 7200)]
    site.until(shown)
    same(shown(), [64], "the sum")


@check("STANDIN-USAGE-5")
def lag(site):
    meter, customer = new_meter(site, "usage_5"), new_customer(site)
    minute = site.now() // 60 * 60 - 3600
    site.api.billing.meter_events.create(event(meter, customer, "5", timestamp=minute))
    took = site.until(lambda: [sum for _, sum in summaries(site, meter, customer, minute, minute + 60)] == [5])
    return f"seen after {took} s"


@check("STANDIN-SUMMARY-1")
def windows(site):
    meter, customer = new_meter(site, "summary"), new_customer(site)
    day = site.now() // 86400 * 86400 - 2 * 86400
    for at, value in [(0, "1"), (59, "2"), (60, "4"), (2 * 3600, "8")]:
        site.api.billing.meter_events.create(event(meter, customer, value, timestamp=day + at))
    shown = lambda start, end, **rest: summaries(site, meter, customer, day + start, day + end, **rest)
    took = site.until(lambda: shown(0, 86400) == [(day, 15)])
    for start, end, wanted in [(0, 60, [(day, 3)]), (60, 120, [(day + 60, 4)]), (120, 7200, []), (0, 120, [(day, 7)])]:
        same(shown(start, end), wanted, f"the sum from {start} to {end}")
    by_hour = shown(0, 86400, value_grouping_window="hour")
    same(by_hour, [(day + 7200, 8), (day, 7)], "the sums by hour")
    refused(lambda: shown(30, 120), 400)
    refused(lambda: shown(0, 90), 400)
    refused(lambda: shown(60, 7200, value_grouping_window="hour"), 400)
    refused(lambda: shown(3600, 86400, value_grouping_window="day"), 400)
    return f"seen after {took} s"


@check("STANDIN-METER-1")
def one_active_meter(site):
    meter = new_meter(site, "meter_1")
    second = lambda: site.api.billing.meters.create(meter_of(meter.event_name))
    refused(second, 400, code="resource_already_exists")


def price_of(product, **rest):
    return {"currency": "usd", "product": product, "unit_amount_decimal": "0.25", **rest}


@check("STANDIN-PRICE-1")
def metered_prices(site):
    product, meter, idle = new_product(site), new_meter(site, "price"), new_meter(site, "price_idle", active=False)
    metered = {"interval": "month", "usage_type": "metered"}
    for recurring in (metered, {**metered, "meter": idle.id}, {"interval": "month", "meter": meter.id}):
        refused(lambda: site.api.prices.create(price_of(product, recurring=recurring)), 400)
    site.api.prices.create(price_of(product, recurring={**metered, "meter": meter.id}))


@check("STANDIN-PRICE-2")
def amounts(site):
    product = new_product(site)
    for given, wanted in [
        ({"unit_amount_decimal": "0.2500"}, (None, "0.25")),
        ({"unit_amount_decimal": "0.000000250000"}, (None, "0.00000025")),
        ({"unit_amount_decimal": "12.0"}, (12, "12")),
        ({"unit_amount": 7}, (7, "7")),
    ]:
        price = site.api.prices.create({"currency": "usd", "product": product, **given})
        found = (price.unit_amount, format(price.unit_amount_decimal, "f"))
        same(found, wanted, f"the price of {given}")


@check("STANDIN-PRICE-3")
def lookup_keys(site):
    api, product = site.api, new_product(site)
    keyed = price_of(product, lookup_key=site.name("lookup"))
    first = api.prices.create(keyed)
    refused(lambda: api.prices.create(keyed), 400)
    api.prices.update(first.id, {"active": False})
    refused(lambda: api.prices.create(keyed), 400)
    second = api.prices.create({**keyed, "transfer_lookup_key": True})
    same(api.prices.retrieve(first.id).lookup_key, None, "the lookup key of the first price")
    same([one.id for one in api.prices.list({"lookup_keys": [keyed["lookup_key"]]}).data], [second.id], "the list")


def new_configuration(site, **update):
    features = {"invoice_history": {"enabled": True}, "subscription_update": {"enabled": True, **update}}
    made = site.api.billing_portal.configurations.create({"features": features})
    site.later(lambda id: site.api.billing_portal.configurations.update(id, {"active": False}), made.id)
    return made.id


def to_change_between(site):
    """A product with a price, as the portal takes it."""
    product = new_product(site)
    price = site.api.prices.create(price_of(product, recurring={"interval": "month"}))
    return {"product": product, "prices": [price.id]}


@check("STANDIN-PORTAL-1")
def default_configuration(site):
    portal, plan = site.api.billing_portal, to_change_between(site)
    made = new_configuration(site, products=[plan], default_allowed_updates=["price"])
    expand = {"expand": ["features.subscription_update.products"]}
    products = portal.configurations.retrieve(made, expand).features.subscription_update.products
    same([one.product for one in products], [plan["product"]], "the products")
    customer = new_customer(site)
    portal.sessions.create({"customer": customer, "configuration": made})
    if portal.configurations.list({"is_default": True}).data:
        raise Unseen("this account has a default configuration")
    refused(lambda: portal.sessions.create({"customer": customer}), 400)


@check("STANDIN-PORTAL-2")
def plan_changes(site):
    plan, other = to_change_between(site), to_change_between(site)
    mixed = {"product": plan["product"], "prices": other["prices"]}
    for update in (
        {"default_allowed_updates": ["price"]},
        {"products": [plan]},
        {"products": [mixed], "default_allowed_updates": ["price"]},
    ):
        refused(lambda: new_configuration(site, **update), 400)
    new_configuration(site, products=[plan], default_allowed_updates=["price"])
