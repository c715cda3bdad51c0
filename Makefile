# `make serve` and `make test` are all a newcomer needs; `make help` lists the rest.
MODEL ?= models/tiny-16m-32k
ARGS ?=
JOBS ?= $(shell nproc)
# A MODEL without a slash that is nothing here is a name in models/published.json, fetched on first use.
PUBLISHED := $(if $(findstring /,$(MODEL)),,$(if $(wildcard $(MODEL)),,$(MODEL)))
# With nvcc and a GPU the program gets the CUDA backend as well (--backend cuda); otherwise it is CPU only.
CUDA ?= $(if $(and $(shell command -v nvcc),$(wildcard /dev/nvidiactl)),ON,OFF)

.PHONY: help setup build serve test test-quick test-published test-ci bench fuzz clean format
help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: ## install what the build needs (Debian packages)
	@tools/setup.sh $(if $(PUBLISHED),fetch,build)

build: setup | build/ ## build build/release/tinyserve
	@cmake --preset release -DTINYSERVE_TESTS=OFF -DTINYSERVE_BENCH=OFF -DTINYSERVE_CUDA=$(CUDA) >build/configure.log 2>&1 || { cat build/configure.log; exit 1; }
	@cmake --build build/release -j $(JOBS) --target tinyserve

build/:
	@mkdir -p build

serve: build ## build, then serve MODEL (default: the bundled model) on http://127.0.0.1:8080; flags in ARGS
	@model="$(MODEL)"; $(if $(PUBLISHED),model=$$(python3 tools/fetch_model.py "$(PUBLISHED)") || exit 1;) \
	exec build/release/tinyserve serve --model "$$model" $(ARGS)

test: ## every test: unit, sanitizers, fuzzers, end to end
	@tools/setup.sh test
	@python3 tools/run_tests.py --jobs $(JOBS)

test-published: ## the published models (fetches 750 MB the first time): goldens, chat, tasks, long prompts, the hostile client
	@tools/setup.sh test
	@tools/setup.sh fetch
	@python3 tools/run_tests.py --jobs $(JOBS) --stages published

test-ci: ## what CI runs: test, then test-published
	@tools/setup.sh test
	@tools/setup.sh fetch
	@python3 tools/run_tests.py --jobs $(JOBS) --stages includes,release,e2e,asan,tsan,cuda,fuzz,published

test-quick: ## unit tests of the optimised build only
	@tools/setup.sh test
	@python3 tools/run_tests.py --jobs $(JOBS) --stages includes,release

fuzz: ## the fuzzers, FUZZ_SECONDS each (default 600)
	@tools/setup.sh test
	@python3 tools/run_tests.py --jobs $(JOBS) --stages fuzz --fuzz-seconds $(or $(FUZZ_SECONDS),600)

bench: build ## our figures beside llama.cpp's, in one run (fetches and builds llama.cpp the first time)
	@python3 bench/compare.py $(ARGS)

format: ## clang-format over src/, tests/ and bench/
	@git ls-files '*.cc' '*.h' '*.cu' '*.cuh' | xargs clang-format -i

clean: ## remove build/
	rm -rf build
