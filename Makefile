# make run     install into .venv and start the demonstration server in the foreground
# make test    run every test
# make lint    ruff, mypy, and the news fragments of changes/
# make check   what every change must pass: lint, docs and test
# make attack  attack the running program for MINUTES (10)
# make soak    kill it, take its power, load it for SECONDS (3600); see docs/reliability.rst
# make fuzz    make octets for all that reads them, for MINUTES (10); guided where atheris is installed
# make bench   measure, side by side with Postfix; see docs/performance.rst
# make docs    the documentation as HTML and as man pages, in docs/_build/html and docs/_build/man
# make dist    the archives of a release, in dist; the same from the same commit, wherever they are made

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check
# From the source tree; see "For developers" in README.rst.
SOURCE := PYTHONPATH=. $(BIN)/python
FILES  := setup.cfg setup.py pyproject.toml README.rst LICENSE $(shell find mta twisted -name '*.py')

SPACE  :=
HELLO  := import smtplib; smtplib.SMTP('127.0.0.1', 2525).sendmail('me@here.example', \
'alice@demo.example', 'Subject: hello\n\nIt works.')

.PHONY: run test lint check attack soak fuzz bench docs dist clean

run: $(VENV)/.program
	@mkdir -p var
	$(info When it says "ready", send it a message from another terminal, in this folder:)
	$(info )
	$(info $(SPACE)   $(PYTHON) -c "$(HELLO)")
	$(info )
	$(info The message then lies in var/mail/demo.example/alice/new.  Ctrl-C ends the server.)
	$(info )
	@$(BIN)/twistd --nodaemon --pidfile=var/twistd.pid mta --config etc/demo.yaml

test: $(VENV)/.test
	@$(SOURCE) -m tests

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/towncrier build --draft --version Unreleased > /dev/null

# One after the other, also with -j: lint is over in seconds.
check: lint
	@$(MAKE) --no-print-directory docs
	@$(MAKE) --no-print-directory test

MINUTES ?= 10

attack: $(VENV)/.test
	$(SOURCE) -m tests.attacks $(MINUTES)

SECONDS ?= 3600

soak: $(VENV)/.test
	$(SOURCE) -m tests.crash $(SECONDS)

fuzz: $(VENV)/.test
	$(SOURCE) -m tests.fuzz $(MINUTES)

bench: $(VENV)/.test
	$(SOURCE) -m bench

docs: $(VENV)/.docs
	$(SOURCE) -m sphinx --quiet --fail-on-warning --keep-going -b html docs docs/_build/html
	$(SOURCE) -m sphinx --quiet --fail-on-warning --keep-going -b man docs docs/_build/man
	@echo "docs/_build/html/index.html; man -l docs/_build/man/mta.1"

dist: export SOURCE_DATE_EPOCH := $(shell git log -1 --format=%ct)
dist: $(VENV)/.test
	@rm -rf dist mailturn.egg-info
	$(BIN)/python -m build --outdir dist . > /dev/null
	@rm -rf mailturn.egg-info
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

clean:
	rm -rf $(VENV) build dist mailturn.egg-info docs/_build _trial_temp* .coverage .coverage.*

$(VENV)/.created:
	@echo "making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "make: python3 can't make a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }
	@touch $@

# A normal installation, as a newcomer would have it: Twisted does not find the plugin of an editable one.
$(VENV)/.program: $(VENV)/.created $(FILES)
	@echo "installing mta into $(VENV) ..."
	@rm -rf mailturn.egg-info
	@$(PIP) install .
	@rm -rf mailturn.egg-info
	@touch $@

$(VENV)/.test $(VENV)/.docs: $(VENV)/.%: $(VENV)/.created setup.cfg setup.py pyproject.toml
	@echo "installing what $* needs into $(VENV) ..."
	@rm -rf mailturn.egg-info
	@$(PIP) install '.[$*]'
	@rm -rf mailturn.egg-info
	@touch $@
