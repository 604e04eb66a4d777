# make train   install, then run the main job: DQN learns CartPole in about a minute
# make test    install, then lint, type-check and test
#
# PYTHON=python3.12 chooses another interpreter (3.11 or newer). On a machine without a GPU, PyTorch's smaller build:
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make train

PYTHON ?= python3
RUN := .venv/bin/
INSTALLED := .venv/installed
OUT ?= runs/cartpole-dqn

.PHONY: install train lint types test

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "saccade needs Python 3.11 or newer: make PYTHON=...")'
	test -x $(RUN)pip || $(PYTHON) -m venv .venv
	$(RUN)python -m pip install -c constraints.txt -e ".[sb3,dev,video]"
	@touch $@

# Every run has a directory of its own: cartpole-dqn, cartpole-dqn-2, cartpole-dqn-3, ...
train: $(INSTALLED)
	@out=$(OUT); number=1; \
	while [ -e "$$out" ]; do number=$$((number + 1)); out=$(OUT)-$$number; done; \
	$(RUN)saccade train dqn --env CartPole-v1 --encoder mlp --steps 50000 --seed 0 --out "$$out"

lint: $(INSTALLED)
	$(RUN)ruff check .
	$(RUN)ruff format --check .

# The checkout is the package, whatever its directory is called: mypy is shown it under the name that it is imported by.
types: $(INSTALLED)
	@mkdir -p .venv/typing && ln -sfn ../.. .venv/typing/saccade
	MYPYPATH=.venv/typing $(RUN)mypy -p saccade --exclude '/tests/'

# A process for each core, with one thread each: two spinning OpenMP programs on two cores slow each other tenfold.
# A file's tests stay together, because they share what they set up.
test: lint types
	OMP_NUM_THREADS=1 $(RUN)python -m pytest -n auto --dist loadfile
