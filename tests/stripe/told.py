"""What all parts of the story need."""

import stripe


def refused(kind, ask, status=None, code=None, param=None, words=""):
    """The error that asking ends with: of exactly this class."""
    try:
        ask()
    except stripe.StripeError as error:
        assert type(error) is kind, f"{type(error).__name__} instead of {kind.__name__}: {error}"
        assert status is None or error.http_status == status, error.http_status
        assert code is None or error.code == code, error.code
        assert param is None or error.param == param, error.param
        assert words in str(error), error
        assert kind is stripe.APIConnectionError or error.http_status == 502 or error.request_id, "no request id"
        return error
    raise AssertionError(f"not refused, where {kind.__name__} was expected")
