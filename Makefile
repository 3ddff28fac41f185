# The two commands a newcomer needs are `make demo` and `make test`. Everything else is listed by `make help`.
SHELL := /bin/sh
CARGO ?= cargo
PYTHON ?= python3
AML_VENV ?= $(CURDIR)/target/aml-venv
WASM_TARGET := wasm32-unknown-unknown
COMPONENTS := udfs/target/components
# Seconds for each target of `make fuzz`. The target `loader` has to be asked for: FUZZ_TARGETS=loader.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= lexer parser binder decoder executor
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY ?= $(shell command -v cargo-deny || echo $(CURDIR)/target/tools/bin/cargo-deny)
CARGO_FUZZ ?= $(shell command -v cargo-fuzz || echo $(CURDIR)/target/tools/bin/cargo-fuzz)

.PHONY: help demo test torture check bench brokers soak fuzz udfs udfs-release test-peers peers-mosquitto peers-aml tools fmt clippy doc deny clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: tools ## build the functions and the binary, then run the whole job with everything embedded (under 60 s after the build)
	$(CARGO) build --release --locked
	FOREBAY_GUESTS=rust sh udfs/build.sh target/release/forebay
	target/release/forebay demo $(DEMO_ARGS)

test: tools test-peers ## install the test peers and pass all tests
	$(CARGO) build --locked
	sh udfs/build.sh target/debug/forebay
	FOREBAY_AML_VENV="$(AML_VENV)" $(CARGO) test --locked
	@sed 's/\t.*\t/: NOT TESTED, it was left out; /' $(COMPONENTS)/left_out

# Counts and seed are those of the environment where it has them: FOREBAY_TORTURE_KILLS=50 make torture
torture: tools ## kill the job, cut its power, break its disk, turn bits of its pool, by the thousand: what was found (about 30 minutes)
	$(CARGO) build --release --locked
	@! grep -q FOREBAY_KILL_AT target/release/forebay || { echo "the release build has kill points: see src/kill_point.rs" >&2; exit 1; }
	$(CARGO) build --locked
	FOREBAY_GUESTS=rust sh udfs/build.sh target/debug/forebay
	@rm -rf target/torture && mkdir -p target/torture
	FOREBAY_TORTURE_SEED="$${FOREBAY_TORTURE_SEED:-$$(date +%s)}" FOREBAY_TORTURE_TABLE="$(CURDIR)/target/torture/table" \
	FOREBAY_TORTURE_KILLS="$${FOREBAY_TORTURE_KILLS:-500}" FOREBAY_TORTURE_IMAGES="$${FOREBAY_TORTURE_IMAGES:-5000}" \
	FOREBAY_TORTURE_FAULTS="$${FOREBAY_TORTURE_FAULTS:-1000}" FOREBAY_TORTURE_LIES="$${FOREBAY_TORTURE_LIES:-1000}" \
	FOREBAY_TORTURE_BITS="$${FOREBAY_TORTURE_BITS:-5000}" \
	$(CARGO) test --locked --test it torture:: -- --test-threads=1
	FOREBAY_TORTURE_TABLE="$(CURDIR)/target/torture/table" FOREBAY_SIMULATION_SEEDS="$${FOREBAY_SIMULATION_SEEDS:-3000}" \
	$(CARGO) test --locked --lib simulation
	@{ printf '| what | tried | found |\n|---|---|---|\n'; cat target/torture/table; } | tee target/torture/table.md

check: export FOREBAY_GUESTS = all
check: tools fmt clippy doc deny test ## what continuous integration runs: formatting, lints, docs, dependencies, tests

bench: tools peers-mosquitto ## print the figures; BENCH=rates prints one part (dist build, which is what a gateway gets; needs mosquitto)
	$(CARGO) build --profile dist --locked
	sh udfs/build.sh target/dist/forebay
	$(CARGO) bench --profile dist --locked --bench figures -- $(BENCH)

soak: tools peers-mosquitto ## two hours at 20 events/s with an outage every ten minutes: does anything grow? (FOREBAY_BENCH_SECONDS makes it shorter)
	$(CARGO) build --profile dist --locked
	FOREBAY_GUESTS=rust sh udfs/build.sh target/dist/forebay
	$(CARGO) bench --profile dist --locked --bench figures -- soak

# mosquitto's clients send and receive
brokers: tools peers-mosquitto ## a job that is killed twice at six brokers: what came out (npm, go, mvn, java, network)
	@command -v mosquitto_pub >/dev/null || { echo "missing: run  sudo apt-get install mosquitto-clients , then try again" >&2; exit 1; }
	$(CARGO) build --locked
	sh tests/brokers/build.sh
	$(PYTHON) tests/brokers/run.py target/debug/forebay $(BROKERS)

# The toolchain is the stable one: RUSTC_BOOTSTRAP lets it take the flags for coverage, and there is no sanitizer, which
# code without `unsafe` has no use for.
fuzz: tools ## look for inputs that panic, for FUZZ_SECONDS=60 a target (the first build takes a while)
	@[ -x "$(CARGO_FUZZ)" ] || $(CARGO) install cargo-fuzz --locked --root "$(CURDIR)/target/tools"
	@$(PYTHON) fuzz/seeds.py
	@for target in $(FUZZ_TARGETS); do \
	  case $$target in decoder) dict="-dict=fuzz/payload.dict";; lexer|parser|binder) dict="-dict=fuzz/query.dict";; *) dict="";; esac; \
	  case $$target in loader) features="--features loader";; *) features="";; esac; \
	  RUSTC_BOOTSTRAP=1 "$(CARGO_FUZZ)" run --fuzz-dir fuzz --sanitizer none $$features $$target -- \
	    $$dict -max_total_time=$(FUZZ_SECONDS) -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 || exit 1; \
	done

udfs: tools ## build the example functions of all languages into udfs/target/components; installs what it can of their tools into target/tools
	$(CARGO) build --locked
	sh udfs/build.sh target/debug/forebay

fmt:
	$(CARGO) fmt --check
	cd udfs && $(CARGO) fmt --check

clippy:
	$(CARGO) clippy --locked --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

deny: ## licences, doubled and forbidden crates by deny.toml; installs cargo-deny into target/tools (two minutes, once)
	@[ -x "$(CARGO_DENY)" ] || $(CARGO) install cargo-deny --version $(CARGO_DENY_VERSION) --locked --root "$(CURDIR)/target/tools"
	"$(CARGO_DENY)" --locked check --hide-inclusion-graph licenses bans sources

tools:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer with rustup, then try again" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "a C compiler is missing: install gcc or clang (Debian: apt-get install build-essential)" >&2; exit 1; }
	@if command -v rustup >/dev/null; then \
	  rustup target list --installed | grep -qx $(WASM_TARGET) || rustup target add $(WASM_TARGET); \
	else \
	  [ -d "$$(rustc --print sysroot)/lib/rustlib/$(WASM_TARGET)" ] || { echo "the Rust target $(WASM_TARGET) is missing and rustup is not here to add it" >&2; exit 1; }; \
	fi

test-peers: peers-mosquitto peers-aml ## the real counterparts of the tests: mosquitto and Azure ML's inference server

# mosquitto itself, openssl for the certificates of the TLS tests, and the kill command
peers-mosquitto:
	@missing=""; \
	command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || missing="$$missing mosquitto"; \
	command -v openssl >/dev/null || missing="$$missing openssl"; \
	[ -x /bin/kill ] || [ -x /usr/bin/kill ] || missing="$$missing procps"; \
	if [ -z "$$missing" ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq $$missing; \
	else echo "missing:$$missing; run  sudo apt-get install$$missing  (Debian, Ubuntu), then try again" >&2; exit 1; fi

peers-aml:
	@if [ -f "$(AML_VENV)/.filled" ]; then :; else \
	  if ! $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && apt-get install -y -qq python3-venv; fi; \
	  $(PYTHON) -m venv "$(AML_VENV)" || { echo "python3 with venv is missing: run  sudo apt-get install python3-venv , then try again" >&2; exit 1; }; \
	  "$(AML_VENV)/bin/python" -m pip install --quiet --disable-pip-version-check -r tests/aml-server/requirements.txt \
	  || { echo "the Azure ML inference server did not install: see pip's message above; it needs Python 3.9 to 3.12" >&2; exit 1; }; \
	  touch "$(AML_VENV)/.filled"; fi

clean: ## remove what was built, the inference server of the tests with it
	$(CARGO) clean
	rm -rf udfs/target
