# Perigee's make targets. `make run` and `make test` need Go, git and make, nothing else.
GO      ?= go
LINT    := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
export CGO_ENABLED = 0

.PHONY: test check build clean
build:
	$(GO) build -trimpath -ldflags '-s -w' ./...

test:
	$(GO) test ./...

check:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) run $(LINT) run ./...
	CGO_ENABLED=1 $(GO) test -race ./...

clean:
	rm -rf dist
