"""What Stripe's SDK can ask, by method and path: each operation with the type of its parameters and a way to call it.

The SDK's services know their paths only inside of their methods, so each method is called once, with somebody in the
place of the network who notes the path."""

import importlib
import inspect
import re
import sys
import urllib.parse

import stripe

# Stands for an id while paths are noted.
ID = "AnId"


class Asked(Exception):
    """A request that goes nowhere."""


class Nobody:
    """In the place of what sends requests."""

    def request(self, method, path, *_, **__):
        raise Asked(method.upper(), path)

    request_stream = request


class Operation:
    """One operation: `name` is such as `POST /v1/customers/{id}`, `params` the TypedDict of its parameters or None."""

    def __init__(self, method, path, places, function, params):
        self.method = method
        self.parts = ["{id}" if part == ID else part for part in path.split("/")]
        self.name = f"{method} {'/'.join(self.parts)}"
        self.places, self.function, self.params = places, function, params

    def ids(self, path):
        """The ids in a path of this operation; None where the path is another one's."""
        found = path.split("/")
        pairs = list(zip(self.parts, found))
        if len(found) != len(self.parts) or any(part not in ("{id}", at) or not at and part for part, at in pairs):
            return None
        return [urllib.parse.unquote(at) for part, at in pairs if part == "{id}"]

    def call(self, api, ids, params):
        """Asks through the SDK, whose services for `/v1` are `api`."""
        service = api
        for place in self.places:
            service = getattr(service, place)
        return getattr(service, self.function)(*ids, params)


def params_of(service, signature):
    """The TypedDict that an operation's `params` are, from where the SDK keeps it."""
    named = re.search(r"\w+Params", str(signature.parameters["params"].annotation))
    space = [part for part in type(service).__module__.split(".")[1:] if not part.startswith("_")]
    return getattr(importlib.import_module(".".join(["stripe", "params", *space])), named[0])


def operations_of(service, places):
    for name, function in vars(type(service)).items():
        if name.startswith("_") or name.endswith("_async") or not inspect.isfunction(function):
            continue
        signature = inspect.signature(function)
        if "params" not in signature.parameters:
            continue
        ids = [one for one in signature.parameters if one not in ("self", "params", "options")]
        try:
            function(service, *[ID] * len(ids), {})
        except Asked as asked:
            yield Operation(*asked.args, places, name, params_of(service, signature))


def walk(service, places=()):
    yield from operations_of(service, places)
    for name in getattr(sys.modules[type(service).__module__], "_subservices", {}):
        yield from walk(getattr(service, name), (*places, name))


class Catalog:
    """All operations of the SDK under `/v1`."""

    def __init__(self):
        nowhere = type(stripe.StripeClient("sk_test_nobody").v1)(Nobody())
        self.by_kind = {}
        for operation in walk(nowhere):
            self.by_kind.setdefault((operation.method, len(operation.parts)), []).append(operation)

    def find(self, method, path):
        """The operation of a method and path, the one with the fewest ids; None where there is none."""
        candidates = self.by_kind.get((method, len(path.split("/"))), [])
        found = [one for one in candidates if one.ids(path) is not None]
        return min(found, key=lambda one: one.parts.count("{id}"), default=None)
