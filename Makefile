# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv builds the environment; it is bootstrapped by pip where the machine has none.
UV := $(or $(shell command -v uv 2>/dev/null),$(BIN)/uv)
# The right torch: a local wheel folder where one is named, else uv picks the build for this machine (no CUDA for a CPU).
TORCH := $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)",--torch-backend $(or $(TORCH_BACKEND),auto))
REPOSITORY ?= .demo/repository
# Test files side by side, more than a small machine has cores: tests wait for servers that start and stop. Each worker makes
# exports and starts servers of its own. A worker that died ends the run: with one in its place, pytest-xdist may wait for ever.
WORKERS ?= 3
SOURCES := client export server benchmarks tests model_repository docs docker streamlit_app.py

# Torch and diffusers take 10 s longer to import where Python may not keep what it compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint serve lock clean

demo: $(VENV)/.installed
	$(BIN)/python -m dressform_export.demo

test: lint
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile --max-worker-restart 0 --durations 15

lint: $(VENV)/.installed
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy

serve: $(VENV)/.installed
	$(BIN)/dressform serve $(REPOSITORY)

$(VENV)/.installed: pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x "$(UV)" || $(BIN)/python -m pip install --quiet uv
	$(UV) pip install --quiet --python $(BIN)/python $(TORCH) -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	touch $@

# Resolve the versions anew. torch is written without its local part, so that each machine takes its own build.
lock:
	$(UV) pip compile --quiet --upgrade pyproject.toml --extra export --extra serve --extra openvino --extra int8 --extra train --extra evaluate --extra bench --extra app --extra trace --extra dev --python-version 3.11 \
		$(TORCH) --no-emit-find-links --no-annotate --no-header -o requirements.lock
	sed -i 's/^\(torch==[0-9.]*\)+.*/\1/' requirements.lock

clean:
	rm -rf $(VENV) .demo .bench build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
