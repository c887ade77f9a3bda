"""What the checks of the conformance suite came to, which its summary does not say.

    checks.py failing DIRECTORY             print every check that failed
    checks.py strict DIRECTORY SCENARIO...  fail unless every check of these scenarios was made and succeeded

The suite writes one directory per scenario and run, with `checks.json` in it. It calls a scenario passed that found nothing
to test and said so with a check that it skipped.
"""

import json
import pathlib
import re
import sys

# Checks that a scenario makes only where it finds what it wants to test.
EXPECTED = {
    "server-session-lifecycle": [
        "server-session-initialized-accepted",
        "server-session-delete-accepted",
        "server-session-terminated-returns-404",
    ],
    "server-sse-polling": [
        "server-sse-priming-event",
        "server-sse-retry-field",
        "server-sse-disconnect-resume",
    ],
    "json-schema-2020-12": [
        "json-schema-2020-12-tool-found",
        "json-schema-2020-12-$schema",
        "json-schema-2020-12-$defs",
        "json-schema-2020-12-additionalProperties",
        "sep-2106-composition-keywords-preserved",
        "sep-2106-conditional-keywords-preserved",
        "sep-2106-anchor-keyword-preserved",
    ],
    "http-header-validation": [
        "sep-2243-server-reject-invalid-headers",
        "sep-2243-server-reject-error-code",
        "sep-2243-server-accepts-whitespace-header-value",
        "sep-2243-header-name-case-insensitive",
    ],
    "http-custom-header-server-validation": [
        "sep-2243-server-decode-base64",
        "sep-2243-server-validate-param-match",
        "sep-2243-server-reject-invalid-param-chars",
        "sep-2243-server-reject-param-mismatch",
    ],
}


def runs(directory):
    """Scenario and checks of each run below a directory."""
    for path in sorted(pathlib.Path(directory).glob("*/checks.json")):
        scenario = re.sub(r"^server-(.*)-\d{4}-\d\d-\d\dT.*$", r"\1", path.parent.name)
        yield scenario, json.loads(path.read_text())


def show(scenario, check):
    print(f"  {check['status']} {scenario}:{check['id']}: {check.get('errorMessage', '')[:300]}")


def failing(directory):
    for scenario, checks in runs(directory):
        for check in checks:
            if check["status"] not in ("SUCCESS", "SKIPPED", "INFO"):
                show(scenario, check)


def strict(directory, scenarios):
    made = dict(runs(directory))
    good = True
    for scenario in scenarios:
        checks = made.get(scenario, [])
        bad = [check for check in checks if check["status"] not in ("SUCCESS", "INFO")]
        for check in bad:
            show(scenario, check)
        succeeded = {check["id"] for check in checks if check["status"] == "SUCCESS"}
        missing = [one for one in EXPECTED.get(scenario, []) if one not in succeeded]
        for one in missing:
            print(f"  NOT MADE {scenario}:{one}")
        if not succeeded:
            print(f"  NOTHING TESTED {scenario}")
        passed = succeeded and not bad and not missing
        good = good and passed
        if passed:
            print(f"  {scenario}: {len(succeeded)} kinds of checks, all good")
    return good


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["failing", directory]:
            failing(directory)
        case ["strict", directory, *scenarios] if scenarios:
            sys.exit(0 if strict(directory, scenarios) else 1)
        case _:
            sys.exit(__doc__)
