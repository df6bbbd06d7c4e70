# Two commands for a fresh machine: `make demo` and `make test`. Everything else is a piece of them.
PYTHON ?= python3
VENV ?= .venv
TORCH := torch==2.13.0
BUILD_TOOLS := scikit-build-core>=0.11 pybind11>=3.0 cmake>=3.20 ninja

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
WHEELS := build/wheels
NATIVE := CMakeLists.txt pyproject.toml $(wildcard cmake/* python/* cpp/src/* cpp/src/cpu/* cpp/include/treescan/*)

# torch's idle OpenMP threads spin by default, which takes the cores from whoever works on them.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test pytest sanitize bench build clean
.PHONY: cuda-emulation cuda-check cuda-record
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

# Kernels on the emulated device: every access checked, and again under the sanitizers. tests/cuda_emulation/README.md
EMULATION := tests/cuda_emulation
EMULATION_TESTS = for kind in checked sanitized; do \
	    PATH="$(abspath $(BIN)):$$PATH" ctest --test-dir build/cuda-emulation/$$kind --output-on-failure || exit 1; done

cuda-emulation: build/cuda-emulation/checked/ready build/cuda-emulation/sanitized/ready
	@$(EMULATION_TESTS)

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

cuda-check: build/cuda-emulation/checked/ready build/cuda-emulation/sanitized/ready $(VENV)/cuobjdump
	@export TREESCAN_EMULATION_LONG=1; $(EMULATION_TESTS)
	PATH="$(abspath $(BIN)):$$PATH" $(PYTHON) $(EMULATION)/mutate.py build/cuda-emulation/checked \
	    $(EMULATION)/redundant.txt $(MUTATED)
	$(NVCC_GATE)
	$(BIN)/python $(EMULATION)/sass_gate.py $(EMULATION)/sass.json $(KERNEL_FOLDERS)

# What kernels take now, as the budget from here on.
cuda-record:
	$(NVCC_GATE) --record

# NVIDIA's disassembler, where it can be had; the gate that uses it says if it can't.
$(VENV)/cuobjdump: $(VENV)/tools
	@$(PIP) nvidia-cuda-cuobjdump || true
	@touch $@

build/cuda-emulation/%/ready: $(VENV)/tools $(wildcard $(EMULATION)/*.* cuda/* cpp/src/* cpp/src/cpu/* tests/cuda/* tests/c/*)
	@mkdir -p $(@D)
	@PATH="$(abspath $(BIN)):$$PATH" cmake -S $(EMULATION) -B $(@D) -G Ninja \
	    -DEMULATION_SANITIZE=$(if $(filter sanitized,$*),ON,OFF) > $(@D).log || (cat $(@D).log; exit 1)
	@PATH="$(abspath $(BIN)):$$PATH" cmake --build $(@D)
	@touch $@

# Against the installed library: what is measured is what Python loads.
bench: build
	@PATH="$(abspath $(BIN)):$$PATH" cmake -S bench/native -B build/bench -G Ninja \
	    -DCMAKE_PREFIX_PATH="$$($(BIN)/python -c 'import treescan; print(treescan.get_cmake_dir())')" > build/bench.log \
	    || (cat build/bench.log; exit 1)
	@PATH="$(abspath $(BIN)):$$PATH" cmake --build build/bench
	$(BIN)/python -m bench

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
	@PATH="$(abspath $(BIN)):$$PATH" $(PIP) --no-build-isolation -Cbuild-dir=build/dev -e '.[test,bench]'
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
	rm -rf build demo $(VENV) examples/*/.venv
