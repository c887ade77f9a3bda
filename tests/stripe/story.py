"""Stripe's own SDK against `weir stripe-standin`: every operation that the stand-in knows, its errors by class, lists
over pages, money and time, faults, and webhooks whose signatures the SDK checks; and a Weir that takes a webhook that the
SDK signed. Prints a line per chapter; fails at the first lie."""

import argparse
import http.server
import json
import os
import queue
import re
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

import books
import money
import pages as browsed
import stripe
from standin import KEY, PATIENCE, client, control, fault, running
from told import refused

SECRET = "whsec_of_the_story_0123456789"


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes webhooks, and says 200."""

    came = queue.Queue()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.came.put((body, self.headers["Stripe-Signature"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def catalog(api, base):
    made = api.products.create({"name": "Calls", "description": "x", "metadata": {"a": "1", "b": "2"}})
    changed = api.products.update(made.id, {"name": "Tool calls", "description": "", "metadata": {"a": ""}})
    assert (changed.name, changed.description, changed.metadata.to_dict()) == ("Tool calls", None, {"b": "2"})
    assert api.products.retrieve(made.id) == changed and made.livemode is False
    meter = api.billing.meters.create(METER)
    recurring = {"interval": "month", "usage_type": "metered", "meter": meter.id}
    price = {"currency": "usd", "product": made.id, "recurring": recurring, "unit_amount_decimal": "0.25"}
    first = api.prices.create({**price, "lookup_key": "overage"})
    assert str(first.unit_amount_decimal) == "0.25" and first.unit_amount is None and first.type == "recurring"
    refused(stripe.InvalidRequestError, lambda: api.prices.create({**price, "lookup_key": "overage"}), 400)
    second = api.prices.create({**price, "lookup_key": "overage", "transfer_lookup_key": True})
    found = api.prices.list({"lookup_keys": ["overage"], "expand": ["data.product"]})
    assert [one.id for one in found.data] == [second.id] and found.data[0].product.name == "Tool calls"
    assert api.prices.retrieve(first.id).lookup_key is None
    assert not api.prices.update(first.id, {"active": False, "nickname": "old"}).active
    assert [one.id for one in api.prices.list({"active": False, "product": made.id}).data] == [first.id]
    once = api.prices.create({"currency": "usd", "unit_amount": 1000, "product_data": {"name": "Top-up"}})
    assert (once.type, str(once.unit_amount_decimal), once.recurring) == ("one_time", "1000", None)
    refused(stripe.InvalidRequestError, lambda: api.products.delete(made.id), 400)
    alone = api.products.create({"name": "Gone"})
    assert api.products.delete(alone.id).deleted
    refused(stripe.InvalidRequestError, lambda: api.products.retrieve(alone.id), 404, "resource_missing", "id")
    named = api.products.create({"name": "Named", "id": "weir_named"})
    again = lambda: api.products.create({"name": "Named", "id": named.id})
    refused(stripe.InvalidRequestError, again, 400, "resource_already_exists")
    listed = api.products.list({"active": True, "ids": [named.id], "created": {"gte": named.created}})
    assert [one.id for one in listed.data] == [named.id]


METER = {
    "display_name": "Credits",
    "event_name": "weir_credits",
    "default_aggregation": {"formula": "sum"},
    "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
    "value_settings": {"event_payload_key": "value"},
}


def meters(api, base):
    meter = api.billing.meters.list({"status": "active"}).data[0]
    assert api.billing.meters.retrieve(meter.id).event_name == "weir_credits"
    assert api.billing.meters.update(meter.id, {"display_name": "Calls"}).display_name == "Calls"
    refused(stripe.InvalidRequestError, lambda: api.billing.meters.create(METER), 400)
    spare = api.billing.meters.create({**METER, "event_name": "spare"})
    assert api.billing.meters.deactivate(spare.id).status == "inactive"
    assert [one.id for one in api.billing.meters.list({"status": "inactive"}).data] == [spare.id]
    assert api.billing.meters.reactivate(spare.id).status == "active"


def usage(api, base):
    meter = api.billing.meters.list().data[-1]
    customer = api.customers.create({"name": "Ada"})
    now = control(base, "GET", "clock")["now"]

    def record(value, **rest):
        payload = {"stripe_customer_id": customer.id, "value": value}
        return api.billing.meter_events.create({"event_name": "weir_credits", "payload": payload, **rest})

    def shown(**rest):
        end = control(base, "GET", "clock")["now"] // 86400 * 86400 + 86400
        span = {"customer": customer.id, "start_time": end - 40 * 86400, "end_time": end, **rest}
        return [one.aggregated_value for one in api.billing.meters.event_summaries.list(meter.id, span).data]

    assert record("5", identifier="one", timestamp=now - 60).identifier == "one"
    words = "An event already exists with identifier one."
    refused(stripe.InvalidRequestError, lambda: record("5", identifier="one"), 400, words=words)
    for value, rest in [("1.5", {}), ("1", {"timestamp": now - 36 * 86400}), ("1", {"timestamp": now + 900})]:
        refused(stripe.InvalidRequestError, lambda: record(value, **rest), 400)
    assert sum(shown()) == 5
    control(base, "POST", "settings", {"summary_lag_seconds": 3600})
    record("7", timestamp=now - 3 * 86400)
    fault(base, "drop_event", method="POST", path="/v1/billing/meter_events")
    record("100")
    assert sum(shown()) == 5
    control(base, "POST", "clock", {"advance_seconds": 3600})
    control(base, "POST", "settings", {"summary_lag_seconds": 0})
    assert sum(shown()) == 12 and shown(value_grouping_window="day") == [5, 7]
    control(base, "POST", "clock", {"advance_seconds": 23 * 3600})
    record("5", identifier="one")
    assert sum(shown()) == 17

    fault(base, "latency", method="POST", path="/v1/billing/meter_events", milliseconds=1000)
    slow = threading.Thread(target=lambda: record("1", identifier="slow"))
    slow.start()
    while not any("identifier=slow" in one["params"] for one in control(base, "GET", "requests")["requests"]):
        pass
    refused(stripe.RateLimitError, lambda: record("1"), 429)
    slow.join()
    assert sum(shown()) == 18


def customers(api, base):
    made = api.customers.create({"name": "Bob", "email": "bob@example.com", "metadata": {"tenant": "t1"}})
    changed = api.customers.update(made.id, {"name": "", "address": {"city": "Bern", "country": "CH"}})
    assert (changed.name, changed.address.city, changed.metadata["tenant"]) == (None, "Bern", "t1")
    assert [one.id for one in api.customers.list({"email": "bob@example.com"}).data] == [made.id]
    assert api.customers.retrieve(made.id) == changed
    assert api.customers.delete(made.id).deleted and api.customers.retrieve(made.id).deleted
    assert not api.customers.list({"email": "bob@example.com"}).data
    refused(stripe.InvalidRequestError, lambda: api.customers.update(made.id, {"name": "x"}), 404, "resource_missing")
    unknown = lambda: api.customers.create({"nmae": "x"})
    refused(stripe.InvalidRequestError, unknown, 400, "parameter_unknown", "nmae")


def pages(api, base):
    ids = [api.customers.create({"name": f"c{n}", "description": "page"}).id for n in range(25)][::-1]
    listed = [one.id for one in api.customers.list({"limit": 7}).auto_paging_iter() if one.description == "page"]
    assert listed == ids, "each once, the newest first"
    page = api.customers.list({"limit": 3, "starting_after": ids[3]})
    assert [one.id for one in page.data] == ids[4:7] and page.has_more
    page = api.customers.list({"limit": 3, "ending_before": ids[3]})
    assert [one.id for one in page.data] == ids[0:3] and not page.has_more
    refused(stripe.InvalidRequestError, lambda: api.customers.list({"limit": 101}), 400)


def portal(api, base):
    features = {
        "customer_update": {"enabled": True, "allowed_updates": ["email", "address"]},
        "invoice_history": {"enabled": True},
        "payment_method_update": {"enabled": True},
        "subscription_cancel": {"enabled": True, "mode": "at_period_end"},
    }
    made = api.billing_portal.configurations.create({"features": features, "business_profile": {"headline": "Weir"}})
    assert made.features.subscription_cancel.enabled and not made.features.subscription_update.enabled
    off = {"features": {"subscription_cancel": {"enabled": False}}, "metadata": {"weir": "1"}}
    changed = api.billing_portal.configurations.update(made.id, off)
    assert not changed.features.subscription_cancel.enabled and changed.features.invoice_history.enabled
    assert api.billing_portal.configurations.retrieve(made.id) == changed
    assert [one.id for one in api.billing_portal.configurations.list({"active": True}).data] == [made.id]
    customer = api.customers.create({"name": "Portal"})
    opened = {"customer": customer.id, "configuration": made.id, "return_url": "https://example.com"}
    session = api.billing_portal.sessions.create(opened)
    with urllib.request.urlopen(session.url, timeout=PATIENCE) as page:
        assert b"stand-in, not Stripe" in page.read()
    refused(stripe.InvalidRequestError, lambda: api.billing_portal.sessions.create({"customer": customer.id}), 400)


def keys(api, base):
    permissions = ["customer_read", "billing_meter_event_write"]
    control(base, "POST", "keys", {"key": "rk_test_of_the_story", "permissions": permissions})
    narrow = client(base, "rk_test_of_the_story")
    narrow.customers.list()
    refused(stripe.PermissionError, lambda: narrow.customers.create({}), 403, words="rak_customer_write")
    refused(stripe.PermissionError, lambda: narrow.events.list(), 403, words="rak_event_read")
    refused(stripe.AuthenticationError, lambda: client(base, "sk_test_nobody_knows").customers.list(), 401)


def idempotency(api, base):
    with_key = lambda key: {"idempotency_key": key}
    first = api.customers.create({"name": "once"}, with_key("k1"))
    second = api.customers.create({"name": "once"}, with_key("k1"))
    assert second.id == first.id and second.last_response.headers["Idempotent-Replayed"] == "true"
    refused(stripe.IdempotencyError, lambda: api.customers.create({"name": "twice"}, with_key("k1")), 400)
    path = {"method": "POST", "path": "/v1/customers"}
    fault(base, "server_error", **path)
    for _ in range(2):  # the second time it is the stored answer
        refused(stripe.APIError, lambda: api.customers.create({"name": "500"}, with_key("k2")), 500)
    fault(base, "lost_response", **path)
    refused(stripe.APIConnectionError, lambda: api.customers.create({"name": "lost"}, with_key("k3")))
    found = api.customers.create({"name": "lost"}, with_key("k3"))
    assert [one.id for one in api.customers.list().data if one.name == "lost"] == [found.id], "applied once"
    fault(base, "reset", **path)
    refused(stripe.APIConnectionError, lambda: api.customers.create({"name": "reset"}, with_key("k4")))
    fault(base, "bad_gateway", **path)
    refused(stripe.APIError, lambda: api.customers.create({"name": "502"}, with_key("k5")), 502)
    fault(base, "rate_limit", **path)
    refused(stripe.RateLimitError, lambda: api.customers.create({"name": "429"}, with_key("k6")), 429)
    assert not [one for one in api.customers.list().data if one.name in ("500", "reset", "502", "429")]
    # The SDK's own retries get over all of it.
    for trouble in ("lost_response", "reset", "bad_gateway"):
        fault(base, trouble, **path)
        client(base, KEY, retries=2).customers.create({"name": f"over {trouble}"})
    names = [one.name for one in api.customers.list().data]
    assert sorted(name for name in names if name.startswith("over")) == ["over bad_gateway", "over lost_response", "over reset"]
    assert control(base, "GET", "faults") == {"faults": []}


def webhooks(api, base):
    def heard():
        body, signature = Receiver.came.get(timeout=PATIENCE)
        return stripe.Webhook.construct_event(body, signature, SECRET), body, signature

    customer = api.customers.create({"name": "the last one"}, {"idempotency_key": "of the webhook"})
    while True:
        event, body, signature = heard()
        if event.type == "customer.created" and event.data.object.id == customer.id:
            break
    assert event.request.idempotency_key == "of the webhook" and event.api_version
    for wrong in [(body + b" ", signature, SECRET), (body, signature, "whsec_other")]:
        try:
            stripe.Webhook.construct_event(*wrong)
            raise AssertionError("a wrong signature was taken")
        except stripe.SignatureVerificationError:
            pass
    fetched = api.events.retrieve(event.id)
    assert fetched.data.object.id == customer.id
    assert event.id in [one.id for one in api.events.list({"types": ["customer.created"], "limit": 100}).data]
    fault(base, "duplicate_delivery", path="customer.updated")
    api.customers.update(customer.id, {"name": "twice"})
    first, second = heard()[0], heard()[0]
    assert first.id == second.id and first.data.previous_attributes["name"] == "the last one"
    fault(base, "reorder_delivery", path="customer.updated")
    api.customers.update(customer.id, {"name": "late"})
    api.customers.delete(customer.id)
    assert [heard()[0].type, heard()[0].type] == ["customer.deleted", "customer.updated"]


def endpoints(api, base):
    made = api.webhook_endpoints.create({"url": "https://example.com/x", "enabled_events": ["price.created"]})
    assert made.secret.startswith("whsec_")
    assert "secret" not in api.webhook_endpoints.retrieve(made.id)
    assert api.webhook_endpoints.update(made.id, {"disabled": True, "description": "off"}).status == "disabled"
    assert made.id in [one.id for one in api.webhook_endpoints.list().data]
    assert api.webhook_endpoints.delete(made.id).deleted
    bad = lambda: api.webhook_endpoints.create({"url": "example.com", "enabled_events": ["*"]})
    refused(stripe.InvalidRequestError, bad, 400, "url_invalid", "url")


def signed(body, at, secret=SECRET):
    """`Stripe-Signature`, as the SDK makes it."""
    return f"t={at},v1={stripe.WebhookSignature._compute_signature(f'{at}.{body}', secret)}"


def send(url, body, signature):
    """Status and JSON of what Weir says to a webhook."""
    headers = {"Stripe-Signature": signature, "Content-Type": "text/plain"}
    request = urllib.request.Request(url, data=body.encode(), headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def receiving(weir, api, base):
    """A Weir takes what the SDK signed, once, and nothing else."""
    customer = api.customers.create({"name": "of nobody"})
    api.customers.update(customer.id, {"name": "of nobody at all"})
    event = api.events.list({"types": ["customer.updated"], "limit": 1}).data[0]
    body, now = json.dumps(event.to_dict(), indent=2, default=str), int(time.time())
    with tempfile.TemporaryDirectory() as home:
        settings = {
            "WEIR_BILLING__STRIPE_URL": base,
            "WEIR_BILLING__STRIPE_KEY": KEY,
            "WEIR_BILLING__CREDIT_PRICE": "0.25",
            "WEIR_BILLING__WEBHOOK_SECRETS": SECRET,
        }
        command = [weir, "dev", "--listen", "127.0.0.1:0", "--data-dir", home]
        environment = {**os.environ, **settings}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            lines = (re.search(r"Weir is running at (http://[0-9.:]+)", line) for line in process.stdout)
            url = next(found[1] for found in lines if found) + "/webhooks/stripe"
            # What it says further must not stand in its way.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            for wrong in [signed(body + " ", now), signed(body, now, "whsec_other"), signed(body, now - 400), "t=1,v1=00"]:
                status, said = send(url, body, wrong)
                assert status == 400 and said["code"] in ("bad_signature", "stale"), said
            for received in ("stored", "known"):
                assert send(url, body, signed(body, now)) == (200, {"received": received})
            listing = {**os.environ, "WEIR_DATABASE__URL": f"sqlite:{home}/weir.db"}
            listed = subprocess.run([weir, "billing", "events", "--json"], env=listing, capture_output=True, check=True)
            [stored] = json.loads(listed.stdout)
            assert (stored["id"], stored["object_id"], stored["mode"]) == (event.id, customer.id, "test"), stored
        finally:
            process.terminate()
            process.wait(PATIENCE)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--weir", required=True)
    weir = arguments.parse_args().weir
    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    webhooks_to = f"http://127.0.0.1:{receiver.server_address[1]}/webhooks/stripe"
    chapters = [catalog, meters, usage, customers, pages, portal, keys, idempotency, endpoints, webhooks]
    chapters += money.CHAPTERS + browsed.CHAPTERS + books.CHAPTERS
    with running(weir, "--webhook-url", webhooks_to, "--webhook-secret", SECRET) as base:
        for chapter in chapters:
            chapter(client(base, KEY), base)
            print(f"{chapter.__name__}: ok", flush=True)
        receiving(weir, client(base, KEY), base)
        print("receiving: ok", flush=True)
    print(f"stripe {stripe.VERSION}, {len(chapters) + 1} chapters")


if __name__ == "__main__":
    main()
