# make run      install into .venv and start the development server (Ctrl-C ends it)
# make test     install with what the tests need, and run them
# make check    everything that must be true before a change is taken
# make interop  drive the running server with real clients (swaks, openssl, curl, msmtp)
# make crash-short  kill servers and cut their power, a little; see tests/crash/README.md (wants root, strace, cc, xfs)
# make crash    the same 200 times, on every variant of the server; BLOWS=1000 make crash for more
# make clean    remove .venv and all that was made
#
# PYTHON=python3.12 make test   takes another Python (3.11 or later) for a fresh .venv

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
# `trial tests` does not see tests/interop, which is no package: it needs clients, and minutes.
INTEROP := $(sort $(subst /,.,$(basename $(wildcard tests/interop/test_*.py))))
# Nor tests/crash, for the same reason.
CRASH   := $(sort $(subst /,.,$(basename $(wildcard tests/crash/test_*.py))))
BLOWS   ?= 200
# The floors without input and output are held to more.
PURE   := mailserver/address.py mailserver/envelope.py mailserver/reply.py mailserver/limits.py mailserver/dkim \
          mailserver/mime mailserver/sasl \
          $(addprefix mailserver/smtp/,syntax.py data.py events.py parameters.py rules.py conversation.py logins.py \
          transactions.py session.py lmtp.py)
COVERAGE_LEAST ?= 95

.DEFAULT_GOAL := help
.PHONY: help run test check lint types floors coverage docs interop crash crash-short clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed '/^$$/,$$d'

run: $(VENV)/.installed
	exec $(BIN)/twistd --nodaemon --pidfile= mailserver

test: $(VENV)/.tested
	$(BIN)/trial tests

check: lint types floors coverage docs

lint: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.tested
	$(BIN)/mypy
	$(BIN)/mypy --strict $(PURE)

floors: $(VENV)/.tested
	$(BIN)/lint-imports

coverage: $(VENV)/.tested
	$(BIN)/coverage erase
	$(BIN)/coverage run -m twisted.trial tests
	$(BIN)/coverage report --fail-under=$(COVERAGE_LEAST)

# The sample configuration is what the code says, and the pages name what is there.
docs: $(VENV)/.tested
	$(BIN)/mailserver config sample | cmp - etc/mailserver.toml
	$(BIN)/trial tests.test_docs tests.test_examples tests.test_architecture.PagesTests

interop: $(VENV)/.tested
	$(BIN)/trial $(INTEROP)

crash-short: $(VENV)/.tested
	$(BIN)/trial $(CRASH)

crash: $(VENV)/.tested
	$(BIN)/python -m tests.crash --blows $(BLOWS)

clean:
	rm -rf $(VENV) build dist *.egg-info _trial_temp* .coverage* htmlcov .mypy_cache .ruff_cache .hypothesis \
	    .import_linter_cache twistd.pid twistd.log twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "mailserver needs Python 3.11 or later; $(PYTHON) is: $$($(PYTHON) --version 2>&1 | head -1)." >&2; \
	    echo "Name another one:  PYTHON=python3.12 make $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu:  apt install python3-venv" >&2; \
	    exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# Stamps: nothing is installed again until setup.cfg or pyproject.toml changes.
$(VENV)/.installed: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) install --editable .
	@touch $@

$(VENV)/.tested: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) install --editable ".[test]"
	@touch $(VENV)/.installed $@
