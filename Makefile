# make demo      the main job on a whole nation, with simulators (FAST=1 for a small one)
# make test      lint, types and all tests
# make bench     the benchmarks, with the peers that can be installed
# make loadtest  one minute of control rooms against a fenced engine
# make clean     forget the virtual environment and what the demo made

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

# One stamp for the engine alone and one per extra: what is installed is installed again only when the list of packages changes.
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint types bench loadtest clean servers peers

demo: .venv/installed
	$(BIN)/fanout demo $(if $(FAST),--fast) $(ARGS)

# Without ARGS everything in parts, three at a time. Parts that only compute know no time: they step back, and take what
# others, which wait for processes and sockets, leave of two cores. What a part prints comes once it has ended. A folder
# that no part names is tested with the others.
TESTS_simulation := tests/simulation
TESTS_geo := tests/geo tests/registry tests/selection
TESTS_dispatch := tests/dispatch
TESTS_signage := tests/signage
NAMED := $(TESTS_simulation) $(TESTS_geo) $(TESTS_dispatch) $(TESTS_signage)
TESTS_others := tests $(addprefix --ignore=,$(NAMED))
PARTS := tests-others tests-simulation tests-dispatch tests-signage tests-geo
tests-simulation tests-geo: STEP_BACK := nice -n 5
tests-simulation tests-geo: PATIENCE := --timeout=1200
SIDE_BY_SIDE := --no-print-directory --jobs=3 --keep-going --output-sync=target

ifneq ($(ARGS),)
test: .venv/has-dev servers lint types
	$(BIN)/pytest $(ARGS)
else
test:
	@$(MAKE) $(SIDE_BY_SIDE) .venv/has-dev servers
	@$(MAKE) $(SIDE_BY_SIDE) lint types $(PARTS)
endif

.PHONY: $(PARTS)
$(PARTS): tests-%: .venv/has-dev
	$(STEP_BACK) $(BIN)/pytest -p no:cacheprovider $(PATIENCE) $(TESTS_$*)

lint: .venv/has-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/has-dev
	$(BIN)/mypy

bench: .venv/has-bench peers
	$(BIN)/python -m bench all $(ARGS)

loadtest: .venv/has-load
	$(BIN)/python -m loadtests $(ARGS)

clean:
	rm -rf .venv out data

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e .
	$(BIN)/python -m fanout.warming
	@touch $@

.venv/has-%: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[$*]'
	$(BIN)/python -m fanout.warming
	@touch $@

# Real servers for the tests. Where they cannot be installed the tests that need them are skipped and say so.
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
servers:
	@missing=; command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || missing="$$missing mosquitto"; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing="$$missing nginx-light"; \
	$(call APT,$$missing)

peers:
	@missing=; command -v mosquitto_pub >/dev/null || missing="$$missing mosquitto mosquitto-clients"; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	command -v h2load >/dev/null || missing="$$missing nghttp2-client"; \
	ls /usr/share/postgresql/*/extension/postgis.control >/dev/null 2>&1 || missing="$$missing postgresql-postgis"; \
	$(call APT,$$missing)

# Debian starts what it installs; a policy of 101 keeps it from doing so, as tests and benches start their own.
define APT
	if [ -n "$(1)" ]; then \
	  if command -v apt-get >/dev/null && { [ "$$(id -u)" = 0 ] || [ -n "$(SUDO)" ]; }; then \
	    echo "installing$(1) from Debian"; \
	    $(SUDO) apt-get update -qq && \
	    $(SUDO) env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(1) >/dev/null; \
	  fi || echo "COULD NOT INSTALL$(1): what needs them is skipped or measured without"; \
	fi
endef
