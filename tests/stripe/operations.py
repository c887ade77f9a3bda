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
        """The ids in a path of this operation."""
        pairs = zip(self.parts, path.split("/"), strict=True)
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
    """All operations of the SDK under `/v1`, in a tree of the parts of their paths."""

    def __init__(self):
        nowhere = type(stripe.StripeClient("sk_test_nobody").v1)(Nobody())
        self.tree = {}
        for operation in walk(nowhere):
            node = self.tree
            for part in (operation.method, *operation.parts):
                node = node.setdefault(part, {})
            node[None] = operation

    def find(self, method, path):
        """The operation of a method and path, a word before an id; None where there is none."""
        return find_in(self.tree, [method, *path.split("/")])


def find_in(node, parts):
    if not parts:
        return node.get(None)
    words = (parts[0], "{id}") if parts[0] else ("",)
    return next(filter(None, (find_in(node[word], parts[1:]) for word in words if word in node)), None)
