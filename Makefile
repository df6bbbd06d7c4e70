# Two commands for a fresh machine: `make demo` and `make test`. Everything else is a piece of them.
PYTHON ?= python3
VENV ?= .venv
TORCH := torch==2.13.0
BUILD_TOOLS := scikit-build-core>=0.11 pybind11>=3.0 cmake>=3.20 ninja

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
WHEELS := build/wheels
# ON builds the Python package with the CUDA backend.
CUDA ?=
NATIVE := CMakeLists.txt pyproject.toml $(wildcard cmake/* python/* torch_ops/* cpp/src/* cpp/src/cpu/* cpp/include/treescan/*) \
    $(if $(CUDA),$(wildcard cuda/*))

# torch's idle OpenMP threads spin by default, which takes the cores from whoever works on them.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test pytest sanitize bench build clean
.PHONY: docs lint coverage abi abi-record portability wheel wheel-cuda
.PHONY: fuzz fuzz-short sanitize-threads sanitize-python
.PHONY: cuda-emulation cuda-check cuda-record
.PHONY: cuda gpu-test gpu-bench on-gpu-test on-gpu-bench
.PHONY: grootv-test grootv-demo grootl-test grootl-demo

demo: build
	$(BIN)/treescan demo -o demo

test: build sanitize pytest

pytest: build
	$(BIN)/python -m pytest

# The C interface under AddressSanitizer and UndefinedBehaviorSanitizer; with all optimizations that takes minutes to compile.
# Then its threads under ThreadSanitizer, and Python over the library that was built with the first two.
sanitize: $(VENV)/tools
	@PATH="$(abspath $(BIN)):$$PATH" cmake -S . -B build/sanitize -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 \
	    -DTREESCAN_BUILD_TESTS=ON -DTREESCAN_SANITIZE=ON > build/sanitize.log || (cat build/sanitize.log; exit 1)
	@PATH="$(abspath $(BIN)):$$PATH" cmake --build build/sanitize
	PATH="$(abspath $(BIN)):$$PATH" ctest --test-dir build/sanitize --output-on-failure
	@$(MAKE) --no-print-directory sanitize-threads sanitize-python
	@echo "sanitized: the C interface (address, undefined), its threads (thread), and calls from Python (address, undefined)"

# One instruction set: the others have the same threads.
sanitize-threads: $(VENV)/tools
	@PATH="$(abspath $(BIN)):$$PATH" cmake -S . -B build/sanitize-threads -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	    -DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -DCMAKE_CXX_FLAGS=-fsanitize=thread -DCMAKE_C_FLAGS=-fsanitize=thread -DTREESCAN_BUILD_TESTS=ON \
	    -DTREESCAN_VECTOR_KERNELS=OFF > build/sanitize-threads.log || (cat build/sanitize-threads.log; exit 1)
	@PATH="$(abspath $(BIN)):$$PATH" cmake --build build/sanitize-threads --target test_threads test_library test_large_grids
	@for test in test_threads test_library test_large_grids; do \
	    echo "ThreadSanitizer: $$test"; TSAN_OPTIONS=halt_on_error=1 build/sanitize-threads/tests/c/$$test || exit 1; done

# Python itself isn't sanitized, so its allocations aren't searched for leaks.
SANITIZED_PYTHON = LD_LIBRARY_PATH=$(abspath build/sanitize) LD_PRELOAD="$$(cc -print-file-name=libasan.so) $$(cc -print-file-name=libstdc++.so.6)" \
    ASAN_OPTIONS=detect_leaks=0 $(BIN)/python

sanitize-python: build
	@$(SANITIZED_PYTHON) tests/smoke.py build/sanitize

# Which clang: the ending of its programs' names.
CLANG ?= -16

# libFuzzer on the C interface. FUZZ_SECONDS are for all targets together.
FUZZ_SECONDS ?= 600

fuzz: build/fuzz/ready
	@$(PYTHON) tests/fuzz/run.py fuzz $(FUZZ_SECONDS)
	@$(PYTHON) tests/fuzz/run.py coverage $(CLANG)

# From the same seed every time.
fuzz-short: build/fuzz/ready
	@$(PYTHON) tests/fuzz/run.py runs 3000
	@$(PYTHON) tests/fuzz/run.py coverage $(CLANG)

build/fuzz/ready: $(VENV)/tools $(wildcard tests/fuzz/*.* cpp/src/* cpp/src/cpu/*)
	@for tool in clang++ llvm-cov llvm-profdata; do command -v $$tool$(CLANG) > /dev/null || { \
	    echo "make fuzz: needs $$tool$(CLANG) (Debian, Ubuntu: apt-get install clang-16 llvm-16), or another version by CLANG=-19"; exit 1; }; done
	@mkdir -p $(@D)
	@PATH="$(abspath $(BIN)):$$PATH" cmake -S tests/fuzz -B $(@D) -G Ninja -DCMAKE_C_COMPILER=clang$(CLANG) \
	    -DCMAKE_CXX_COMPILER=clang++$(CLANG) -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 \
	    > $(@D).log || (cat $(@D).log; exit 1)
	@PATH="$(abspath $(BIN)):$$PATH" cmake --build $(@D)
	@touch $@

# The C interface against that of the last release, cpp/abi/treescan.abi: additions pass, anything else that a program linked
# with that release would notice doesn't. `make abi-record` makes the present one the baseline.
ABI_BUILD = command -v abidw > /dev/null || { echo "make $@: needs abidiff and abidw (Debian, Ubuntu: abigail-tools)"; exit 1; }; \
    PATH="$(abspath $(BIN)):$$PATH"; mkdir -p build; \
    { cmake -S . -B build/abi -G Ninja -DCMAKE_CXX_COMPILER=g++ -DCMAKE_BUILD_TYPE=Debug -DTREESCAN_VECTOR_KERNELS=OFF && \
    cmake --build build/abi; } > build/abi.log || { cat build/abi.log; exit 1; }

abi: $(VENV)/tools
	@$(ABI_BUILD)
	@abidiff --no-added-syms cpp/abi/treescan.abi build/abi/libtreescan.so
	@echo "the C interface has all that cpp/abi/treescan.abi has, unchanged"

abi-record: $(VENV)/tools
	@$(ABI_BUILD)
	@abidw --exported-interfaces-only --headers-dir cpp/include --drop-private-types --no-corpus-path --no-comp-dir-path \
	    --no-show-locs --no-elf-needed --type-id-style hash --out-file cpp/abi/treescan.abi build/abi/libtreescan.so

# gcc and clang: no warnings, every test of the C interface, and the same bits from both, those of the golden files too.
PORTABLE := build/portability
PORTABLE_TESTS = $(basename $(notdir $(wildcard tests/c/test_*.cpp)))

portability: build
	@command -v clang++$(CLANG) > /dev/null || { \
	    echo "make $@: needs clang++$(CLANG) (Debian, Ubuntu: clang-16), or another version by CLANG=-19"; exit 1; }
	@export PATH="$(abspath $(BIN)):$$PATH"; mkdir -p $(PORTABLE); for kind in gcc clang; do \
	    case $$kind in gcc) c=gcc cxx=g++;; clang) c=clang$(CLANG) cxx=clang++$(CLANG);; esac; \
	    build() { cmake -S $$1 -B $(PORTABLE)/$$2 -G Ninja -DCMAKE_C_COMPILER=$$c -DCMAKE_CXX_COMPILER=$$cxx \
	        -DCMAKE_COMPILE_WARNING_AS_ERROR=ON $$3 && cmake --build $(PORTABLE)/$$2; }; \
	    ( build . $$kind -DTREESCAN_BUILD_TESTS=ON && cmake --install $(PORTABLE)/$$kind --prefix $(PORTABLE)/$$kind/prefix && \
	    for example in c cpp; do \
	        build examples/$$example $$kind-$$example -DCMAKE_PREFIX_PATH=$(abspath $(PORTABLE))/$$kind/prefix || exit 1; done ) \
	        > $(PORTABLE)/$$kind.log 2>&1 || { cat $(PORTABLE)/$$kind.log; exit 1; }; \
	    ctest --test-dir $(PORTABLE)/$$kind --output-on-failure || exit 1; done
	@for name in $(PORTABLE_TESTS); do for kind in gcc clang; do $(PORTABLE)/$$kind/tests/c/$$name > $(PORTABLE)/$$kind.txt; done; \
	    echo "$$name: $$(cat $(PORTABLE)/clang.txt)"; diff $(PORTABLE)/gcc.txt $(PORTABLE)/clang.txt || exit 1; done
	export LD_LIBRARY_PATH=$(abspath $(PORTABLE)/clang); \
	    $(BIN)/python -c "import treescan; assert '$(PORTABLE)/clang/' in open('/proc/self/maps').read()" && \
	    $(BIN)/python -m pytest -q tests/test_golden.py tests/test_compat.py tests/test_selective_golden.py

# Which lines the tests run: of treescan/, by coverage.py, and of cpp/src, by counters that gcc puts into a library which stands
# behind the tests of the C interface and of the Python package. pyproject.toml says how much is enough. (The tests in bench/
# take the time, which the counters spoil.)
COVERED := $(abspath build/coverage)
COVERED_FLAGS := --coverage -fprofile-update=atomic

coverage: build $(VENV)/coverage-tools
	@PATH="$(abspath $(BIN)):$$PATH" cmake -S . -B $(COVERED) -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 \
	    -DTREESCAN_BUILD_TESTS=ON -DCMAKE_CXX_FLAGS="$(COVERED_FLAGS)" -DCMAKE_EXE_LINKER_FLAGS=--coverage > $(COVERED).log \
	    || (cat $(COVERED).log; exit 1)
	@PATH="$(abspath $(BIN)):$$PATH" cmake --build $(COVERED)
	@find $(COVERED) -name '*.gcda' -delete
	@$(BIN)/python -m coverage erase
	PATH="$(abspath $(BIN)):$$PATH" ctest --test-dir $(COVERED) --output-on-failure
	export LD_LIBRARY_PATH=$(COVERED); \
	    $(BIN)/python -c "import treescan; assert '$(COVERED)/libtreescan' in open('/proc/self/maps').read()" \
	    && $(BIN)/python -m coverage run -m pytest tests
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report; python=$$?; $(BIN)/gcovr $(COVERED) && exit $$python

$(VENV)/coverage-tools: $(VENV)/tools
	@$(PIP) coverage==7.17.5 gcovr==8.8
	@touch $@

# Kernels on the emulated device: every access checked, again under the sanitizers, and fast, where they stand behind the
# tests of the C interface and of the Python package. tests/cuda_emulation/README.md
EMULATION := tests/cuda_emulation
EMULATIONS := $(foreach kind,checked sanitized fast,build/cuda-emulation/$(kind)/ready)
EMULATION_TESTS = for kind in checked sanitized fast; do \
	    PATH="$(abspath $(BIN)):$$PATH" ctest --test-dir build/cuda-emulation/$$kind --output-on-failure \
	        --parallel $$(getconf _NPROCESSORS_ONLN) || exit 1; done

cuda-emulation: $(EMULATIONS) build
	@$(EMULATION_TESTS)
	$(ON_DEVICE) -m pytest -q tests/test_golden.py tests/test_compat.py tests/test_properties.py tests/test_forests.py \
	    tests/test_token_trees.py tests/test_selective_golden.py tests/test_bad_input.py

# Python whose treescan runs on the emulated device, or doesn't run.
ON_DEVICE = export LD_LIBRARY_PATH=$(abspath build/cuda-emulation/fast/on_device); \
    $(BIN)/python -c "import treescan; assert 'emulated' in treescan.build_info()['library']" && $(BIN)/python

# The long form: ten seeds, then every barrier, fence and atomic deleted in turn, nvcc for every architecture, and what it
# makes of the code.
KERNELS := $(EMULATION)/test_kernels.cu $(wildcard cuda/*.cu)
KERNEL_FOLDERS := -I cuda -I cpp/src -I cpp/include -I $(EMULATION)
NVCC_GATE := $(PYTHON) $(EMULATION)/nvcc_gate.py $(EMULATION)/budget.json $(KERNELS) $(KERNEL_FOLDERS)
# A file or header with barriers, fences or atomics, and the tests that show what it does.
MUTATED := $(EMULATION)/test_kernels.cu=test_emulator cuda/team.h=cuda_test_team cuda/rooting.h=cuda_test_rooting \
    cuda/failure.h=cuda_test_edge_weights cuda/plan.cu=cuda_test_plan cuda/scan.cu=cuda_test_scan \
    cuda/sweep.h=cuda_test_scan cuda/selective_scan.cu=cuda_test_selective cuda/cost_ranks.cu=cuda_test_spanning_tree \
    cuda/spanning_forest.h=cuda_test_spanning_tree cuda/spanning_tree.cu=cuda_test_spanning_tree

cuda-check: $(EMULATIONS) build $(VENV)/cuobjdump
	@export TREESCAN_EMULATION_LONG=1; $(EMULATION_TESTS)
	$(ON_DEVICE) -m pytest -q tests
	PATH="$(abspath $(BIN)):$$PATH" $(PYTHON) $(EMULATION)/mutate.py build/cuda-emulation/checked \
	    $(EMULATION)/redundant.txt $(MUTATED)
	$(NVCC_GATE)
	$(BIN)/python $(EMULATION)/sass_gate.py $(EMULATION)/sass.json $(KERNEL_FOLDERS)

# What kernels take now, and what calls cost, as the budget from here on.
cuda-record: build/cuda-emulation/checked/ready
	$(NVCC_GATE) --record
	TREESCAN_RECORD=1 build/cuda-emulation/checked/cuda_test_counters

# NVIDIA's disassembler, where it can be had; the gate that uses it says if it can't.
$(VENV)/cuobjdump: $(VENV)/tools
	@$(PIP) nvidia-cuda-cuobjdump || true
	@touch $@

build/cuda-emulation/%/ready: $(VENV)/tools $(wildcard $(EMULATION)/*.* cuda/* cpp/src/* cpp/src/cpu/* tests/cuda/* tests/c/*)
	@mkdir -p $(@D)
	@PATH="$(abspath $(BIN)):$$PATH" cmake -S $(EMULATION) -B $(@D) -G Ninja \
	    -DEMULATION_SANITIZE=$(if $(filter sanitized,$*),ON,OFF) -DEMULATION_FAST=$(if $(filter fast,$*),ON,OFF) > $(@D).log || (cat $(@D).log; exit 1)
	@PATH="$(abspath $(BIN)):$$PATH" cmake --build $(@D)
	@touch $@

# The CUDA backend by nvcc, and the tests of the C interface with it. Without a GPU that is as far as it goes.
cuda: $(VENV)/tools
	@mkdir -p build
	@PATH="$(abspath $(BIN)):$$PATH" cmake -S . -B build/cuda -G Ninja -DTREESCAN_CUDA=ON -DTREESCAN_BUILD_TESTS=ON \
	    > build/cuda.log || (cat build/cuda.log; exit 1)
	@PATH="$(abspath $(BIN)):$$PATH" cmake --build build/cuda
	@echo "build/cuda: the library with the CUDA backend and its tests are compiled and linked; nothing was run"

# On a machine with an NVIDIA GPU, in an environment of their own, with a package that has the backend. Elsewhere they say so
# in a line and succeed.
gpu-test gpu-bench:
	@if nvidia-smi -L > /dev/null 2>&1; then $(MAKE) VENV=.venv-cuda CUDA=ON on-$@; \
	else echo "make $@: there is no NVIDIA GPU here (nvidia-smi lists none), so nothing was run"; fi

# All tests on the GPU too, then those of the C interface under compute-sanitizer, which CUDA's toolkit has.
on-gpu-test: build cuda
	@$(BIN)/python -c 'import sys; from bench import gpu; sys.exit(gpu.missing())'
	$(BIN)/python -m pytest
	@for tool in memcheck racecheck synccheck; do for test in build/cuda/on_device/test_*; do \
	    echo "compute-sanitizer --tool $$tool $$test"; \
	    compute-sanitizer --tool $$tool --error-exitcode 1 $$test || exit 1; done; done

on-gpu-bench: build
	$(BIN)/python -m bench.gpu
	$(BIN)/python -m bench --write-again

# Against the installed library: what is measured is what Python loads.
bench: build
	@PATH="$(abspath $(BIN)):$$PATH" cmake -S bench/native -B build/bench -G Ninja \
	    -DCMAKE_PREFIX_PATH="$$($(BIN)/python -c 'import treescan; print(treescan.get_cmake_dir())')" > build/bench.log \
	    || (cat build/bench.log; exit 1)
	@PATH="$(abspath $(BIN)):$$PATH" cmake --build build/bench
	$(BIN)/python -m bench

# The documentation's site, in an environment of its own: neither torch nor a build is needed. Warnings are errors.
DOCS := build/docs-venv
export NO_MKDOCS_2_WARNING := 1

docs: $(DOCS)/ready
	@nice $(DOCS)/bin/python -m mkdocs build --strict > build/docs.log 2>&1 || (cat build/docs.log; exit 1)
	@$(DOCS)/bin/python tools/site/check_links.py build/site
	@echo "build/site/index.html"

$(DOCS)/ready: docs/requirements.txt
	@$(PYTHON) -m venv --clear $(DOCS)
	@$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	@touch $@

# What the commit hooks check, over all files: .pre-commit-config.yaml
LINT := build/lint-venv

lint: $(LINT)/ready build
	@$(LINT)/bin/python -m pre_commit run --all-files

$(LINT)/ready:
	@$(PYTHON) -m venv $(LINT)
	@$(LINT)/bin/python -m pip install --quiet --disable-pip-version-check pre-commit==4.7.0
	@touch $@

# The sdist and the wheel of a release, in dist/, tested next to these versions of torch and without it. Nothing of $(VENV) is
# used. What comes with torch, 6 GB for the second, is removed afterwards.
WHEEL_TORCH ?= 2.13.0 2.14.1

wheel:
	@$(PYTHON) tools/preflight.py
	@$(PYTHON) tools/check_wheel.py --torch $(WHEEL_TORCH)

# The package treescan-cu13, of which without a GPU only what runs on the CPU is tested.
CUDA_ARCHITECTURES ?= 75;80;86;89;90;100;120

wheel-cuda:
	@$(PYTHON) tools/preflight.py
	@$(PYTHON) tools/check_wheel.py --cuda --cmake 'TREESCAN_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)' --torch $(firstword $(WHEEL_TORCH))

build: $(VENV)/installed

$(VENV)/tools: tools/preflight.py
	@$(PYTHON) tools/preflight.py
	@echo "Setting up $(VENV): torch and the build tools (about 1 GB, a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) $(TORCH)
	@$(PIP) $(foreach tool,$(BUILD_TOOLS),'$(tool)')
	@mkdir -p build
	@touch $@

$(VENV)/installed: $(VENV)/tools $(NATIVE)
	@echo "Building treescan"
	@PATH="$(abspath $(BIN)):$$PATH" $(PIP) --no-build-isolation \
	    -Cbuild-dir=build/dev$(if $(CUDA),-cuda -Ccmake.define.TREESCAN_CUDA=$(CUDA)) -e '.[test,bench]'
	@touch $@

.PRECIOUS: examples/%/.venv/installed examples/%/.venv/ready

# The examples have environments of their own, with pinned versions, and treescan from a wheel, as their users would.
EXAMPLE = examples/$*

$(WHEELS)/built: $(VENV)/tools $(NATIVE) $(wildcard treescan/*.py treescan/*/*.py)
	@rm -rf $(WHEELS)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps \
	    -Cbuild-dir=build/wheel -w $(WHEELS) .
	@touch $@

examples/%/.venv/installed: examples/%/requirements.txt examples/%/pyproject.toml
	@$(PYTHON) tools/preflight.py
	@echo "Setting up $(EXAMPLE)/.venv"
	@$(PYTHON) -m venv $(EXAMPLE)/.venv
	@$(EXAMPLE)/.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $(EXAMPLE)/requirements.txt
	@touch $@

examples/%/.venv/ready: examples/%/.venv/installed $(WHEELS)/built
	@$(EXAMPLE)/.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall $(WHEELS)/treescan-*.whl
	@$(EXAMPLE)/.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e $(EXAMPLE)
	@touch $@

grootv-test grootl-test: %-test: examples/%/.venv/ready
	cd $(EXAMPLE) && .venv/bin/python -m pytest

grootv-demo grootl-demo: %-demo: examples/%/.venv/ready
	cd $(EXAMPLE) && .venv/bin/python -m $*.demo

clean:
	rm -rf build demo $(VENV) .venv-cuda examples/*/.venv
