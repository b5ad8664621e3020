export GOTOOLCHAIN := auto
FUZZTIME ?= 5m
export FUZZTIME
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
E2E := cmd/bifrost/e2e

.PHONY: build test outage chaos soak fuzz guards check simulate image demo deps-test deps-check deps-image

build: ## the binary, ./bifrost
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-X main.version=$(VERSION)" -o bifrost ./cmd/bifrost

demo: ## a provider, an API and bifrost on loopback
	go run ./cmd/bifrost-demo

test: deps-test ## everything, with the race detector
	go test -race ./...

outage: deps-test ## Redis away for a minute under load, and ten thousand tokens that expire together, with the numbers
	go test ./$(E2E) -run 'TestStoreOutage|TestHerd|TestRedisKilled|TestProviderInTrouble|TestExpiredClientSecret' -v -count=1 -outage 1m

fuzz: ## every fuzz target, for FUZZTIME each: 5 minutes, unless it says otherwise
	.ci/fuzz

CHAOS ?= 2m
chaos: ## three replicas while everything fails that can, and the verdict on every connection lost
	@.ci/need redis-server:redis-server
	go test ./$(E2E) -run '^TestChaos$$' -count=1 -v -timeout 30m -chaos=$(CHAOS)

soak: ## hundreds of transfers, ten thousand idle streams and a million requests that are answered early, with the numbers
	go test ./$(E2E) -run 'TestMemory|TestIdleStreams|TestAnswersAreWhole' -v -count=1 -timeout 1h -soak

EPISODES := 100000
simulate: ## the refresh protocol under random faults: with those that pass, with answers destroyed, with crashes
	go test -count=1 -timeout 2h -run TestSimulator -v ./authflow -sim.episodes $(EPISODES)
	go test -count=1 -timeout 2h -run TestSimulator -v ./authflow -sim.episodes $(EPISODES) -sim.destroys
	go test -count=1 -timeout 2h -run TestSimulator -v ./authflow -sim.episodes $(EPISODES) -sim.crashes

guards: deps-test ## each guard of the refresh protocol taken out of the code, and the test that notices
	go run ./.ci/guards

# The manifests' test is never cached: the files that it reads lie outside its module.
check: deps-check ## all that is not a test: format, vet, linters, manifests, alert rules
	@unformatted=$$(git ls-files '*.go' | xargs gofmt -l); \
	  if [ -n "$$unformatted" ]; then echo "not gofmt-ed:"; echo "$$unformatted"; exit 1; fi
	go vet ./... ./.ci/guards
	go run ./.ci/guards -check
	go run $(STATICCHECK) ./... ./.ci/guards
	.ci/vulncheck $(GOVULNCHECK)
	.ci/unit
	promtool check config deploy/prometheus.yml
	promtool check rules deploy/alerts.yaml
	promtool test rules deploy/alerts_test.yaml
	cd .ci/manifests && go vet ./... && go test -count=1 ./...

image: deps-image ## the Dockerfile, built with buildah and looked at
	VERSION=$(VERSION) .ci/image

# What the targets need beyond Go comes from Debian's packages, and only what is missing is installed.
deps-test:
	@.ci/need gcc:gcc redis-server:redis-server chromium:chromium node:nodejs npm:npm
	npm ci --prefix $(E2E) --no-audit --no-fund

deps-check:
	@.ci/need git:git promtool:prometheus systemd-analyze:systemd

deps-image:
	@.ci/need git:git buildah:buildah ldd:libc-bin update-ca-certificates:ca-certificates
