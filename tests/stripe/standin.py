"""A stand-in for Stripe, started as anybody starts it, and its own controls."""

import contextlib
import json
import re
import subprocess
import urllib.request

import stripe

KEY = "sk_test_weir_standin"
PATIENCE = 10


@contextlib.contextmanager
def running(weir, *arguments):
    """One on a free port: its base URL, until it is no longer needed."""
    command = [weir, "stripe-standin", "--listen", "127.0.0.1:0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        lines = (re.search(r"WEIR_BILLING__STRIPE_URL=(http://[0-9.:]+)", line) for line in process.stdout)
        found = next(filter(None, lines), None)
        if found is None:
            raise SystemExit("the stand-in did not start")
        yield found[1]
    finally:
        process.terminate()
        process.wait(PATIENCE)
    assert process.returncode == 0, process.returncode


def control(base, method, path, body=None):
    """One of the stand-in's own endpoints."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{base}/_standin/{path}", data=data, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def fault(base, what, **where):
    """Something goes wrong with the next request that fits."""
    control(base, "POST", "faults", {"fault": what, **where})


def client(base, key, retries=0):
    """The SDK's services for `/v1`, asking there."""
    return stripe.StripeClient(key, base_addresses={"api": base}, max_network_retries=retries).v1
