"""What a check of an assumption can come to, and the words in which checks are written."""

import stripe

# By the id of what they check.
CHECKS = {}


class Differs(Exception):
    """Stripe does otherwise."""


class Unseen(Exception):
    """What was to be seen did not come about."""


class NotRun(Exception):
    """Something is missing that the check needs."""


def check(one):
    def register(function):
        CHECKS[one] = function
        return function

    return register


def expect(holds, text):
    """What must hold; otherwise Stripe does otherwise, as `text` tells."""
    if not holds:
        raise Differs(text)


def same(found, wanted, what):
    expect(found == wanted, f"{what} is {found!r}, not {wanted!r}")


def refused(ask, status, kind="invalid_request_error", **wanted):
    """The error that asking ends with; `wanted` is what else is expected of it, such as its `code`."""
    try:
        ask()
    except stripe.APIConnectionError:
        raise
    except stripe.StripeError as error:
        found = (error.json_body or {}).get("error", {})
        same(error.http_status, status, "the status")
        same(found.get("type"), kind, "the type")
        for name, value in wanted.items():
            same(found.get(name), value, f"the {name}")
        return error
    expect(False, f"it was carried out, and not refused with {status}")


def header(headers, name):
    return next((value for key, value in headers.items() if key.lower() == name), None)
