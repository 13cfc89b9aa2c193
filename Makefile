# Forebay: `make run` starts it, `make test` tests it. Needs Rust, Python 3 and make; everything else is installed.

CARGO ?= cargo

.PHONY: help run test test-tools test-sdk test-deploy chaos-short chaos lint fmt bench bench-build bench-scale bench-tools fuzz example clean

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build and start Forebay: one process, SQLite, no other server
	$(CARGO) run --release --locked --package forebay -- dev

test-tools: ## Install the servers and tools that the tests start, where they are missing
	@scripts/install-test-tools

# Where the servers of tests keep their data.
test test-sdk chaos-short: export TMPDIR = $(shell scripts/test-folder)

test: test-tools ## Run every test: units, conformance, faults, end to end
	$(CARGO) build --locked --workspace --all-targets
	$(CARGO) test --locked --workspace --no-fail-fast
	scripts/run-example --files 300
	@$(MAKE) test-sdk
	@$(MAKE) test-deploy
	@$(MAKE) chaos-short

test-sdk: test-tools ## Test the packages for Python and TypeScript against the binary; a few minutes
	$(CARGO) build --locked --package forebay
	scripts/test-sdk

test-deploy: test-tools ## Test what Forebay is deployed with: chart, scaling, rules, dashboards, image; 2 minutes, needs no cluster
	$(CARGO) build --locked --workspace --all-targets
	scripts/test-deploy

# A seed of its own for each run would find more, and a failure less easily again.
chaos-short: test-tools ## Inject a few faults on every broker, and see whether the checker sees; about 3 minutes
	$(CARGO) build --locked --workspace --all-targets
	target/debug/forebay-chaos run --broker nats --faults 6 --seed 1 --only '$(SHORT)'
	target/debug/forebay-chaos run --broker rabbitmq --faults 6 --seed 2 --only '$(SHORT)'
	target/debug/forebay-chaos run --broker embedded --faults 3 --seed 1
	target/debug/forebay-chaos sabotage --broker nats

SHORT = kill -9 · worker,kill -9 · Postgres,kill -9 · broker,pause · worker,disk wiped,black hole · everybody–broker,half-open · everybody–Postgres,clock -1 h · worker

chaos: test-tools ## Inject 110 faults on every broker, and more, and bring docs/reliability.md up to date; about 25 minutes
	$(CARGO) build --release --locked --package forebay
	$(CARGO) build --release --locked --package forebay-chaos
	mkdir -p target/chaos
	target/release/forebay-chaos run --broker nats --faults $(FAULTS) --seed $(SEED) --report target/chaos/1-nats.json
	target/release/forebay-chaos run --broker rabbitmq --faults $(FAULTS) --seed $(SEED) --report target/chaos/2-rabbitmq.json
	target/release/forebay-chaos run --broker embedded --faults $(FAULTS) --seed $(SEED) --report target/chaos/3-embedded.json
	target/release/forebay-chaos wipe --broker nats --report target/chaos/4-wipe-nats.json
	target/release/forebay-chaos wipe --broker rabbitmq --report target/chaos/5-wipe-rabbitmq.json
	target/release/forebay-chaos sabotage --broker nats
	target/release/forebay-chaos sabotage --broker rabbitmq
	target/release/forebay-chaos report target/chaos/*.json

FAULTS ?= 110
SEED ?= 1

lint: ## Check format, lints, documentation, protocol buffers
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --locked --workspace --no-deps --quiet
	scripts/lint-proto

fmt: ## Format the code
	$(CARGO) fmt --all

bench-tools: test-tools ## Install the other task queues that are measured beside Forebay, where they are missing
	@CARGO="$(CARGO)" scripts/install-bench-tools

bench-build: bench-tools
	$(CARGO) build --release --locked --package forebay --package forebay-loadtest

bench: bench-build ## Measure Forebay beside the limits of its parts and other task queues; about 20 minutes after the build (BENCH=--quick: 3)
	target/release/forebay-loadtest bench $(BENCH)
	target/release/forebay-loadtest bench --render

bench-scale: bench-build ## The same with 10 million finished rows and with a million queued; about 10 minutes after the build
	target/release/forebay-loadtest bench --scale $(BENCH)
	target/release/forebay-loadtest bench --render

BENCH ?=

fuzz: test-tools ## Throw generated requests at the served OpenAPI document; finds any 5xx
	$(CARGO) build --locked --package forebay
	scripts/fuzz-api

example: ## Work through every file under /usr/share/doc, and check all results
	$(CARGO) build --release --locked --package forebay
	FOREBAY_BIN=target/release/forebay scripts/run-example

clean: ## Remove what was built
	$(CARGO) clean
