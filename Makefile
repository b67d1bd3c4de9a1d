# `make` alone prints what there is.

# Where Debian keeps postfix and dockerd, which not everybody's PATH has.
export PATH := $(PATH):/usr/sbin:/sbin

# Only root can start Postfix and Docker. Everybody else builds the tests as
# themselves and runs them under sudo.
AS_ROOT := $(if $(filter-out 0,$(shell id -u)),-exec 'sudo env "PATH=$(PATH)" ONWARD_REQUIRE_PEERS=1 "GOMODCACHE=$(shell go env GOMODCACHE)"')

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# What only root can do, when the programs are built.
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)

.PHONY: help test check format fuzz bench bench-go profile soak run

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

test: ## install the peers (Postfix, Docker, ...) and run every test, none skipped for want of one
	.ci/peers
	go mod download
	$(MAKE) --no-print-directory format
	go vet ./...
	ONWARD_REQUIRE_PEERS=1 go test -race -shuffle=on -timeout 40m $(AS_ROOT) ./...
	go test -run 'PowerCut|AnyOrder|DomainLimit' ./internal/store

check: format ## what to run before a commit: format, vet, staticcheck, vulnerabilities
	go vet ./...
	go run $(STATICCHECK) ./...
	.ci/vulnerabilities

format:
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "run gofmt -w on: $$unformatted"; exit 1; }

fuzz: ## fuzz every target for a minute
	.ci/fuzz 1m

bench: ## fetch Postfix, its helpers, Exim and chasquid, and measure onward beside them: one table (docs/performance.md)
	.ci/bench-peers
	go build -o build/ ./cmd/onward ./cmd/onward-bench
	$(SUDO) build/onward-bench -onward build/onward -commit "$$(git describe --always --dirty)"

profile: ## write CPU and heap profiles of the daemon under load to build/profiles
	go build -o build/ ./cmd/onward-bench
	go build -tags pprof -o build/onward-pprof ./cmd/onward
	$(SUDO) build/onward-bench -onward build/onward-pprof -profile build/profiles

bench-go: ## run every Go benchmark
	go test -run '^$$' -bench . -benchmem ./...

soak: ## kill the daemon 200 times under load, keep it from its mailboxes for a minute, send it 200 messages of 50 MiB at once
	ONWARD_SOAK=1 go test -count=1 -timeout 60m -v -run 'TestSoak|TestQueue|TestLargeMessages' ./cmd/onward

run: ## run the daemon on ./onward.yaml
	go run ./cmd/onward serve -c onward.yaml
