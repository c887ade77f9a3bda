"""That checks find what is wrong: those of recorded requests, and those of assumptions. Needs no stand-in."""

import json
import pathlib
import tempfile
import unittest

import stripe
from live import uncovered, verdict
from live_checks import NOT_CHECKABLE
from operations import Catalog
from parameters import complaints, typed
from recorded import Wrong, arrival, compare, judge, lines
from verdicts import CHECKS, Differs, refused

CATALOG = Catalog()
PRICE = {
    "currency": "usd",
    "unit_amount_decimal": "0.00000025",
    "product": "prod_1",
    "active": "true",
    "recurring": {"interval": "month", "usage_type": "metered", "interval_count": "1"},
    "metadata": {"weir": "", "a b": "2"},
    "tax_behavior": "unspecified",
    "tiers": [{"up_to": "inf", "unit_amount": "5"}, {"up_to": "20"}],
    "expand": ["product"],
}
REQUEST = {
    "client": "weir/1.0",
    "method": "POST",
    "path": "/v1/prices",
    "query": {},
    "form": PRICE,
    "version": "2026-09-30.endive",
    "has_key": True,
}


def changed(tree, path, value):
    """A copy that holds something else at `a.b.0`; nothing, where `value` is `...`."""
    tree = json.loads(json.dumps(tree))
    *way, last = (int(part) if part.isdigit() else part for part in path.split("."))
    inner = tree
    for part in way:
        inner = inner[part]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return tree


def wrong_in(request):
    return list(judge(CATALOG, [request])[2])


class Parameters(unittest.TestCase):
    def test_what_is_right(self):
        kind = CATALOG.find("POST", "/v1/prices").params
        self.assertEqual(list(complaints(kind, PRICE)), [])
        customer = CATALOG.find("POST", "/v1/customers/cus_1").params
        self.assertEqual(list(complaints(customer, {"description": "x", "metadata": "", "address": ""})), [])

    def test_what_is_wrong_is_named(self):
        kind = CATALOG.find("POST", "/v1/prices").params
        for path, value, named in [
            ("currency", ..., "currency: missing"),
            ("recurring.interval", ..., "recurring[interval]: missing"),
            ("curency", "usd", "curency: unknown"),
            ("recurring.colour", "red", "recurring[colour]: unknown"),
            ("tiers.1.colour", "red", "tiers[1][colour]: unknown"),
            ("tiers.1.up_to", ..., "tiers[1][up_to]: missing"),
            ("tiers.0.up_to", "most", "tiers[0][up_to]: 'most' is not 'inf' or int"),
            ("active", "yes", "active: 'yes' is not bool"),
            ("active", "True", "active: 'True' is not bool"),
            ("active", "1", "active: '1' is not bool"),
            ("recurring.interval_count", "1.5", "recurring[interval_count]: '1.5' is not int"),
            ("recurring.interval_count", "", "recurring[interval_count]: '' is not int"),
            ("unit_amount_decimal", "1e-7", "unit_amount_decimal: '1e-7' is not Decimal"),
            ("unit_amount_decimal", "0,5", "unit_amount_decimal: '0,5' is not Decimal"),
            ("recurring.usage_type", "weighed", "recurring[usage_type]: 'weighed' is not 'licensed' or 'metered'"),
            ("recurring.interval", "Month", "recurring[interval]: 'Month' is not 'day' or 'month' or 'week' or 'year'"),
            ("nickname", "", "nickname: '' is not str"),
            ("nickname", {"a": "b"}, "nickname: an object, not str"),
            ("nickname", ["a"], "nickname: an array, not str"),
            ("expand", "product", "expand: 'product' is not List"),
            ("expand.0", {"a": "b"}, "expand[0]: an object, not str"),
            ("recurring", "month", "recurring: 'month' is not PriceCreateParamsRecurring"),
            ("recurring", ["month"], "recurring: an array, not PriceCreateParamsRecurring"),
            ("metadata.weir", {"a": "b"}, "metadata[weir]: an object, not str"),
            ("metadata", ["a"], "metadata: an array, not Dict or UntypedStripeObject"),
        ]:
            with self.subTest(path=path, value=value):
                self.assertEqual(list(complaints(kind, changed(PRICE, path, value))), [named])

    def test_what_may_be_cleared(self):
        create, update = (CATALOG.find("POST", path).params for path in ("/v1/products", "/v1/products/p"))
        self.assertEqual(list(complaints(update, {"description": ""})), [])
        self.assertEqual(list(complaints(create, {"name": "x", "description": ""})), ["description: '' is not str"])

    def test_typed_is_what_the_sdk_is_given(self):
        kind = CATALOG.find("POST", "/v1/prices").params
        given = typed(kind, PRICE)
        self.assertIs(given["active"], True)
        self.assertEqual(given["recurring"]["interval_count"], 1)
        self.assertEqual(given["tiers"], [{"up_to": "inf", "unit_amount": 5}, {"up_to": 20}])
        self.assertEqual(given["metadata"], PRICE["metadata"])
        self.assertEqual(str(given["unit_amount_decimal"] * 4), "0.00000100")


class Operations(unittest.TestCase):
    def test_a_path_is_one_operation(self):
        for method, path, name, ids in [
            ("GET", "/v1/customers", "GET /v1/customers", []),
            ("GET", "/v1/customers/search", "GET /v1/customers/search", []),
            ("GET", "/v1/customers/a%2Fb", "GET /v1/customers/{id}", ["a/b"]),
            ("POST", "/v1/customers/a/sources/b/verify", "POST /v1/customers/{id}/sources/{id}/verify", ["a", "b"]),
        ]:
            operation = CATALOG.find(method, path)
            self.assertEqual((operation.name, operation.ids(path)), (name, ids))
        for path in ("/v1/customers/", "/v1//x", "/customers", "v1/customers", "/v1/customers/a/b", "/v1"):
            self.assertIsNone(CATALOG.find("GET", path), path)


class Requests(unittest.TestCase):
    def test_a_good_one(self):
        counts, samples, wrong = judge(CATALOG, [REQUEST, REQUEST, changed(REQUEST, "form.active", ...)])
        self.assertEqual((dict(counts), len(samples), dict(wrong)), ({"POST /v1/prices": 3}, 2, {}))

    def test_bad_ones(self):
        for path, value, words in [
            ("path", "/v1/prize", "no such operation"),
            ("method", "DELETE", "no such operation"),
            ("form", None, "cannot be decoded"),
            ("query", None, "cannot be decoded"),
            ("query", {"active": "true"}, "wrong place"),
            ("has_key", False, "Idempotency-Key"),
            ("version", None, "Stripe-Version"),
            ("version", "2026-09-30.dahlia", "Stripe-Version"),
            ("version", "2027-01-01.endive", "Stripe-Version"),
            ("form.colour", "red", "colour: unknown"),
        ]:
            with self.subTest(path=path, value=value):
                found = wrong_in(changed(REQUEST, path, value))
                self.assertEqual(len(found), 1, found)
                self.assertIn(words, found[0])
        got = {**REQUEST, "method": "GET", "form": {}, "query": {"limit": "1"}}
        self.assertEqual(len(wrong_in(got)), 1, "a key where none belongs")
        self.assertEqual(wrong_in({**got, "has_key": False}), [])

    def test_a_probe_is_only_what_the_doctor_asks(self):
        probe = {**REQUEST, "path": "/v1/billing/meter_events", "form": {}}
        self.assertEqual(wrong_in(probe), [])
        probe["form"] = {"event_name": "x"}
        self.assertEqual(wrong_in(probe), ["POST /v1/billing/meter_events: payload: missing"])

    def test_every_operation_is_asked_and_known(self):
        self.assertEqual(list(compare({"a"}, {"a": 1})), [])
        self.assertIn("a: never asked", next(compare({"a"}, {})))
        self.assertIn("a: not in", next(compare(set(), {"a": 1})))

    def test_a_directory_without_requests_of_weir_is_an_error(self):
        with tempfile.TemporaryDirectory() as directory:
            directory = pathlib.Path(directory)
            with self.assertRaises(Wrong):
                list(lines(directory))
            file = directory / "1-2.jsonl"
            file.write_text(json.dumps({**REQUEST, "client": None}) + "\n")
            with self.assertRaises(Wrong):
                list(lines(directory))
            with file.open("a") as more:
                more.write(json.dumps(REQUEST) + "\n")
            self.assertEqual(list(lines(directory)), [REQUEST])

    def test_arrivals_differ_in_all_but_how_a_decimal_is_written(self):
        operation = CATALOG.find("POST", "/v1/prices")
        ours = arrival(operation, REQUEST)
        for path, value in [
            ("client", "other"),
            ("form.unit_amount_decimal", "0.000000250"),
            ("form.unit_amount_decimal", "2.5E-7"),
        ]:
            self.assertEqual(arrival(operation, changed(REQUEST, path, value)), ours)
        for path, value in [
            ("path", "/v1/prices/x"),
            ("has_key", False),
            ("form.active", "false"),
            ("form.active", ...),
            ("form.currency", "eur"),
            ("form.expand", "product"),
            ("form.unit_amount_decimal", "0.0000025"),
            ("form.colour", "red"),
        ]:
            with self.subTest(path=path, value=value):
                self.assertNotEqual(arrival(operation, changed(REQUEST, path, value)), ours)


class Assumptions(unittest.TestCase):
    def test_none_is_forgotten(self):
        known = CHECKS.keys() | NOT_CHECKABLE.keys()
        self.assertEqual(list(uncovered(known)), [])
        self.assertIn("STANDIN-NEW-1: no check", next(uncovered({*known, "STANDIN-NEW-1"})))
        self.assertIn("STANDIN-KEY-1: checked, but", next(uncovered(known - {"STANDIN-KEY-1"})))

    def test_a_refusal_is_exactly_the_one_expected(self):
        body = {"error": {"type": "invalid_request_error", "code": "c", "message": "m"}}

        def ask():
            raise stripe.InvalidRequestError("m", None, code="c", http_status=400, json_body=body)

        self.assertEqual(refused(ask, 400, code="c").http_status, 400)
        for wrong in [
            lambda: refused(ask, 404),
            lambda: refused(ask, 400, "card_error"),
            lambda: refused(ask, 400, code="d"),
            lambda: refused(lambda: None, 400),
        ]:
            self.assertRaises(Differs, wrong)

    def test_what_is_missing_differs(self):
        for look, words in [(lambda site: site[0], "list index"), (lambda site: site.id, "no attribute 'id'")]:
            word, text = verdict([], look)
            self.assertEqual(word, "DIFFERS")
            self.assertIn(words, text)


if __name__ == "__main__":
    unittest.main()
