# Two commands matter: `make run` and `make test`. Everything else is listed by `make help`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help run install tools test test-long check bench demo format lock
help:
	@echo "make run        start everything: embedded stores, migrations, web, worker"
	@echo "make test       the whole test suite"
	@echo "make test-long  soaks and long statistics"
	@echo "make check      lint, types, layers"
	@echo "make bench      measure, print a table"
	@echo "make demo       a seeded, playable instance"
	@echo "make install    only create .venv with the locked dependencies"
	@echo "make format     let ruff format the code"
	@echo "make lock       resolve the dependencies anew (needs uv)"

$(BIN)/python:
	@$(PYTHON) -m venv $(VENV)

# A stamp per lock file: an installed tree starts without asking the installer anything.
$(VENV)/.run: deploy/requirements.txt pyproject.toml | $(BIN)/python
	@echo "Installing the locked dependencies (once) ..."
	@$(BIN)/python -m pip install --quiet --require-hashes -r deploy/requirements.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@
$(VENV)/.dev: deploy/requirements-dev.txt $(VENV)/.run | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --require-hashes -r deploy/requirements-dev.txt
	@touch $@

install: $(VENV)/.run
run: install
	@exec $(BIN)/gatehouse run
demo: install
	@exec $(BIN)/gatehouse demo

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
# What tests need beside Python: a browser, and SpamAssassin as a judge of our mail. Where no package manager is
# to be asked, they have to be there already. Debian's mail server is installed in CI only: elsewhere it would begin to
# serve, or take another one's place.
tools:
	@command -v chromium >/dev/null && command -v spamassassin >/dev/null || \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium spamassassin; } >/dev/null 2>&1 || \
	  echo "Chromium or SpamAssassin is missing and could not be installed."
	@test -z "$$CI" || test -x /usr/sbin/exim4 || \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends exim4-daemon-light; } >/dev/null 2>&1 || \
	  echo "Debian's mail server (exim4) is missing and could not be installed."
# What fails while it shares the cores with others is run once more by itself: a fault fails again, a busy machine doesn't.
test: $(VENV)/.dev tools
	$(BIN)/pytest -n auto -m "not long" || { echo "Once more, one after the other, what failed:"; \
	  $(BIN)/pytest -m "not long" --last-failed --last-failed-no-failures none; }
test-long: $(VENV)/.dev tools
	$(BIN)/pytest -m long --timeout 3600
bench: $(VENV)/.dev
	$(BIN)/python -m bench
format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q --group build pyproject.toml -o deploy/requirements.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q --group dev -c deploy/requirements.txt pyproject.toml -o deploy/requirements-dev.txt
