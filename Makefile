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
NATIVE := CMakeLists.txt pyproject.toml $(wildcard cmake/* python/* cpp/src/* cpp/src/cpu/* cpp/include/treescan/*) \
    $(if $(CUDA),$(wildcard cuda/*))

# torch's idle OpenMP threads spin by default, which takes the cores from whoever works on them.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test pytest sanitize bench build clean
.PHONY: docs lint wheel wheel-cuda
.PHONY: cuda-emulation cuda-check cuda-record
.PHONY: cuda gpu-test gpu-bench on-gpu-test on-gpu-bench
.PHONY: grootv-test grootv-demo grootl-test grootl-demo

demo: build
	$(BIN)/treescan demo -o demo

test: build sanitize pytest

pytest: build
	$(BIN)/python -m pytest

# The C interface under AddressSanitizer and UndefinedBehaviorSanitizer; with all optimizations that takes minutes to compile.
sanitize: $(VENV)/tools
	@PATH="$(abspath $(BIN)):$$PATH" cmake -S . -B build/sanitize -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 \
	    -DTREESCAN_BUILD_TESTS=ON -DTREESCAN_SANITIZE=ON > build/sanitize.log || (cat build/sanitize.log; exit 1)
	@PATH="$(abspath $(BIN)):$$PATH" cmake --build build/sanitize
	PATH="$(abspath $(BIN)):$$PATH" ctest --test-dir build/sanitize --output-on-failure

# Kernels on the emulated device: every access checked, again under the sanitizers, and fast, where they stand behind the
# tests of the C interface and of the Python package. tests/cuda_emulation/README.md
EMULATION := tests/cuda_emulation
EMULATIONS := $(foreach kind,checked sanitized fast,build/cuda-emulation/$(kind)/ready)
EMULATION_TESTS = for kind in checked sanitized fast; do \
	    PATH="$(abspath $(BIN)):$$PATH" ctest --test-dir build/cuda-emulation/$$kind --output-on-failure || exit 1; done

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
    cuda/sweep.h=cuda_test_scan cuda/selective_scan.cu=cuda_test_selective \
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
