# Perigee's targets. `make run` and `make test` need Go, git and make, and nothing else.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LINT     := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
MAX_SIZE := 20971520# bytes of a binary: 20 MiB

FLAGS    := -trimpath -ldflags '-s -w -X main.version=$(VERSION)'

# Packages that hold data: their tests run on 32 bits too, where Badger and int have surprises; and those about workers, where the kernel has other calls.
DATA     := ./internal/store/... ./internal/wire/... ./internal/event/... ./internal/jsonscan/... ./functions/state/... \
            ./functions/catalog/... ./functions/frame/... ./functions/confine/... ./functions/sandbox/... ./sync/outbox/... ./sync/record/... ./gateway/engine/...

# For one run: make test TESTFLAGS='-v -run TestKilled', make bench BENCHFLAGS='-seconds 6 -rounds 1'.
TESTFLAGS  ?=
BENCHFLAGS ?=

export CGO_ENABLED ?= 0
# VERSION says which commit it is; git does not answer in a checkout that belongs to another user, and go would give up.
# Left out of the binary: the command line library's manual pages, which we write ourselves, and HTTP/2, whose only use would be the calls of
# functions. Both together are 0.9 MB of the 20.
export GOFLAGS := $(GOFLAGS) -buildvcs=false -tags=urfave_cli_no_docs,nethttpomithttp2

.DEFAULT_GOAL := build
.PHONY: help build run test check lint race data32 test-confine cross bench chaos clean

help: ## this list
	@awk -F ': .*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## dist/perigee for this machine
	@mkdir -p dist
	$(GO) build $(FLAGS) -o dist/perigee ./gateway/cmd/perigee

run: build ## the demonstration: a gateway, devices, functions and a cloud in one
	dist/perigee demo

test: ## every test, as fast as it goes
	$(GO) test $(TESTFLAGS) ./...

check: lint race data32 ## what must hold before a change lands; .ci/run adds the slow suites

lint: ## format, vet, and the linters of .golangci.yml
	@bad=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); test -z "$$bad" || { echo "gofmt would change:"; echo "$$bad"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(LINT) run ./...

race: export CGO_ENABLED := 1
race: ## every test under the race detector, which needs a C compiler
	$(GO) test -race $(TESTFLAGS) ./...

data32: ## the packages that hold data, on 32 bits
	GOARCH=386 $(GO) test $(TESTFLAGS) $(DATA)

test-confine: ## how workers are confined, on Debian's kernels for arm64 and armhf; needs qemu-system-arm and cpio
	build/qemu/confine.sh

cross: ## dist/perigee-linux-ARCH for every board, none above 20 MiB
	@mkdir -p dist
	$(GO) run ./build/overlay -o dist/overlay.json
	@set -e; for arch in amd64 arm64 arm 386; do \
		overlay=; case $$arch in arm|386) overlay="-overlay dist/overlay.json";; esac; \
		GOOS=linux GOARCH=$$arch GOARM=6 $(GO) build $(FLAGS) $$overlay -o dist/perigee-linux-$$arch ./gateway/cmd/perigee; \
		size=$$(stat -c %s dist/perigee-linux-$$arch); echo "dist/perigee-linux-$$arch: $$size bytes"; \
		test $$size -le $(MAX_SIZE) || { echo "that is more than $(MAX_SIZE)"; exit 1; }; \
	done

bench: build ## speed, memory and bytes written, beside a bare client in the same run
	$(GO) test -run '^$$' -bench 'Cost|Bare|SmallFunction' ./gateway/engine ./functions/script
	$(GO) run ./build/bench -perigee dist/perigee $(BENCHFLAGS)

chaos: ## kill it, cut its power, fill it, again and again, and count; hours, as root
	$(GO) test -count=1 -timeout 6h -v ./build/chaos -args -full

clean: ## remove what was built; the demonstration's directory stays, it may hold somebody's work
	rm -rf dist
