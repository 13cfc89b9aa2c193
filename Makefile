# Forebay: `make run` starts it, `make test` tests it. Needs Rust, Python 3 and make; everything else is installed.

CARGO ?= cargo

.PHONY: help run test test-tools lint fmt bench fuzz example clean

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build and start Forebay: one process, SQLite, no other server
	$(CARGO) run --release --locked --package forebay -- dev

test-tools: ## Install the servers and tools that the tests start, where they are missing
	@scripts/install-test-tools

test: test-tools ## Run every test: units, conformance, faults, end to end
	$(CARGO) build --locked --workspace --all-targets
	$(CARGO) test --locked --workspace
	scripts/run-example --files 300

lint: ## Check format, lints, documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --locked --workspace --no-deps --quiet

fmt: ## Format the code
	$(CARGO) fmt --all

bench: test-tools ## Measure tasks a second, submit to start, and memory, beside private servers; about 3 minutes
	$(CARGO) build --release --locked --package forebay --package forebay-loadtest
	target/release/forebay-loadtest bench

fuzz: test-tools ## Throw generated requests at the served OpenAPI document; finds any 5xx
	$(CARGO) build --locked --package forebay
	scripts/fuzz-api

example: ## Work through every file under /usr/share/doc, and check all results
	$(CARGO) build --release --locked --package forebay
	FOREBAY_BIN=target/release/forebay scripts/run-example

clean: ## Remove what was built
	$(CARGO) clean
