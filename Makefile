# Two commands for a fresh machine: `make demo` and `make test`. Everything else is a piece of them.
PYTHON ?= python3
VENV ?= .venv
TORCH := torch==2.13.0
BUILD_TOOLS := scikit-build-core>=0.11 pybind11>=3.0 cmake>=3.20 ninja

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
NATIVE := CMakeLists.txt pyproject.toml $(wildcard cmake/* python/* cpp/src/* cpp/src/cpu/* cpp/include/treescan/*)

# torch's idle OpenMP threads spin by default, which takes the cores from whoever works on them.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test pytest sanitize bench build clean

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

clean:
	rm -rf build demo $(VENV)
