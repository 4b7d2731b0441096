# SPDX-License-Identifier: MIT
#
# make demo: build and run the main job.  make test: build and pass every test.  make bench: measure.
# make aarch64, make musl: the core and its tests with another compiler, processor or libc.
# make soak: the random tests for long, SEEDS=100 STEPS=40000 by default.
PRESETS ?= release debug audit asan tsan release-clang
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local

.PHONY: demo test soak bench aarch64 musl deps clean install uninstall format format-check

demo:
	@scripts/deps.sh demo
	@cmake --preset release -DCAIRN_BUILD_TESTS=OFF -DCAIRN_BUILD_BENCH=OFF -B build/demo >/dev/null
	@cmake --build build/demo -j$(JOBS) >build/demo/log.txt || { cat build/demo/log.txt; exit 1; }
	@scripts/demo.sh build/demo

test:
	@scripts/deps.sh test
	@scripts/test.sh $(PRESETS)

# The model program for SEEDS seeds in every preset and under every stress switch.
soak:
	@scripts/deps.sh test
	@scripts/soak.sh $(PRESETS)

bench:
	@scripts/deps.sh bench
	@cmake --preset release -DCAIRN_BUILD_TESTS=OFF -DCAIRN_BUILD_BENCH=ON -B build/bench >/dev/null
	@cmake --build build/bench -j$(JOBS) >/dev/null
	@bench/run.sh build/bench

aarch64 musl:
	@scripts/deps.sh $@
	@scripts/test.sh $@

deps:
	@scripts/deps.sh test
	@scripts/deps.sh bench

install:
	cmake --preset release -DCAIRN_BUILD_TESTS=OFF -DCAIRN_BUILD_EXAMPLES=OFF \
		-DCAIRN_BUILD_BENCH=OFF -DCMAKE_INSTALL_PREFIX=$(PREFIX) -B build/install
	cmake --build build/install -j$(JOBS)
	cmake --install build/install

uninstall:
	@scripts/uninstall.sh build/install/install_manifest.txt

format:
	clang-format -i $$(git ls-files '*.c' '*.h' ':!tests/compile/fail.c')

format-check:
	@scripts/check_format.sh

clean:
	rm -rf build
