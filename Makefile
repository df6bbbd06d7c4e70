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
.PHONY: docs lint
.PHONY: cuda-emulation cuda-check
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

# The long form: ten seeds, then every barrier, fence and atomic deleted in turn, and nvcc for every architecture.
cuda-check: build/cuda-emulation/checked/ready build/cuda-emulation/sanitized/ready
	@export TREESCAN_EMULATION_LONG=1; $(EMULATION_TESTS)
	$(PYTHON) $(EMULATION)/mutate.py build/cuda-emulation/checked test_emulator $(EMULATION)/test_kernels.cu \
	    $(EMULATION)/redundant.txt
	$(PYTHON) $(EMULATION)/nvcc_gate.py $(EMULATION)/budget.json $(EMULATION)/test_kernels.cu -I cuda -I $(EMULATION)

build/cuda-emulation/%/ready: $(VENV)/tools $(wildcard $(EMULATION)/*.* cuda/* cpp/src/*.h tests/c/testing.h)
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
