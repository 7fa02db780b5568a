# Perigee's targets. `make run` and `make test` need Go, git and make, and nothing else.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LINT     := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FLAGS    := -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
MAX_SIZE := 20971520 # bytes of a binary: 20 MiB

# Packages that hold data: their tests run on 32 bits too, where Badger and int have surprises.
DATA     := ./internal/store/... ./internal/wire/... ./internal/event/... ./functions/state/... ./functions/catalog/... \
            ./functions/frame/... ./sync/outbox/... ./sync/record/... ./gateway/engine/...

export CGO_ENABLED ?= 0

.DEFAULT_GOAL := build
.PHONY: build run test check lint race data32 cross bench chaos clean

build: ## dist/perigee for this machine
	@mkdir -p dist
	$(GO) build $(FLAGS) -o dist/perigee ./gateway/cmd/perigee

run: build ## the demonstration: a gateway, devices, functions and a cloud in one
	dist/perigee demo

test: ## every test, as fast as it goes
	$(GO) test ./...

check: lint race data32 ## all that must hold before a change lands, but for the slow suites

lint:
	@bad=$$(gofmt -l .); test -z "$$bad" || { echo "gofmt would change:"; echo "$$bad"; exit 1; }
	$(GO) vet ./...
	CGO_ENABLED=0 $(GO) run $(LINT) run ./...

race: ## every test under the race detector, which needs a C compiler
	CGO_ENABLED=1 $(GO) test -race ./...

data32: ## the packages that hold data, on 32 bits
	GOARCH=386 $(GO) test $(DATA)

cross: ## dist/perigee-linux-ARCH for every board, none above MAX_SIZE
	@mkdir -p dist
	$(GO) run ./build/overlay -o dist/overlay.json
	@set -e; for arch in amd64 arm64 arm 386; do \
		overlay=; case $$arch in arm|386) overlay="-overlay dist/overlay.json";; esac; \
		GOOS=linux GOARCH=$$arch GOARM=6 $(GO) build $(FLAGS) $$overlay -o dist/perigee-linux-$$arch ./gateway/cmd/perigee; \
		size=$$(stat -c %s dist/perigee-linux-$$arch); echo "dist/perigee-linux-$$arch: $$size bytes"; \
		test $$size -le $(firstword $(MAX_SIZE)) || { echo "that is more than $(firstword $(MAX_SIZE))"; exit 1; }; \
	done

bench: build ## speed, memory and bytes written, beside a bare client in the same run
	$(GO) run ./build/bench -perigee dist/perigee

chaos: build ## kill it, again and again, and count
	$(GO) test -count=1 -timeout 30m ./build/chaos -args -full

clean:
	rm -rf dist
