"""What the stand-in takes for granted about Stripe, asked of Stripe itself: one line per assumption.

With `WEIR_TEST_STRIPE_KEY`, a secret key of a sandbox, each is checked there; without it none is. `--against-standin` checks
the checks. What is made is taken away again, as far as Stripe lets anybody."""

import argparse
import os
import re
import subprocess
import sys
import threading
import time
import uuid

# Imported for what they check.
import live_calendar
import live_money
import stripe
from live_checks import NOT_CHECKABLE
from standin import KEY, control, fault, running
from verdicts import CHECKS, Differs, NotRun, Unseen

# A live key moves money, and never gets further than this pattern.
TEST_KEY = r"(sk|rk)_test_\w+"
NARROW_KEY = "rk_test_of_the_live_suite"
NARROW = "WEIR_TEST_STRIPE_RESTRICTED_KEY, a restricted key that may read customers and nothing else"


class Site:
    """Stripe, or the stand-in at `base`, and whoever asks it."""

    # Seconds that usage may take until summaries show it, and between looks.
    longest_lag, pause = 1800, 15
    # How often two requests are sent at once in the hope that they overlap.
    tries = 20

    def __init__(self, key, narrow_key, base=None):
        self.base, self.narrow_key = base, narrow_key
        self.run = uuid.uuid4().hex[:12]
        self.client = self.client_of(key)
        self.api = self.client.v1
        self.left = []
        if base:
            self.longest_lag, self.pause, self.tries = 0, 0, 1

    def client_of(self, key):
        addresses = {"api": self.base} if self.base else {}
        return stripe.StripeClient(key, base_addresses=addresses, max_network_retries=0)

    @property
    def narrow(self):
        """Asks with a key that may read customers and nothing else."""
        if not self.narrow_key:
            raise NotRun(f"needs {NARROW}")
        return self.client_of(self.narrow_key).v1

    def now(self):
        """The time there, in seconds."""
        return control(self.base, "GET", "clock")["now"] if self.base else int(time.time())

    def name(self, what):
        """A name that no other run uses."""
        return f"weir_live_{self.run}_{what}"

    def later(self, undo, *arguments):
        """Does this at the end, the last first."""
        self.left.append((undo, arguments))

    def tidy(self):
        for undo, arguments in reversed(self.left):
            try:
                undo(*arguments)
            except stripe.StripeError as error:
                print(f"left behind: {arguments[0]}: {error}", file=sys.stderr)

    def until(self, holds):
        """Waits for what Stripe shows only after a while; how many seconds that took."""
        since = time.monotonic()
        while not holds():
            if time.monotonic() - since > self.longest_lag:
                raise Unseen(f"not within {self.longest_lag} s")
            time.sleep(self.pause)
        return round(time.monotonic() - since)

    def at_once(self, path, ask):
        """The error that one of two equal requests at once gets."""
        for _ in range(self.tries):
            if self.base:
                fault(self.base, "latency", method="POST", path=path, milliseconds=1000)
            errors, barrier = [], threading.Barrier(2)
            threads = [threading.Thread(target=attempt, args=(barrier, ask, errors)) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if errors:
                return errors[0]
        raise Unseen(f"no two requests met in {self.tries} tries")


def attempt(barrier, ask, errors):
    barrier.wait()
    try:
        ask()
    except stripe.StripeError as error:
        errors.append(error)


def assumptions(weir):
    """The ids of all assumptions and what each says, as the stand-in lists them."""
    said = subprocess.run([weir, "stripe-standin", "--assumptions"], capture_output=True, text=True, check=True).stdout
    rows = [re.split(r"\s{2,}", line.strip(), maxsplit=3) for line in said.splitlines()[1:]]
    return {row[0]: row[-1] for row in rows}


def uncovered(listed):
    """Assumptions without a check, and checks without an assumption."""
    known = CHECKS.keys() | NOT_CHECKABLE.keys()
    yield from (f"{one}: no check, and no word why there is none" for one in sorted(listed - known))
    yield from (f"{one}: checked, but not assumed" for one in sorted(known - listed))
    both = CHECKS.keys() & NOT_CHECKABLE.keys()
    yield from (f"{one}: checked, and said not to be" for one in sorted(both))


def verdict(site, check):
    """HOLDS, DIFFERS, NOT SEEN or NOT RUN, and what is to be said about it."""
    try:
        return "HOLDS", check(site) or ""
    except Differs as error:
        return "DIFFERS", str(error)
    except (Unseen, NotRun) as error:
        return "NOT SEEN" if isinstance(error, Unseen) else "NOT RUN", str(error)
    except stripe.APIConnectionError:
        raise
    except stripe.StripeError as error:
        return "DIFFERS", f"{type(error).__name__}: {error}"
    except (AttributeError, LookupError, TypeError) as error:
        # Something is not there that a check looks into.
        return "DIFFERS", f"{type(error).__name__}: {error}"


def check_all(site, listed):
    """Checks one after the other; how often each verdict was given."""
    counts = {}
    try:
        # A key that nobody knows would make everything differ.
        site.api.customers.list({"limit": 1})
        for one, what in listed.items():
            if one in NOT_CHECKABLE:
                word, text = "NOT CHECKABLE", NOT_CHECKABLE[one]
            else:
                word, text = verdict(site, CHECKS[one])
            counts[word] = counts.get(word, 0) + 1
            print(f"{word} {one} {text or what}", flush=True)
    except stripe.StripeError as error:
        sys.exit(f"error: {type(error).__name__}: {error}")
    finally:
        site.tidy()
    return counts


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--weir", required=True)
    arguments.add_argument("--against-standin", action="store_true")
    given = arguments.parse_args()
    listed = assumptions(given.weir)
    if wrong := list(uncovered(listed.keys())):
        sys.exit("\n".join(wrong))
    key, narrow_key = (os.environ.get(name) or None for name in ("WEIR_TEST_STRIPE_KEY", NARROW.split(",")[0]))
    if given.against_standin:
        with running(given.weir) as base:
            control(base, "POST", "keys", {"key": NARROW_KEY, "permissions": ["customer_read"]})
            counts = check_all(Site(KEY, NARROW_KEY, base), listed)
        wanted = {"HOLDS", "NOT CHECKABLE"}
    elif key is None:
        for one, what in listed.items():
            print(f"NOT RUN {one} {what}")
        print(f"NOT RUN: {len(listed)} assumptions about Stripe; WEIR_TEST_STRIPE_KEY is not set")
        return
    elif not all(re.fullmatch(TEST_KEY, one) for one in (key, narrow_key) if one):
        sys.exit("error: only keys of test mode are used (sk_test_..., rk_test_...); this is another one")
    else:
        counts = check_all(Site(key, narrow_key), listed)
        wanted = {"HOLDS", "NOT CHECKABLE", "NOT SEEN", "NOT RUN"}
    print(", ".join(f"{count} {word}" for word, count in sorted(counts.items())))
    if counts.keys() - wanted:
        sys.exit(1)


if __name__ == "__main__":
    main()
