"""What Weir asked in the test suites, as the stand-ins recorded it, against Stripe's own SDK.

Each request must be one that the SDK's types allow; each operation that Weir has must have been asked; and each operation,
asked through the SDK with the same parameters, must arrive at a stand-in as it arrived from Weir."""

import argparse
import collections
import json
import pathlib
import re
import sys
import tempfile
from decimal import Decimal

import stripe
from operations import Catalog
from parameters import complaints, typed
from standin import KEY, client, running

# How many complaints are printed; one mistake makes thousands of them.
SHOWN = 40
# What `weir billing doctor` asks for without what is required, so that nothing happens but a look at the permission.
PROBES = {"POST /v1/billing/meter_events": {}}


class Wrong(Exception):
    """The suite has not done what it should."""


def lines(directory):
    """The requests of Weir in the files of a directory, the stories' own left out."""
    found = 0
    for path in sorted(directory.glob("*.jsonl")):
        with path.open() as file:
            for line in file:
                request = json.loads(line)
                if (request["client"] or "").startswith("weir/"):
                    found += 1
                    yield request
    if not found:
        raise Wrong(f"{directory}: Weir asked nothing; make test-sqlite, test-postgres and test-cluster record there")


def parameters(request):
    """What was asked with, wherever it was."""
    return request["form"] if request["method"] == "POST" else request["query"]


def version_complaint(version):
    """Weir's types may be some months older than the SDK, within the same major version."""
    ours, theirs = (re.fullmatch(r"(\d{4}-\d\d-\d\d)\.(\w+)", text or "") for text in (version, stripe.api_version))
    if not ours or ours[2] != theirs[2] or ours[1] > theirs[1]:
        return f"Stripe-Version {version} is not one that {stripe.api_version} goes with"
    return None


def request_complaints(operation, request):
    """All that is wrong with one request."""
    if request["query"] is None or request["form"] is None:
        yield "parameters that cannot be decoded"
        return
    if request["query"] and request["method"] == "POST" or request["form"] and request["method"] != "POST":
        yield "parameters in the wrong place"
    if request["has_key"] != (request["method"] == "POST"):
        yield "an Idempotency-Key is for POST, and for every POST"
    if wrong := version_complaint(request["version"]):
        yield wrong
    if PROBES.get(operation.name) != parameters(request):
        yield from complaints(operation.params, parameters(request))


def shape(tree):
    """The names in a tree, without what they hold."""
    if isinstance(tree, dict):
        return tuple((name, shape(tree[name])) for name in sorted(tree))
    return tuple(map(shape, tree)) if isinstance(tree, list) else None


def judge(catalog, requests):
    """How often each operation was asked, one request of each shape, and what is wrong, how often."""
    counts, samples, wrong = collections.Counter(), {}, collections.Counter()
    for request in requests:
        operation = catalog.find(request["method"], request["path"])
        if operation is None:
            wrong[f"{request['method']} {request['path']}: the SDK has no such operation"] += 1
            continue
        counts[operation.name] += 1
        found = list(request_complaints(operation, request))
        wrong.update(f"{operation.name}: {text}" for text in found)
        if not found:
            samples.setdefault((operation.name, shape(parameters(request))), (operation, request))
    return counts, list(samples.values()), wrong


def compare(known, counts):
    """The operations that were asked must be those that are known."""
    for name in sorted(known - counts.keys()):
        yield f"{name}: never asked, though operations.txt says that Weir does"
    for name in sorted(counts.keys() - known):
        yield f"{name}: not in operations.txt"


def repeated(api, arrived, samples):
    """Asks the same through the SDK; yields what arrives differently."""
    for operation, request in samples:
        sent = parameters(request)
        is_probe = operation.name in PROBES and sent == PROBES[operation.name]
        try:
            operation.call(api, operation.ids(request["path"]), {} if is_probe else typed(operation.params, sent))
        except stripe.APIConnectionError:
            raise
        except stripe.StripeError:
            pass  # Nothing is there; what counts is how the request arrived.
        ours, theirs = (arrival(operation, one) for one in (request, json.loads(next(arrived))))
        if ours != theirs:
            yield f"{operation.name}: Weir asks {ours}, the SDK {theirs}"


def without_exponents(tree):
    """The same with decimals written out: the SDK sends some of them as 2.5E-7."""
    if isinstance(tree, dict):
        return {name: without_exponents(one) for name, one in tree.items()}
    if isinstance(tree, list):
        return [without_exponents(one) for one in tree]
    return format(Decimal(tree), "f") if re.fullmatch(r"-?\d+(\.\d+)?E-?\d+", tree or "") else tree


def arrival(operation, request):
    """What of a request must be the same, whoever sends it: 0.10 is 0.1, all else the same text."""
    sent = {where: without_exponents(request[where]) for where in ("query", "form")}
    for where, tree in sent.items():
        if tree and not any(complaints(operation.params, tree)):
            sent[where] = typed(operation.params, tree)
    return {"method": request["method"], "path": request["path"], "has_key": request["has_key"], **sent}


def in_directory(directory):
    """The lines of the one file in a directory, as they come."""
    (path,) = pathlib.Path(directory).glob("*.jsonl")
    with path.open() as file:
        yield from iter(file.readline, "")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--weir", required=True)
    arguments.add_argument("--operations", required=True, type=pathlib.Path)
    arguments.add_argument("directories", nargs="+", type=pathlib.Path)
    given = arguments.parse_args()
    known = {line for line in given.operations.read_text().splitlines() if line and not line.startswith("#")}
    try:
        counts, samples, wrong = judge(Catalog(), (one for each in given.directories for one in lines(each)))
        wrong.update(compare(known, counts))
    except Wrong as error:
        sys.exit(f"error: {error}")
    with tempfile.TemporaryDirectory() as directory, running(given.weir, "--record", directory) as base:
        wrong.update(repeated(client(base, KEY), in_directory(directory), samples))
    for name, count in sorted(counts.items()):
        print(f"{count:8} {name}")
    for text, count in wrong.most_common(SHOWN):
        print(f"WRONG, {count} times: {text}", file=sys.stderr)
    total = f"{counts.total()} requests, {len(counts)} operations, {len(samples)} shapes asked again by stripe {stripe.VERSION}"
    if wrong:
        sys.exit(f"{total}: {len(wrong)} things are wrong")
    print(f"{total}: all as the SDK has it")


if __name__ == "__main__":
    main()
