"""The third part of the story: Checkout, the portal and an invoice's page, as a browser uses them."""

import urllib.error
import urllib.parse
import urllib.request

import stripe
from money import DAY, HOUR, Shop, end_of
from standin import PATIENCE, control
from told import refused


def form(url, **fields):
    """What a browser does with a page's form: the status and the page that it ends at, or where it is sent."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    data = urllib.parse.urlencode(fields).encode() if fields else None
    try:
        answer = urllib.request.build_opener(Stay).open(urllib.request.Request(url, data=data), timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.headers.get("Location"), answer.read().decode()


def checkout(api, base):
    shop = Shop(api, base)
    customer = shop.customer(None)
    now = shop.now()
    asked = {
        "mode": "subscription",
        "customer": customer.id,
        "line_items": shop.items(),
        "subscription_data": {"billing_cycle_anchor": now + 10 * DAY, "metadata": {"tenant": "t1", "plan": "basic"}},
        "success_url": "https://example.com/done?session={CHECKOUT_SESSION_ID}",
        "cancel_url": "https://example.com/back",
        "client_reference_id": "t1",
        "metadata": {"weir": "weir"},
    }
    made = api.checkout.sessions.create(asked)
    assert (made.status, made.payment_status, made.expires_at) == ("open", "unpaid", now + DAY)
    assert api.checkout.sessions.update(made.id, {"metadata": {"more": "x"}}).metadata["weir"] == "weir"
    status, _, page = form(made.url)
    assert status == 200 and "stand-in, not Stripe" in page and "Go back without paying" in page
    status, _, page = form(made.url, card="4000 0000 0000 0002")
    assert status == 402 and "Your card was declined." in page
    status, _, page = form(made.url, card="1234")
    assert status == 402 and "card number is incorrect" in page
    assert api.checkout.sessions.retrieve(made.id).status == "open"
    status, where, _ = form(made.url, card="4242 4242 4242 4242")
    assert (status, where) == (303, f"https://example.com/done?session={made.id}")
    done = api.checkout.sessions.retrieve(made.id, {"expand": ["subscription.latest_invoice.payments", "line_items"]})
    assert (done.status, done.payment_status, done.url) == ("complete", "paid", None)
    subscription = done.subscription
    assert subscription.metadata["plan"] == "basic" and end_of(subscription) == now + 10 * DAY
    assert subscription.latest_invoice.total == made.amount_total == done.line_items.data[0].amount_total
    assert subscription.latest_invoice.payments.data[0].status == "paid" and subscription.default_payment_method
    assert len(api.checkout.sessions.line_items.list(made.id).data) == 2
    told = shop.events("checkout.session.completed")
    assert told[0].data.object.id == made.id and told[0].data.object.client_reference_id == "t1"

    payment = {
        "mode": "payment",
        "customer": customer.id,
        "line_items": [{
            "quantity": 1,
            "price_data": {"currency": "usd", "unit_amount": 2500, "product_data": {"name": "Credits"}},
        }],
        "payment_intent_data": {"metadata": {"topup": "u1"}},
        "invoice_creation": {"enabled": True, "invoice_data": {"metadata": {"topup": "u1"}}},
        "metadata": {"topup": "u1"},
        "success_url": "https://example.com/done",
    }
    made = api.checkout.sessions.create(payment)
    form(made.url, card="4000000000009995")
    waiting = api.checkout.sessions.retrieve(made.id, {"expand": ["payment_intent"]})
    assert waiting.payment_intent.status == "requires_payment_method"
    assert waiting.payment_intent.last_payment_error.decline_code == "insufficient_funds"
    done = control(base, "POST", f"checkout/{made.id}", {"card": "visa"})
    assert (done["status"], done["payment_status"]) == ("complete", "paid")
    done = api.checkout.sessions.retrieve(made.id, {"expand": ["payment_intent", "invoice"]})
    assert done.payment_intent.metadata["topup"] == "u1" and done.payment_intent.id == waiting.payment_intent.id
    assert (done.invoice.total, done.invoice.status, done.invoice.parent) == (2500, "paid", None)
    charges = api.charges.list({"payment_intent": done.payment_intent.id}).data
    assert [(one.paid, one.metadata["topup"]) for one in charges] == [(True, "u1"), (False, "u1")]
    status, _, page = form(done.invoice.hosted_invoice_url)
    assert status == 200 and "25.00 USD" in page

    made = api.checkout.sessions.create(payment)
    assert api.checkout.sessions.expire(made.id).status == "expired"
    refused(stripe.InvalidRequestError, lambda: api.checkout.sessions.expire(made.id), 400)
    assert form(f"{base}/_standin/checkout/{made.id}")[0] == 404
    late = api.checkout.sessions.create(payment)
    shop.to(late.expires_at)
    assert api.checkout.sessions.retrieve(late.id).status == "expired"
    assert late.id in [one.data.object.id for one in shop.events("checkout.session.expired")]
    assert late.id in [one.id for one in api.checkout.sessions.list({"customer": customer.id}).data]
    for wrong in (
        {"subscription_data": {"description": "x"}},
        {"success_url": "example.com"},
        {"line_items": []},
        {"expires_at": shop.now() + 60},
        {"automatic_tax": {"enabled": True}},
    ):
        refused(stripe.InvalidRequestError, lambda: api.checkout.sessions.create({**payment, **wrong}), 400)
    trial = {**asked, "subscription_data": {"trial_end": shop.now() + 5 * DAY}}
    made = api.checkout.sessions.create(trial)
    done = control(base, "POST", f"checkout/{made.id}", {"card": "visa"})
    assert (made.amount_total, done["payment_status"]) == (0, "no_payment_required")


def browser(api, base):
    shop = Shop(api, base)
    customer = shop.customer()
    made = shop.subscribe(customer)
    features = {
        "invoice_history": {"enabled": True},
        "payment_method_update": {"enabled": True},
        "subscription_cancel": {"enabled": True, "mode": "at_period_end"},
    }
    configuration = api.billing_portal.configurations.create({"features": features})
    opened = {"customer": customer.id, "configuration": configuration.id, "return_url": "https://example.com/"}
    url = api.billing_portal.sessions.create(opened).url
    _, _, page = form(url)
    assert "Cancel at the end of the period" in page and "4242" in page and 'href="https://example.com/"' in page
    assert form(url, do="cancel", subscription=made.id)[0] == 303
    ending = api.subscriptions.retrieve(made.id)
    assert ending.cancel_at == end_of(made) and not ending.cancel_at_period_end
    assert form(url, do="resume", subscription=made.id)[0] == 303
    assert api.subscriptions.retrieve(made.id).cancel_at is None
    assert form(url, do="pay", card="4000000000000002")[0] == 402
    assert form(url, do="pay", card="4000000000000341")[0] == 303
    other = shop.subscribe(shop.customer())
    assert form(url, do="cancel", subscription=other.id)[0] == 402, "somebody else's"
    shop.to(end_of(made) + HOUR)
    owed = shop.invoices(customer, status="open")[0]
    _, _, page = form(url)
    assert f"/_standin/invoices/{owed.id}" in page and "past_due" in page
    _, _, page = form(owed.hosted_invoice_url)
    assert "Pay 10.00 USD" in page
    assert form(owed.hosted_invoice_url, card="4000000000000341")[0] == 402
    assert form(owed.hosted_invoice_url, card="4242424242424242")[0] == 303
    assert api.subscriptions.retrieve(made.id).status == "active"
    assert form(f"{base}/_standin/invoices/in_nothing")[0] == 404


CHAPTERS = [checkout, browser]
