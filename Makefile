# `make` lists the targets. Everything runs in the virtual environment .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PINS := tests/support/pins.txt
DOCUMENTS := README.md SECURITY.md CONTRIBUTING.md CHANGELOG.md docs
SHELL_SCRIPTS := $(wildcard *.sh hooks/*.sh etc/*.sh etc/hooks/*.sh etc/packaging/*.sh etc/packaging/deb/p* tests/*/*.sh) .ci/run
# Most tests wait for Slurm. Those of one file share a lab, and stay together.
SIDE_BY_SIDE := --numprocesses 3 --dist loadfile

.PHONY: test-many test-matrix proof test-ends test-pythons test-install test-packages deb rpm help venv lint prose test unit coverage update-tools soak manual bundle zipapp release pins fuzz demo bench clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

venv: $(READY) ## the virtual environment, with the exporter and all tools in it

$(READY): pyproject.toml $(PINS)
	@tests/support/provision.sh python || echo 'trying with the installed packages'
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m virtualenv --quiet $(VENV) || \
		{ echo 'no virtual environment: install python3-venv or virtualenv' >&2; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint $(PINS) --editable '.[dev]'
	@touch $@

update-tools: $(READY) ## pin the newest development tools in tests/support/pins.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager --editable '.[dev]'
	@{ echo '# By `make update-tools`. Older Pythons take the newest versions that support them.'; \
		$(BIN)/pip freeze --exclude-editable | sed "s/$$/ ; python_version >= '3.11'/"; } >$(PINS).new
	@mv $(PINS).new $(PINS) && touch $(READY) && git --no-pager diff --stat $(PINS)

lint: $(READY) prose ## ruff, mypy, shellcheck, and the linters of prose
	$(BIN)/ruff check --quiet agent tests etc
	$(BIN)/ruff format --quiet --check agent tests etc
	$(BIN)/mypy --no-error-summary agent tests etc
	@tests/support/provision.sh lint || [ "$${CI:-}" != true ]
	@! command -v shellcheck >/dev/null || { echo shellcheck $(SHELL_SCRIPTS); shellcheck $(SHELL_SCRIPTS); }

prose: $(READY) ## spelling and style of documents, messages, docstrings and comments
	@if [ -x $(BIN)/codespell ]; then $(BIN)/codespell --ignore-words tests/support/codespell.txt $(DOCUMENTS) agent etc hooks tests install.sh Makefile; fi
	@if [ -x $(BIN)/proselint ]; then $(BIN)/proselint check --config tests/support/proselint.json $(DOCUMENTS); fi
	@$(BIN)/python -m tests.support.prose

test: lint ## everything: lint, unit tests, and tests on a real Slurm if this machine can run one
	@tests/support/provision.sh slurm monitoring proxies install packages || [ "$${CI:-}" != true ]
	$(BIN)/pytest --quiet --durations=5 $(SIDE_BY_SIDE)

test-many: $(READY) ## two controllers, a federation, a frozen spool, forgotten state, bursts: ROUNDS (10) fail-overs, BURST (10000) jobs
	@tests/support/provision.sh slurm
	$(BIN)/python -m tests.ha.many $(PARTS)

test-many-nfs: ## StateSaveLocation on NFS, on Slurm 22.05 under a kernel of its own (user-mode-linux)
	tests/support/uml.sh run 'cd /src && python3 -B -m tests.ha.many nfs'

test-many-%: ## the same on another Debian's Slurm, such as test-many-sid
	tests/support/chroots.sh run $* sh -c 'cd /src && ROUNDS=$(or $(ROUNDS),10) BURST=$(or $(BURST),10000) python3 -B -m tests.ha.many $(PARTS)'

soak: $(READY) ## kills and outages around a real Slurm, for SOAK_MINUTES (5): no job may be lost
	@tests/support/provision.sh slurm proxies
	$(BIN)/python -m tests.faults.soak

# The suites that tests/support/chroots.sh knows; each brings its own Python, up to 3.14.
SUITES := bullseye bookworm trixie sid
INSIDE = 'cd /src && CI=$(CI) PROOF_SEEDS=$1 PROOF_JOBS=$(PROOF_JOBS) python3 -m pytest --quiet -p no:cacheprovider $2'
test-matrix: $(SUITES:%=test-matrix-%) ## the tests on Slurm 20.11, 22.05, 24.11 and 26.05, each in a Debian of its own
test-matrix-%:
	tests/support/chroots.sh run $* sh -c $(call INSIDE,$(PROOF_SEEDS),-m slurm tests/slurm tests/proof)

proof: $(SUITES:%=proof-%) ## random histories on those four, against SQL and sreport: PROOF_SEEDS (10), PROOF_JOBS (400) each
proof-%:
	tests/support/chroots.sh run $* sh -c $(call INSIDE,$(or $(PROOF_SEEDS),10),--durations=3 tests/proof)

# The oldest and the newest Slurm; their folders may not exist yet.
test-ends: ## the part of test-matrix for CI: jobs of all kinds, and one seed of the proof, on Slurm 20.11 and 26.05
	@tests/support/provision.sh chroots || true
	@for suite in bullseye sid; do \
		tests/support/chroots.sh try $$suite sh -c $(call INSIDE,1,tests/slurm/test_pipeline.py tests/proof) || exit; done

test-pythons: ## the unit tests on Python 3.8 to 3.13, with the oldest and the newest dependencies, and on 3.14
	tests/support/pythons.sh
	tests/support/chroots.sh run sid sh -c $(call INSIDE,,tests/unit)

unit: $(READY) ## the tests that need no Slurm
	$(BIN)/pytest --quiet -m 'not slurm'

coverage: $(READY) ## which lines and branches of agent/ the unit tests reach, including the commands that they start
	$(BIN)/coverage erase
	-$(BIN)/coverage run -m pytest --quiet -m 'not slurm' tests/unit
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

manual: $(READY) ## the man page and the completions, from the command line's help; the template units, from the plain ones
	$(BIN)/python etc/manual.py
	$(BIN)/python etc/templates.py

test-install: $(READY) ## boots a controller and installs, upgrades, breaks and removes everything there (needs root)
	@tests/support/provision.sh machine
	$(BIN)/pytest --capture no tests/install/booted*.py

test-packages: $(READY) ## packages, instances, the Ansible role and containers on booted Debians 11 to 13 (needs root)
	@tests/support/provision.sh machine packages containers
	$(BIN)/pytest --capture no tests/packaging/booted*.py tests/packaging/contained.py tests/packaging/engine.py

deb: $(READY) ## a package for Debian and Ubuntu, in dist/
	@tests/support/provision.sh packages
	$(BIN)/python etc/packaging/package.py --deb

rpm: $(READY) ## a package for EL, Fedora and SUSE, in dist/
	@tests/support/provision.sh packages
	$(BIN)/python etc/packaging/package.py --rpm

bundle: $(READY) ## an archive in dist/ that installs without internet
	$(BIN)/python etc/bundle.py --bundle

zipapp: $(READY) ## the exporter as one file in dist/, for any Python from 3.8
	$(BIN)/python etc/bundle.py --zipapp

release: $(READY) ## all files of a release, in dist/: bundle, zipapp, packages, SBOM, SHA256SUMS
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[release]'
	$(BIN)/python etc/bundle.py
	@tests/support/provision.sh packages
	$(BIN)/python etc/packaging/package.py --zipapp dist/slurm-usage-history-exporter.pyz

pins: $(READY) ## the newest versions that install.sh and the bundle may install, with their hashes, into etc/requirements/
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[release]'
	$(BIN)/python etc/pin.py

fuzz: $(READY) ## fuzz everything that parses foreign input, for MINUTES (6) in all
	$(BIN)/pip install --quiet --disable-pip-version-check atheris
	$(BIN)/python -m tests.fuzz $(or $(MINUTES),6)

demo: $(READY) ## watch real Slurm jobs arrive on a dashboard; ARGS="--jobs 500 --interval 1"
	@tests/support/provision.sh slurm || true
	@$(BIN)/python -m tests.demo $(ARGS)

bench: $(READY) ## measure speed and memory on a real Slurm, into docs/benchmarks.md; ARGS="--only flush --rounds 9"
	@tests/support/provision.sh slurm
	$(BIN)/python -m tests.bench --output docs/benchmarks.md $(ARGS)

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist *.egg-info .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find agent tests -name __pycache__ -type d -prune -exec rm -rf {} +
