# make demo    install, then reconstruct an example stack (EXAMPLE=folder for another)
# make figures install, then the figures and the picture of the README that need no other files
# make docs    install what builds the site of the documentation, then build it: outputs/site
# make test    install with the development tools, then lint, type check and test
# make clean   remove everything that these made, and the virtual environment
#
# Needs make and Python >= 3.10 with venv. PYTHON=python3.12 make demo picks the interpreter.

PYTHON ?= python3
VENV ?= .venv
EXAMPLE ?= examples/still_life/stack
BIN = $(VENV)/bin

demo: $(VENV)/installed
	$(BIN)/focaldiffusion infer $(EXAMPLE) --output outputs/demo --overwrite
	@echo
	@echo "Frames, all-in-focus image, depth and confidence side by side: outputs/demo/overview.png"
	@echo "Full resolution: outputs/demo/all_in_focus.png, outputs/demo/depth_colored.png"

figures: $(VENV)/installed
	$(BIN)/focaldiffusion evaluate --dataset examples --data-root examples --model compact --output-dir outputs/figures/examples
	$(BIN)/focaldiffusion evaluate --dataset procedural --model compact --output-dir outputs/figures/procedural
	$(BIN)/focaldiffusion infer $(EXAMPLE) --output outputs/figures/picture --overwrite
	@echo
	@echo "Tables: outputs/figures/*/report.html. The picture: outputs/figures/picture/overview.png"

docs: $(VENV)/installed-docs
	$(BIN)/mkdocs build --strict
	@echo
	@echo "The site: outputs/site/index.html"

# pytest comes last: its summary ends the output.
test: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses 2 --dist worksteal

$(VENV)/installed: pyproject.toml constraints.txt
	@$(ensure_venv)
	$(BIN)/python -m pip install -c constraints.txt -e .
	@touch $@

$(VENV)/installed-docs: pyproject.toml constraints.txt
	@$(ensure_venv)
	$(BIN)/python -m pip install -c constraints.txt -e '.[docs]'
	@touch $(VENV)/installed $@

$(VENV)/installed-dev: pyproject.toml constraints.txt
	@$(ensure_venv)
	$(BIN)/python -m pip install -c constraints.txt -e '.[app,archive,cluster,dev,docs,exr,raw]'
	@touch $(VENV)/installed $(VENV)/installed-docs $@

# A failed venv (Debian ships it as python3-venv) leaves half an environment behind: remove it.
ensure_venv = test -x $(BIN)/python || { \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	{ echo '$(PYTHON) is not Python 3.10 or newer: PYTHON=python3.11 make ...' >&2; exit 1; }; \
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; }

clean:
	rm -rf $(VENV) outputs/demo outputs/figures outputs/site build focaldiffusion.egg-info src/focaldiffusion.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: demo figures docs test clean
