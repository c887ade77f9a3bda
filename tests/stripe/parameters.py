"""Parameters as they arrive, decoded from a form or a query, against the types of Stripe's SDK.

Everything arrives as text, in objects and arrays. A number, a truth or a decimal is right where its text reads as one.
The SDK lets every enumeration be any text, for values to come; here only those count that it names."""

import functools
import re
import sys
import types
import typing
from decimal import Decimal

import typing_extensions
from stripe import RequestOptions

NUMBER = {int: r"-?\d+", float: r"-?\d+(\.\d+)?", Decimal: r"-?\d+(\.\d+)?", bool: r"true|false"}
MAKE = {int: int, float: float, Decimal: Decimal, bool: lambda text: text == "true"}
OPTIONAL = {typing.NotRequired, typing_extensions.NotRequired}
REQUIRED = {typing.Required, typing_extensions.Required}
LITERALS = {typing.Literal, typing_extensions.Literal}
UNIONS = {typing.Union, types.UnionType}


def resolved(kind, module):
    """A type whose names are looked up where it was written."""
    if isinstance(kind, typing.ForwardRef):
        kind = kind.__forward_arg__
    if isinstance(kind, str):
        return resolved(eval(kind, vars(sys.modules[module])), module)
    return kind


def is_object(kind):
    return typing.is_typeddict(kind) or typing_extensions.is_typeddict(kind)


@functools.cache
def fields(kind):
    """The parameters that a TypedDict names, each with its type and whether it is required."""
    known = {}
    for name, one in kind.__annotations__.items():
        if RequestOptions.__annotations__.get(name) is one:
            continue
        one = resolved(one, kind.__module__)
        origin = typing.get_origin(one)
        if origin in OPTIONAL | REQUIRED:
            one = resolved(typing.get_args(one)[0], kind.__module__)
        known[name] = (one, origin not in OPTIONAL)
    return known


@functools.cache
def members(kind, module):
    """What a type may be, one by one; words of enumerations as themselves."""
    kind = resolved(kind, module)
    origin = typing.get_origin(kind)
    if origin in UNIONS:
        return [one for each in typing.get_args(kind) for one in members(each, module)]
    return list(typing.get_args(kind)) if origin in LITERALS else [kind]


def within(at, name):
    return f"{at}[{name}]" if at else name


def complaints(kind, tree, at=""):
    """All that is wrong with parameters of this TypedDict."""
    known = fields(kind)
    for name in tree.keys() - known.keys():
        yield f"{within(at, name)}: unknown"
    for name, (one, required) in known.items():
        if name in tree:
            yield from value_complaints(one, kind.__module__, tree[name], within(at, name))
        elif required:
            yield f"{within(at, name)}: missing"


def value_complaints(kind, module, value, at, may_be_empty=False):
    choices = members(kind, module)
    if isinstance(value, str):
        if choose(choices, value, may_be_empty) is None:
            yield f"{at}: {value!r} is not {shown(choices)}"
    elif isinstance(value, dict):
        objects = [one for one in choices if is_object(one)]
        pairs = [one for one in choices if typing.get_origin(one) is dict]
        if objects:
            yield from min((list(complaints(one, value, at)) for one in objects), key=len)
        elif pairs:
            for name, one in value.items():
                # An empty text takes a pair away.
                yield from value_complaints(typing.get_args(pairs[0])[1], module, one, within(at, name), True)
        else:
            yield f"{at}: an object, not {shown(choices)}"
    else:
        lists = [one for one in choices if typing.get_origin(one) is list]
        for place, one in enumerate(value if lists else []):
            yield from value_complaints(typing.get_args(lists[0])[0], module, one, within(at, place))
        if not lists:
            yield f"{at}: an array, not {shown(choices)}"


def choose(choices, text, may_be_empty=False):
    """Which of the choices a text is, or None."""
    words = [one for one in choices if isinstance(one, str)]
    if text in words:
        return str
    for kind in (bool, int, Decimal, float):
        if kind in choices and re.fullmatch(NUMBER[kind], text):
            return kind
    free = str in choices and not any(words)
    return str if free and (text or may_be_empty) else None


def shown(choices):
    words = any(isinstance(one, str) and one for one in choices)
    told = [repr(one) if isinstance(one, str) else getattr(one, "__name__", str(one)) for one in choices]
    return " or ".join(one for one in told if one != "str" or not words)


def typed(kind, tree):
    """The same parameters as somebody would give them to the SDK. Only where there are no complaints."""
    return {name: typed_value(fields(kind)[name][0], kind.__module__, value) for name, value in tree.items()}


def typed_value(kind, module, value):
    choices = members(kind, module)
    if isinstance(value, str):
        return MAKE.get(choose(choices, value, True), str)(value)
    if isinstance(value, list):
        kind = next(one for one in choices if typing.get_origin(one) is list)
        return [typed_value(typing.get_args(kind)[0], module, one) for one in value]
    objects = [one for one in choices if is_object(one) and not any(complaints(one, value))]
    if objects:
        return typed(objects[0], value)
    kind = next(one for one in choices if typing.get_origin(one) is dict)
    return {name: typed_value(typing.get_args(kind)[1], module, one) for name, one in value.items()}
