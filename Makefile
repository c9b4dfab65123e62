# The two commands that matter: `make demo` and `make test`. Both install what is missing and build first.
#   make demo               two organisations, three peers each, one orderer, live on the terminal
#   make demo INPUT=path    the same with a file of yours instead of the orderer-mock binary
#   make build              the binaries alone
#   make test               every test, the demo among them
#   make lint               formatting, clippy, documentation
#   make bench              how fast blocks spread over real processes, compared; PEERS=20 BYTES="160000 10000 1000000"
#   make bench-deliver    what fifty clients that follow live blocks cost a peer
#   make bench-verify       what verifying a block costs beside its hash and one signature check

CARGO_TARGET_DIR ?= $(HOME)/.cache/grapevine/target
export CARGO_TARGET_DIR

.PHONY: bench sim-misses sim-table test-durability chaos model test-forgeries test-exhaustive build demo test lint bench-verify bench-deliver deps

build: deps
	cargo build --release --locked --workspace

demo: deps
	cargo build --release --locked --workspace
	$(CARGO_TARGET_DIR)/release/grapevine-demo $(if $(INPUT),--input "$(INPUT)")

test: deps
	cargo test --release --workspace --locked

# Random faults over twenty thousand seeds in virtual time; a quarter of an hour. `make chaos SEEDS=7..7` repeats one.
SEEDS ?= 1..20000
chaos:
	cargo run --release --locked -p grapevine-simulator -- chaos --seeds $(SEEDS)

SIMULATOR = cargo run --release --locked -p grapevine-simulator -- run --no-misses --threads 2
# Blocks that dissemination does not bring to every peer: none may be. Hours at the full numbers; fewer with MISSES=, MISSES_1000=.
MISSES ?= 100000
MISSES_1000 ?= 2000
sim-misses:
	$(SIMULATOR) --peers 100 --interval-ms 200 --placements 100 --blocks $$(( $(MISSES) / 100 ))
	$(SIMULATOR) --peers 100 --interval-ms 200 --placements 100 --blocks $$(( $(MISSES) / 100 )) --silent 0.2 --views-off 0.05
	$(SIMULATOR) --peers 1000 --interval-ms 1000 --placements 2 --blocks $$(( $(MISSES_1000) / 2 ))

# Time to the last peer ÷ limit, copies and misses by size, distance and silent peers. `make sim-table PEERS="5 20"` for some sizes.
PEERS ?= 5 20 100
PROTOCOL ?= grapevine
sim-table:
	for peers in $(PEERS); do for links in lan wan; do for silent in 0 0.2; do \
	  cargo run --release --locked -q -p grapevine-simulator -- run --protocol $(PROTOCOL) --threads 2 --blocks 8 \
	    --peers $$peers --links $$links --silent $$silent || exit 1; echo; \
	done; done; done

# Every bit of every small block of Fabric's own chains; minutes.
test-exhaustive:
	GRAPEVINE_EXHAUSTIVE=1 cargo test --release --locked -p grapevine-channels --test data_model chain_flips

# A hundred thousand forged records for each kind of key, and as many leadership messages.
test-forgeries:
	GRAPEVINE_EXHAUSTIVE=1 cargo test --release --locked -p grapevine-channels --test forgeries

# Membership and leadership over wide-area links, two hundred networks for each question, held against the goals; hours. `make trials QUESTIONS="gap-killed joined"` for some.
TRIAL_SEEDS ?= 1..200
QUESTIONS ?=
trials:
	cargo run --release --locked -p grapevine-simulator -- trials --seeds $(TRIAL_SEEDS) --threads 2 $(QUESTIONS)

# Every run of small elections, at length: peers, losses and deaths; minutes and gigabytes each.
MODELS ?= "3 3 1" "4 1 1" "4 2 0"
model:
	for model in $(MODELS); do \
	  GRAPEVINE_MODEL="$$model" cargo test --release --locked -p grapevine-channels --lib \
	    election::model::at_length -- --nocapture || exit 1; \
	done

# The ledger against damage, kills and power failures, at length; a quarter of an hour. `grapevine-bench crash` does the same to whole peers.
test-durability:
	GRAPEVINE_EXHAUSTIVE=1 cargo test --release --locked -p grapevine-durability

lint: deps
	cargo fmt --check
	cargo clippy --release --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps --locked

# A table, a JSON file and a plot for each block size, in BENCH_DIR.
PEERS ?= 20
BYTES ?= 160000 10000 1000000
BLOCKS ?= 60
INTERVAL_MS ?= 400
BENCH_DIR ?= $(CARGO_TARGET_DIR)/bench
bench: deps
	cargo build --release --locked --workspace
	mkdir -p $(BENCH_DIR)
	for bytes in $(BYTES); do \
	   $(CARGO_TARGET_DIR)/release/grapevine-bench dissemination --peers $(PEERS) --block-bytes $$bytes --blocks $(BLOCKS) \
	      --interval-ms $(INTERVAL_MS) --json $(BENCH_DIR)/$$bytes.json --plot $(BENCH_DIR)/$$bytes.svg || exit 1; \
	done

# One peer without clients and then with fifty; two minutes and a half. Ratios of one run.
bench-deliver: deps
	cargo build --release --locked --workspace
	$(CARGO_TARGET_DIR)/release/grapevine-bench deliver --clients 50 --block-bytes 100000 --blocks 300 --json -

bench-verify:
	cargo bench --locked -p grapevine-channels --bench verify

# RocksDB is C++ and finds its header through libclang; everything else Rust brings along.
# Nothing is asked of the package manager when all is there.
deps:
	@missing=; \
	command -v c++ >/dev/null || missing="$$missing g++"; \
	command -v setpriv >/dev/null || missing="$$missing util-linux"; \
	find $${LIBCLANG_PATH:-} /usr/lib /usr/lib64 /usr/local/lib -maxdepth 3 \
	   \( -name 'libclang.so*' -o -name 'libclang-[0-9]*.so*' \) 2>/dev/null | grep -q . \
	   && find /usr/lib /usr/lib64 /usr/local/lib -path '*/clang/*/include/stddef.h' 2>/dev/null | grep -q . \
	   || missing="$$missing libclang-dev"; \
	test -z "$$missing" && exit 0; \
	echo "installing:$$missing"; \
	sudo=; test "$$(id -u)" = 0 || sudo=sudo; \
	{ $$sudo apt-get update -qq; \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; } >/dev/null || \
	{ echo "could not install:$$missing; install these packages (or what your system calls them) and run make again" >&2; exit 1; }
