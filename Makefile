# Everything that developers and CI run. "make help" lists it.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# What test and bench are about. The tests that take longest begin first, beside the others.
PACKAGES ?= ./test/integration ./internal/store/storetest ./internal/server ./...

# Where fs-client runs, besides the machine at hand.
SYSTEMS := linux/arm64 windows/amd64 darwin/arm64

# For test. Tests wait for processes, disks and intervals more than they compute: this many packages run at a time, and this
# many of each one's tests that may. They are vetted by lint.
PROGRAMS  ?= 3
PARALLEL  ?= 4
TESTFLAGS ?=
# For bench-micro: which benchmarks, how often, how long each.
BENCH     ?= .
COUNT     ?= 1
BENCHTIME ?= 1s
# For bench-fabric: its flags; "go run ./bench -help" lists them.
FABRIC    ?=
# For fuzz: how long each target runs.
FUZZTIME  ?= 5s

TOOL    := $(GO) tool -modfile=tools/go.mod
LDFLAGS := -X github.com/farspeak/farspeak/internal/daemon/run.version=$(VERSION)
# How programs are built. What looks at the source with the same flags finds it compiled.
AS_BUILT := CGO_ENABLED=0 GOFLAGS=-trimpath
# Compilers and checkers live briefly; with less collecting of garbage staticcheck takes a third less of time, the largest package
# a fifth less.
build examples vet cross staticcheck drift vuln: export GOGC := 400
GOBUILD  := $(AS_BUILT) $(GO) build -ldflags '$(LDFLAGS)'

.DEFAULT_GOAL := help

##@ Build and try

.PHONY: build
build: ## build fs-server, fs-admin, fs-client and fsctl into bin/
	$(GOBUILD) -o bin/ ./cmd/...

.PHONY: examples
examples: ## build the programs of examples/ into bin/
	$(GOBUILD) -o bin/ ./examples/...

.PHONY: demo
demo: build examples ## run a whole installation on this machine, print what three clients answer, and stop it
	bin/demo -bin bin

.PHONY: up
up: build examples ## run the same installation until Ctrl-C, and say how to talk to it
	bin/demo -bin bin -stay

##@ Test

.PHONY: deps
deps: ## install the Debian packages that tests and lint need, where they are missing
	scripts/deps.sh

.PHONY: test
test: deps ## run all tests with the race detector, on real databases and real processes
	CGO_ENABLED=1 $(GO) test -race -vet=off -p $(PROGRAMS) -parallel $(PARALLEL) $(TESTFLAGS) $(PACKAGES)

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (5s; at night 60s)
	FUZZTIME=$(FUZZTIME) scripts/fuzz.sh

.PHONY: bench
bench: bench-micro bench-fabric ## both of these

.PHONY: bench-micro
bench-micro: ## run BENCH (.) COUNT (1) times; "make -s bench-micro COUNT=10 >new.txt" is input for benchstat
	@$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -benchtime $(BENCHTIME) -count $(COUNT) $(PACKAGES)

.PHONY: bench-fabric
bench-fabric: deps ## measure an installation of its own beside bars and floors; FABRIC="-only idle,connect" runs parts
	$(GO) run ./bench $(FABRIC)

##@ Look after the source

.PHONY: lint
lint: fmt vet cross staticcheck imports links drift vuln ## all of the checks below

.PHONY: fmt
fmt: ## fail if a file is not formatted
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "not formatted, run gofmt -w on:"; echo "$$files"; exit 1; fi

.PHONY: vet
vet: ## go vet
	$(AS_BUILT) $(GO) vet ./...

.PHONY: cross
cross: ## build and vet the agent for the other systems that it runs on
	@for system in $(SYSTEMS); do \
		echo "fs-client for $$system"; \
		export $(AS_BUILT) GOOS=$${system%/*} GOARCH=$${system#*/}; \
		$(GO) build -o /dev/null ./cmd/fs-client && $(GO) vet ./cmd/fs-client ./internal/agent/... ./internal/config/agentconfig ./internal/winreg/... ./sdk/service || exit 1; \
	done

.PHONY: staticcheck
staticcheck: ## staticcheck
	$(AS_BUILT) $(TOOL) staticcheck ./...

.PHONY: imports
imports: ## who may import whom
	$(AS_BUILT) $(GO) test -count=1 -vet=off ./internal/deptest

.PHONY: links
links: ## relative links in the documentation
	$(AS_BUILT) $(GO) test -count=1 -vet=off ./internal/doclint

.PHONY: drift
drift: ## fail if generated code is not what its .proto files say; needs protoc
	$(AS_BUILT) scripts/drift.sh

.PHONY: vuln
vuln: ## known vulnerabilities in what is linked, where the database can be reached
	$(AS_BUILT) scripts/vuln.sh

.PHONY: proto
proto: ## generate Go code from all .proto files; needs protoc
	proto/generate.sh

.PHONY: clean
clean: ## remove bin/
	rm -rf bin

.PHONY: help
help: ## print this
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
