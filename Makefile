# Every check of this project. `make test` runs all of them in order and is what CI runs; each can be run alone.
# What is missing on the machine is installed by scripts/tool. A missing tool is a failure, never a skip.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

RECIPES := tools fmt shell machete deny clippy doc test-sqlite test-postgres test-cluster stripe-requests doctest stripe-sdk \
	stripe-live conformance clients conformance-cluster clients-cluster

# Stories of several processes. They need a PostgreSQL and a Redis, and have a recipe of their own.
SEVERAL := test(/^cluster::/)
# Stories about Redis, which start their own, and the PostgreSQL that replicas need beside it.
REDIS := test(/^redis_(faults|flavours|keys)::/)
# Stories about one process on its own, or about no gateway at all: three replicas would tell them no differently. And the year, which is long.
SINGLE := test(/^(billing_kills|billing_schedules|cli|deploy|leaks|year)::/)

# What the suites ask the stand-in for Stripe, a directory per suite.
RECORDED := $(abspath $(or $(CARGO_TARGET_DIR),target))/stripe-requests
SUITES := test-sqlite test-postgres test-cluster
$(SUITES): export WEIR_TEST_STRIPE_REQUESTS = $(RECORDED)/$@
EMPTY = rm -rf "$$WEIR_TEST_STRIPE_REQUESTS" && mkdir -p "$$WEIR_TEST_STRIPE_REQUESTS"

# The example server that the client stories run against.
CLIENTS_EXAMPLE ?= conformance

.PHONY: help test $(RECIPES)

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 24

test: ## everything below, in this order; stops at the first failure
	@scripts/recipes $(RECIPES)

tools: ## install what is missing
	@scripts/tool all >/dev/null

fmt: ## formatting of the Rust code
	cargo fmt --check

shell: ## shellcheck over every shell script
	@"$$(scripts/tool shellcheck)" --external-sources --source-path=SCRIPTDIR \
		scripts/lib.sh $$(grep -lE '^#!/usr/bin/env bash' scripts/* .ci/*)

machete: ## dependencies that nobody uses
	"$$(scripts/tool cargo-machete)"

deny: ## licences, banned and foreign crates (deny.toml)
	"$$(scripts/tool cargo-deny)" --locked check bans licenses sources

clippy: ## lints, all targets, warnings are errors
	cargo clippy --locked --all-targets -- -D warnings

doc: ## documentation with private items, warnings are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

test-sqlite: ## unit and front-door tests on SQLite
	@echo 'left to test-cluster: $(SEVERAL); to test-postgres: $(REDIS)'
	@$(EMPTY)
	env -u WEIR_TEST_DATABASE_URL -u WEIR_TEST_POSTGRES -u WEIR_TEST_REDIS_URL \
		"$$(scripts/tool cargo-nextest)" nextest run --locked -E 'not ($(SEVERAL) or $(REDIS))'

test-postgres: ## the same tests on a private PostgreSQL (and Redis)
	@echo 'left to test-cluster: $(SEVERAL)'
	@$(EMPTY)
	scripts/with-services "$$(scripts/tool cargo-nextest)" nextest run --locked -E 'not $(SEVERAL)'

test-cluster: ## front-door tests through three replicas on one PostgreSQL and Redis, and stories of several processes
	@echo 'left to test-sqlite and test-postgres: $(SINGLE) or $(REDIS)'
	@$(EMPTY)
	scripts/with-services env WEIR_TEST_REPLICAS=3 "$$(scripts/tool cargo-nextest)" nextest run --locked \
		-E 'binary(it) and not ($(SINGLE) or $(REDIS))'

doctest: ## examples in the documentation, which nextest does not run
	cargo test --locked --doc

stripe-requests: ## what Weir asked of the stand-in for Stripe in the suites before, against the types of Stripe's own SDK
	scripts/stripe-sdk checks_test.py
	scripts/stripe-sdk recorded.py --operations tests/stripe/operations.txt $(SUITES:%="$(RECORDED)/%")

stripe-sdk: ## Stripe's own SDK against the stand-in for Stripe
	scripts/stripe-sdk story.py
	scripts/stripe-sdk live.py --against-standin

stripe-live: ## what the stand-in assumes, against Stripe itself where WEIR_TEST_STRIPE_KEY is a key of a sandbox
	scripts/stripe-live

conformance: ## the official conformance suite, both revisions
	scripts/conformance

# Every client and transport, against the server that the environment names.
STORY := bash -c 'scripts/clients --url "$$SERVER_URL" --sse-url "$$SERVER_SSE_URL" \
	--key "$$SERVER_KEY" --token "$$SERVER_TOKEN"'

clients: ## the story of tests/clients with every real client
	scripts/with-server $(CLIENTS_EXAMPLE) $(STORY)

conformance-cluster: ## the conformance suite, each request to the next of three replicas
	scripts/conformance --replicas 3

clients-cluster: ## every real client, each request to the next of three replicas
	scripts/with-server --replicas 3 $(CLIENTS_EXAMPLE) $(STORY)
