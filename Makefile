# Needs only make and python3 (3.11 or newer); everything else is installed into .venv, in the versions of requirements/lock.txt.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
VECTORS := $(wildcard ../shared/vectors)

help: ## print these lines
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /make \1|/' | awk -F'|' '{ printf "%-12s %s\n", $$1, $$2 }'

demo: $(READY) ## run the main job: nodes in processes of their own; options in ARGS="..."
	$(BIN)/musignet demo $(ARGS)

PARALLEL := --numprocesses auto --dist loadfile --no-loadscope-reorder

test: $(READY) ## all tests; some of them: ARGS="tests/wire -x"
	$(BIN)/python -m pytest $(or $(ARGS),$(PARALLEL))

coverage: $(READY) ## all tests with branch coverage, in twice the time; below 95 % it fails
	$(BIN)/python -m pytest $(PARALLEL) --cov --cov-fail-under=95

relays: build/relays/python/ready build/relays/npm/ready ## install the relays of other makes that the tests meet; without them those are skipped

build/relays/python/ready: requirements/relays/python.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

build/relays/npm/ready: requirements/relays/package.json requirements/relays/package-lock.json
	mkdir -p $(@D) && cp $^ $(@D)
	npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --silent
	@touch $@

sim: $(READY) ## run seeds of the simulator: SEEDS=2000, options in ARGS="--world links"
	$(BIN)/python -m musignet.sim --seeds $(or $(SEEDS),300) $(ARGS)

kill: $(READY) ## kill whole nodes in the middle of ceremonies: KILLS=500, another plan with SEED=2
	MUSIGNET_KILLS=$(or $(KILLS),500) MUSIGNET_KILL_SEED=$(or $(SEED),1) $(BIN)/python -m pytest -q -s tests/net/test_kill.py

chaos: $(READY) ## ceremonies on links that are harmed and lose packets: SEEDS=200, from another seed on with FIRST=1000
	MUSIGNET_CHAOS_SEEDS=$(or $(SEEDS),50) MUSIGNET_CHAOS_FIRST=$(or $(FIRST),1) \
	    $(BIN)/python -m pytest -q --numprocesses auto tests/net/test_chaos.py tests/net/test_lossy.py $(ARGS)

fuzz: $(READY) ## what takes bytes of others, guided by coverage: SECONDS=600 for all of it; one in ARGS='--door "a PSBT"'
	$(BIN)/python tools/fuzz.py --seconds $(or $(SECONDS),600) $(ARGS)

lint: $(READY) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy --strict on src
	$(BIN)/mypy --strict src

check: export MUSIGNET_VECTORS ?= $(if $(VECTORS),required)
check: lint types test ## everything CI runs

bench: $(READY) ## measure; the table and the case in ARGS="link"
	$(BIN)/python -m bench $(or $(ARGS),link)

diagrams: $(READY) ## make docs/states.md and docs/config.md again, from the tables of the code
	$(BIN)/python tools/diagrams.py > docs/states.tmp && mv docs/states.tmp docs/states.md
	$(BIN)/python tools/configpage.py > docs/config.tmp && mv docs/config.tmp docs/config.md

kills: $(READY) ## kill two nodes 2,000 times while one writes to the other; KILLS=n for more
	MUSIGNET_KILLS=$(or $(KILLS),2000) $(BIN)/python -m pytest -q tests/net/test_mailstore.py -k kills

cuts: $(READY) ## start from 5,000 disks that lost power while messages were stored; CUTS=n for more
	MUSIGNET_CUTS=$(or $(CUTS),5000) $(BIN)/python -m pytest -q tests/net/test_mailstore.py -k power

timing: $(READY) ## whether a failed handshake tells by its time what was wrong with it: SAMPLES=100000 pairs
	MUSIGNET_TIMINGS=$(or $(SAMPLES),100000) $(BIN)/python -m pytest -q -s tests/wire/test_timing.py

lock: ## resolve requirements/lock.txt again; newer versions with ARGS=--upgrade
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet uv
	build/lock/bin/uv pip compile pyproject.toml --all-extras --group test --group fuzz --group lint --group bench --group build \
	    --constraint requirements/constraints.txt --universal --python-version 3.11 --generate-hashes \
	    --no-annotate --custom-compile-command "make lock" --quiet --output-file requirements/lock.txt $(ARGS)
	build/lock/bin/uv pip compile requirements/relays/python.in --universal --python-version 3.11 --generate-hashes \
	    --no-annotate --custom-compile-command "make lock" --quiet --output-file requirements/relays/python.txt $(ARGS)

clean: ## remove what make has made
	rm -rf .venv build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests bench examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(READY): pyproject.toml requirements/lock.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "MuSigNet needs Python 3.11 or newer, not $$($(PYTHON) --version 2>&1); try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "$(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/lock.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: help demo test coverage relays sim kill chaos fuzz lint types check bench diagrams kills cuts timing lock clean
