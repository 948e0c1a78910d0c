# Every target works from a fresh clone: the first one that is run makes .venv from requirements.lock.
# `make help` lists the targets. RUNTIME=docker|native forces a runtime; without it `up-*` uses a Docker engine if one answers.

.SILENT:
.DEFAULT_GOAL := help
SHELL := /bin/sh

PYTHON := .venv/bin/python
STAMP := .venv/.installed
export RUNTIME

# How our Python runs is decided here, and not by what the caller's shell holds for others: PYTHONSAFEPATH would keep it
# from finding the modules, PGSSLMODE from our PostgreSQL. Where bytecode goes is the caller's business.
unexport $(filter-out PYTHON PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX,\
  $(filter PYTHON% PG% OTEL_% LD_PRELOAD,$(.VARIABLES)))
export PYTHONUTF8 := 1

S ?=
ID ?=
FORMAT ?= table
FOLLOW ?= 1
NODES ?= 1
VOLUMES ?=
MINUTES ?= 10
WORKLOAD ?= $(if $(filter 1,$(FULL)),compare/workloads/full.yml)
ROUNDS ?=
BASE ?=
PREFER ?=
PROFILE ?=
# More arguments for the tool behind a target: make test ARGS="-k relay", make compare ARGS=--help
ARGS ?=

CHECKED := shared services deploy experiment compare bench faults examples docs tests

.PHONY: help up-rabbit up-kafka down status logs trace dead-letters jobs job audit compare faults bench test mutants check docs render lock

help: ## this list
	grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

up-rabbit: $(STAMP) ## start everything on RabbitMQ (NODES=3 for a cluster)
	$(PYTHON) -m deploy up rabbit --nodes '$(NODES)'

up-kafka: $(STAMP) ## start everything on Kafka (NODES=3 for a cluster)
	$(PYTHON) -m deploy up kafka --nodes '$(NODES)'

down: $(STAMP) ## stop everything (VOLUMES=1 deletes its data too)
	$(PYTHON) -m deploy down $(if $(filter 1,$(VOLUMES)),--volumes)

status: $(STAMP) ## what runs and whether it answers (FORMAT=json)
	$(PYTHON) -m deploy status --format '$(FORMAT)'

logs: $(STAMP) ## follow the logs (S=order for one service or server, FOLLOW=0 for the end only)
	$(PYTHON) -m deploy logs $(if $(S),'$(S)') $(if $(filter 0,$(FOLLOW)),--no-follow)

trace: $(STAMP) ## the span tree of a trace, order, user or event id (ID=...)
	test -n '$(ID)' || { echo 'tandem: say which: make trace ID=<trace or order id>' >&2; exit 2; }
	$(PYTHON) -m deploy trace '$(ID)'

dead-letters: $(STAMP) ## what could not be processed, by cause, and what becomes of it
	$(PYTHON) -m deploy dead-letters

jobs: $(STAMP) ## the newest jobs (S=report for those of that service, ARGS="--state failed --kind add")
	$(PYTHON) -m deploy jobs $(if $(S),--service '$(S)') $(ARGS)

job: $(STAMP) ## a job with its steps and how far they are, until it has ended (ID=..., S=report)
	test -n '$(ID)' || { echo 'tandem: say which: make job ID=<job id>' >&2; exit 2; }
	$(PYTHON) -m deploy job '$(ID)' $(if $(S),--service '$(S)')

audit: $(STAMP) ## prove the wallet's ledger on what is up: exit 1 with what is broken
	$(PYTHON) -m deploy audit

.PHONY: archive
archive: $(STAMP) ## a service's archived objects (S=notification); with ID=<key> the lines of one (ARGS=--restore puts them back)
	$(PYTHON) -m deploy archive $(if $(ID),'$(ID)') $(if $(S),--service '$(S)') $(ARGS)

compare: $(STAMP) ## run the same services on both brokers and compare them (RUNTIME=docker, FULL=1, WORKLOAD=file, ROUNDS=10, PROFILE=name, BASE=reports/x, PREFER=file)
	$(PYTHON) -m compare $(if $(WORKLOAD),--workload '$(WORKLOAD)') $(if $(ROUNDS),--rounds '$(ROUNDS)') \
	  $(if $(PROFILE),--profile '$(PROFILE)') $(if $(BASE),--base '$(BASE)') $(if $(PREFER),--prefer '$(PREFER)') $(ARGS)

faults: $(STAMP) ## break the running system in every way and check that nothing is lost or doubled
	$(PYTHON) -m faults $(ARGS)

bench: $(STAMP) ## the pipeline against hand-written loops and Celery
	$(PYTHON) -m bench $(ARGS)

.PHONY: profile
profile: $(STAMP) ## where an event's time goes, part by part, and flame graphs on both brokers: reports/profile
	$(PYTHON) -m bench --row limits --rounds 3 --summary reports/profile/limits.json $(ARGS)
	$(PYTHON) -m bench --row hand-written --rounds 1 --events 60000 --profile reports/profile \
	  --summary reports/profile/summary.json $(ARGS)

# Some hundred processes are started: what they import is compiled once, not by each for itself.
test test-fast: export PYTHONDONTWRITEBYTECODE =

test: $(STAMP) ## all tests, on servers of their own
	$(PYTHON) -m pytest -n auto $(ARGS)

.PHONY: test-fast
test-fast: $(STAMP) ## the tests that need no servers
	$(PYTHON) -m pytest -n logical tests/unit tests/architecture $(ARGS)

.PHONY: fuzz
fuzz: export FUZZ_MINUTES = $(MINUTES)
fuzz: $(STAMP) ## send a consumer on each broker whatever strangers may send (MINUTES=10, FUZZ_SEED=1)
	$(PYTHON) -m pytest -n 0 tests/fuzz $(ARGS)

# Servers of their own, once: each mutant's tests run against them. Ctrl-C, and it goes on where it was the next time.
mutants: export TANDEM_TEST_SERVERS = $(CURDIR)/.run/mutants
mutants: $(STAMP) ## change the code in small ways and say which changes no test notices (takes an hour or two)
	$(PYTHON) -m deploy servers --root .run/mutants --only postgres redis rabbit --databases >/dev/null
	$(PYTHON) -m mutmut run --max-children 1 $(ARGS); status=$$?; \
	  $(PYTHON) -m deploy stop --root .run/mutants --remove; exit $$status
	$(PYTHON) -m mutmut results

check: $(STAMP) ## lint, formatting, types, imports, lock file
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy $(CHECKED)
	.venv/bin/lint-imports --no-cache --no-logo
	PYTHON=$(PYTHON) sh deploy/lock.sh --check

docs: $(STAMP) ## write the documents that are made from the code: the settings, the picture of an event's way
	$(PYTHON) -m docs.generate

render: $(STAMP) ## bring what other files tell of deploy/topology.py up to it
	$(PYTHON) -m deploy render

lock: $(STAMP) ## bring requirements.lock up to requirements.in
	PYTHON=$(PYTHON) sh deploy/lock.sh

$(STAMP): requirements.lock
	sh deploy/bootstrap.sh >&2
