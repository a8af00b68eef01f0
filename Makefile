# Each target installs what is missing first (scripts/bootstrap); a second run does nothing that was done.
.PHONY: help demo build python test test-long bench bench-build bench-full asan tsan cuda format clean
.NOTPARALLEL:

help:
	@echo "make demo | build | python | test | test-long | bench | bench-full | asan | tsan | cuda | format | clean"

demo: build
	@scripts/demo

build:
	@scripts/build release

# The package for PYTHONPATH=build/release/python, and a wheel of it in build/python.
python:
	@scripts/bootstrap python
	@scripts/build release halo halo_python
	@python/halo_wheel.py build/python

# The fuzz targets are a build of their own: libFuzzer and its sanitizers are clang's.
test:
	@scripts/build release all halo_tests
	@scripts/build fuzz halo_fuzzers
	@scripts/run-tests release,fuzz -LE long

# halo_peers: llama-server and llama-batched-bench, which long tests and benchmarks compare with; they take minutes to compile.
# bench/peers/install: LangGraph.js, another of their peers.
test-long:
	@scripts/build release all halo_tests halo_peers
	@bench/peers/install
	@scripts/build fuzz halo_fuzzers
	@scripts/run-tests release,fuzz -L 'long|peers'

# What every benchmark of scripts/bench needs.
bench-build:
	@scripts/build release all halo_benchmarks halo_peers
	@bench/peers/install

# About a quarter of an hour beside the build.
bench: bench-build
	@scripts/bench peers --workloads voting_4way debate map_reduce --rows 32 --sweep-rows 32 --repeat 3 --out build/bench/short

# The figures of docs/benchmarks/README.md: a day, on a machine that does nothing else.
bench-full: bench-build
	@scripts/bench peers --write
	@scripts/bench peers --layouts context_first --write
	@scripts/bench peers --shape 135m --rows 32 --write
	@scripts/bench peers --repeat-share 0.5 --write
	@scripts/bench peers --latencies --workloads $(patsubst workflows/%.yaml,%,$(wildcard workflows/w[1-6]_*.yaml)) --write
	@scripts/bench peers --memory one --write
	@scripts/bench accuracy --write
	@scripts/bench growth --write

asan:
	@scripts/build asan-ubsan all halo_tests
	@scripts/run-tests asan-ubsan -LE long

tsan:
	@scripts/build tsan all halo_tests
	@scripts/run-tests tsan -LE long

cuda:
	@scripts/build cuda

format:
	@scripts/format

# Keeps third_party/node_modules; the next build unpacks and compiles everything else anew.
clean:
	@rm -rf build
