# Sallyport. `make run` shows it working, `make test` proves it; both set up what they need.
# Everything is built with the Go toolchain alone; nothing here needs the internet at run time.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export CGO_ENABLED ?= 0
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 3s

.PHONY: help build postgres run test unit race isolation blackbox fuzz lint bench guests guests-all clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/sallyport, a static binary
	@go build -trimpath -ldflags '$(LDFLAGS)' -o bin/sallyport ./cmd/sallyport

GUEST_TESTS = $(CURDIR)/test/guests/testdata/json

# The modules of the other languages are committed; `make guests-all` builds them anew.
guests: ## build the WebAssembly modules of the examples in Go
	@GOOS=wasip1 GOARCH=wasm go build -trimpath -ldflags '-s -w' -buildmode=c-shared -o examples/webshop/reserve.wasm ./examples/webshop/reserve
	@GOOS=wasip1 GOARCH=wasm go build -trimpath -ldflags '-s -w' -buildmode=c-shared -o examples/go/price.wasm ./examples/go
	@GOOS=wasip1 GOARCH=wasm go build -trimpath -ldflags '-s -w' -o examples/command/price.wasm ./examples/command

guests-all: guests ## build those in C, Rust and AssemblyScript too, each with its own tools
	@for l in c rust assemblyscript; do (cd examples/$$l && ./build && chmod 644 price.wasm && sha256sum price.wasm >price.wasm.sha256); done
	@examples/c/build $(GUEST_TESTS)/json.c.wasm $(GUEST_TESTS)/json.c
	@examples/assemblyscript/build $(GUEST_TESTS)/json.ts.wasm ../../test/guests/testdata/json/json.ts
	@chmod 644 $(GUEST_TESTS)/*.wasm

run: build guests ## start Sallyport with the example app and show real events going through (ONCE=1: check and exit)
	@ONCE=$(ONCE) SALLYPORT=$(CURDIR)/bin/sallyport ./examples/webshop/run

test: lint race isolation blackbox fuzz ## run every test

postgres: ## see that there is a PostgreSQL server for the tests of databases, and install it when not
	@./tools/postgres

unit: guests postgres ## unit tests without the race detector (quick)
	@go test ./...

race: guests postgres ## unit tests under the race detector
	@CGO_ENABLED=1 go test -race -timeout 30m $$(go list ./... | grep -v '/test/')

ISOLATION = ^(TestNeverSeen|TestNeverSeenBehindWall|TestSecretsLeaveMemory)$$

isolation: ## 100,000 events of several functions, none of which may see another's, and no secret that outlives one
	@go test -c -ldflags '-s -w' -o bin/cell.test ./internal/cell
	@cd internal/cell && test "$$($(CURDIR)/bin/cell.test -test.list '$(ISOLATION)' | wc -l)" -eq 3 || { echo 'not all of the tests are there'; exit 1; }
	@cd internal/cell && $(CURDIR)/bin/cell.test -test.timeout 30m -test.run '$(ISOLATION)'

blackbox: build guests postgres ## drive the real binary: scripts, faults, conformance
	@SALLYPORT=$(CURDIR)/bin/sallyport go test -count=1 -timeout 30m ./test/...

fuzz: ## run every fuzz target for FUZZTIME
	@./tools/fuzz $(FUZZTIME)

lint: ## vet, format and static checks, and that it builds for another system
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo 'not gofmt-ed:'; gofmt -l $$(git ls-files '*.go'); exit 1; }
	@go vet ./...
	@GOOS=darwin GOARCH=arm64 go build -o /dev/null ./cmd/sallyport

bench: ## measure the real binary beside its baselines
	@go run ./bench -json bench-results.json

clean: ## remove what was built
	@rm -rf bin examples/webshop/reserve.wasm examples/go/price.wasm examples/command/price.wasm bench-results.json
