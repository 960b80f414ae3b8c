# Ottla: build, run, test. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

GO         ?= go
BIN        := bin/ottla
DIR        ?= .ottla
BROKERS    ?= 3
ZOOKEEPERS ?= 3
PORT       ?= 9092
FUZZTIME   ?= 30s
BENCHTIME  ?= 1s
OTTLA_FAULT_MINUTES ?= 10
COMPOSE    ?= docker/docker-compose.yml
OTTLA_FAULT_SEED    ?= 1
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
SOURCES := $(shell find cmd broker controller groupcoord txncoord zkcoord logstore config security internal -name '*.go' 2>/dev/null) go.mod go.sum

##@ Run
.PHONY: help build up down status demo
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-zA-Z_-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: $(BIN) ## Build bin/ottla
$(BIN): $(SOURCES)
	@command -v $(GO) >/dev/null || { echo "Go 1.26 or newer is needed to build Ottla: install it and put 'go' on the PATH" >&2; exit 1; }
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/ottla

up: build ## Start a local cluster (3 ZooKeeper servers, 3 brokers) and send the Go source tree through it
	@scripts/setup zookeeper kcat
	@$(BIN) up --dir $(DIR) --brokers $(BROKERS) --zookeepers $(ZOOKEEPERS) --port $(PORT)
	@$(BIN) demo --dir $(DIR)

down: build ## Stop the local cluster; its data stays in .ottla
	@$(BIN) down --dir $(DIR)

status: build ## Show brokers, controller, topics and processes of the local cluster
	@$(BIN) status --dir $(DIR)

demo: build ## Send the Go source tree through the running cluster again, kill a leader on the way, and compare byte for byte
	@$(BIN) demo --dir $(DIR) --kill-leader

##@ Test
.PHONY: setup test test-short test-race test-long test-faults test-mutants lint bench bench-kafka bench-soak fuzz
setup: ## Install what the tests need and a bare Debian lacks (ZooKeeper, kcat, iproute2, iptables)
	@scripts/setup zookeeper kcat iproute2 iptables

test: setup build ## Every test that this machine can run, integration tests in their short form
	$(GO) vet ./...
	$(GO) test -timeout 18m ./...

test-short: build ## Only what needs no processes and no sockets
	$(GO) test -short -timeout 5m ./...

test-race: setup build ## Unit tests under the race detector, with the invariant checks on
	$(GO) test -race -timeout 30m $$($(GO) list ./... | grep -v '/integration')

test-long: setup build ## The integration tests in their long form: whole corpus, 100 kills, 10,000 connections
	OTTLA_LONG=1 $(GO) test -count=1 -v -timeout 90m ./integration/...

test-faults: setup build ## Kill, pause and cut a cluster under load for OTTLA_FAULT_MINUTES (default 10) with OTTLA_FAULT_SEED (default 1)
	OTTLA_FAULT_MINUTES=$(OTTLA_FAULT_MINUTES) OTTLA_FAULT_SEED=$(OTTLA_FAULT_SEED) \
		$(GO) test -count=1 -v -timeout $$(( $(OTTLA_FAULT_MINUTES) + 15 ))m ./integration/faults

test-mutants: setup build ## Break the program on purpose, one rule at a time, and see who notices (OTTLA_MUTANTS=M03,M07 for some)
	OTTLA_MUTANTS=$${OTTLA_MUTANTS:-all} $(GO) test -count=1 -v -timeout 60m -run BrokenBuilds ./integration/mutants

lint: ## gofmt, go vet and staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "not formatted:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

bench: ## Benchmarks of the hot paths, with allocations
	$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./...

bench-kafka: setup build ## Measure beside Kafka 3.9, on a quiet machine, half an hour: BENCH_PAIRS (5), BENCH_SECONDS (5), BENCH_WORKLOADS, BENCH_JSON, BENCH_PLOT
	OTTLA_BIN=$(abspath $(BIN)) OTTLA_BENCH=1 BENCH_PAIRS=$(BENCH_PAIRS) BENCH_SECONDS=$(BENCH_SECONDS) BENCH_WORKLOADS=$(BENCH_WORKLOADS) BENCH_WARM=$(BENCH_WARM) \
		BENCH_JSON=$(abspath $(BENCH_JSON)) BENCH_PLOT=$(abspath $(BENCH_PLOT)) \
		$(GO) test -count=1 -v -timeout 3h -run TestBesideKafka ./integration/bench

bench-soak: setup build ## Load three brokers steadily for SOAK_MINUTES (30) on a quiet machine: nothing may grow, latency stays
	OTTLA_BIN=$(abspath $(BIN)) SOAK_MINUTES=$(or $(SOAK_MINUTES),30) SOAK_SHARE=$(SOAK_SHARE) \
		$(GO) test -count=1 -v -timeout 24h -run TestSteadyLoadLeavesNothingBehind ./integration/bench

fuzz: ## Each fuzz target for FUZZTIME (default 30s)
	@scripts/fuzz $(FUZZTIME)

##@ Docker
.PHONY: images up-docker down-docker test-docker test-kafka-go
images: build ## Build the images ottla, ottla-shell and ottla-zookeeper
	@docker/images

up-docker: build ## Start three ZooKeeper servers and three brokers in containers (COMPOSE names another file)
	@docker/up $(COMPOSE)

down-docker: ## Stop the containers and delete their volumes
	@docker/check && . docker/zookeeper-image && docker/compose -p ottla -f $(COMPOSE) down -v

test-docker: build ## Tests across containers: rolling restart, a node cut off, a node killed, the znodes compared
	@docker/test

test-kafka-go: build ## kafka-go's own integration tests in its published set-up, against the image
	@docker/images && docker/kafka-go

##@ Tidy
.PHONY: clean
clean: ## Stop the local cluster and delete its data and the binaries
	@[ ! -x $(BIN) ] || [ ! -d $(DIR) ] || $(BIN) down --dir $(DIR) || true
	rm -rf bin $(DIR) integration/logs
