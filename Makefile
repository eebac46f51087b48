# make demo: a picture of what the pack does.   make test: everything that CI checks.
# Both set up what they need on a fresh machine (Python 3.11, git) and reuse it the next time.
#
# COMFYUI_PATH=...           use this ComfyUI instead of the pinned one
# SNOOPI_HOST_VERSION=...    use this pinned ComfyUI (see scripts/setup/host.py)
# PYTHON=...                 the Python that the virtual environment is made with
# PYTEST_ARGS=...            more arguments for pytest
# JOBS=...                   so many tests at once (default: 3, as servers and pages wait; 2 in the oldest ComfyUI)

# Compile each file once, not in each of some twenty processes; containers often set this variable.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= $(shell command -v python3.11 || command -v python3)
ifeq ($(PYTHON),)
$(error No Python found: install Python 3.11 (on Debian: apt-get install python3), or set PYTHON)
endif
VENV := $(or $(SNOOPI_VENV),.venv)
PY := "$(VENV)/bin/python"
TOGETHER := -n $(or $(JOBS),3) --dist loadfile
PYTEST = $(PY) -m pytest $(TOGETHER) $(PYTEST_ARGS)
HOSTS := 0.16.3 0.20.1 0.24.0 0.27.0 0.30.0
OLDEST := $(firstword $(HOSTS))
# Two at once: of what runs there, nothing waits for a server or a page.
PYTEST_OLDEST = SNOOPI_HOST_VERSION=$(OLDEST) $(PY) -m pytest -n $(or $(JOBS),2) --dist loadfile $(PYTEST_ARGS)
# $(call part,NAME,COMMAND): run it, and print how long it took.
part = @echo "== $(1)"; start=$$(date +%s); $(2); code=$$?; echo "== $(1): $$(($$(date +%s) - start)) s"; exit $$code

.PHONY: help demo gallery test test-all test-beyond lint test-hosts compatibility models results shapes-study avatars-study study few-steps bench workflows lock setup setup-browser clean

help:
	@sed -n '1,9p' Makefile
	@echo 'Targets: demo gallery test test-all lint test-hosts compatibility models results shapes-study avatars-study study few-steps bench workflows lock clean'

setup:
	@"$(PYTHON)" -m scripts.setup.bootstrap

setup-browser:
	@"$(PYTHON)" -m scripts.setup.bootstrap --browser

demo: setup
	@$(PY) -m scripts.demo

gallery: setup
	@$(PY) -m scripts.pictures.gallery

# The gate, twelve minutes on two idle cores after set-up: every kind of test, heavy ones with fewer examples
# (tests/README.md), in the newest ComfyUI (or COMFYUI_PATH); and in the oldest that is supported, what could differ there.
test: lint setup-browser
	@$(PY) -m scripts.setup.comfy_cli --version >/dev/null # installed once, before tests that run at once
	$(call part,gate,$(PYTEST) --effort gate)
	$(call part,gate on ComfyUI $(OLDEST),$(PYTEST_OLDEST) --effort gate -m both_hosts tests/nodes)

# Everything at full strength; in the oldest ComfyUI with the gate's numbers of examples.
test-all: lint setup-browser
	@$(PY) -m scripts.setup.comfy_cli --version >/dev/null
	$(call part,all,$(PYTEST) --effort full)
	$(call part,all on ComfyUI $(OLDEST),$(PYTEST_OLDEST) --effort wide -m "host and (both_hosts or not full)" tests/nodes)

# What `make test-all` has beyond `make test`: CI runs both.
test-beyond: setup-browser
	@$(PY) -m scripts.setup.comfy_cli --version >/dev/null
	$(call part,beyond the gate,$(PYTEST) --effort beyond)
	$(call part,beyond the gate on ComfyUI $(OLDEST),$(PYTEST_OLDEST) --effort wide -m "host and (both_hosts and full or not both_hosts and not full)" tests/nodes)

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	"$(VENV)/bin/lint-imports" --no-logo

# The pack inside every supported ComfyUI: what touches the host, not the trainer.
test-hosts: setup
	@for version in $(HOSTS); do \
	  echo "== ComfyUI $$version"; \
	  SNOOPI_HOST_VERSION=$$version $(PY) -m pytest $(TOGETHER) -q -m '(host or server) and not browser' $(PYTEST_ARGS) || exit 1; \
	done

# Tests the pack in the oldest and the newest ComfyUI and writes the measured figures to docs/COMPATIBILITY.md.
compatibility: setup
	$(PY) -m scripts.compatibility

workflows: setup-browser
	$(PY) -m scripts.workflows.make
	$(PY) -m scripts.pictures.help
	$(PY) -m scripts.pictures.before_after

# Trains the models of the avatars' world from nothing: pictures, text encoder, autoencoder, teacher, student. Each stage
# continues where it stopped, and a finished one is not repeated: the same command goes on after an interruption. On one
# quiet core a little over three hours: pictures 7 minutes, text encoder 4, autoencoder 48, teacher 58, reader 12, student
# 63. Why the student learns in three parts: experiments/avatars_teacher/README.md.
AVATARS := runs/avatars
STUDENT := runs/avatars_student_full
SHORT := $(AVATARS)/short_captions.txt

models: setup
	$(PY) -m experiments.avatars_teacher.build --out $(AVATARS)
	$(PY) -m experiments.avatars_teacher.reader --pictures $(AVATARS)/pictures --out $(AVATARS)
	$(PY) -m experiments.avatars_teacher.reader --calibrate --pictures $(AVATARS)/pictures --out $(AVATARS)
	$(PY) -m training.export $(AVATARS)/pipeline --title "SNOOPI avatars, teacher" \
	  --out models/snoopi-avatars-teacher.safetensors
	test -d $(STUDENT)/export || $(PY) -m training.pgsb --recipe avatars --resume loop.iterations=600 \
	  loop.cooldown=150 output.folder=$(STUDENT)
	test -f $(SHORT) || $(PY) -m training.pgsb --resume $(STUDENT) --accept-changes loop.iterations=1050 \
	  loop.cooldown=250 guidance.kappa_min=1 guidance.lora_kappa=1 output.recommended_alpha=0.75
	test -f $(SHORT) || $(PY) -m experiments.avatars_teacher.short_captions --out $(SHORT)
	$(PY) -m training.pgsb --resume $(STUDENT) --accept-changes loop.iterations=1450 loop.cooldown=200 \
	  prompts.source=$(SHORT)
	$(PY) -m training.export $(STUDENT) --checkpoint latest --out models/snoopi-avatars-student.safetensors

# Measures the shipped models and writes the tables and charts of docs/RESULTS.md and docs/METHODS.md; their text is
# written by hand. Seeds are fixed, so figures only change with the models. Scales, negatives and settings of the same
# models that docs/data already has are not measured again; delete the files to start over. An hour on two quiet cores.
results: setup
	$(PY) -m experiments.avatars.evaluate models/snoopi-avatars-teacher.safetensors --as teacher --threads 1 \
	  --json docs/data/teacher.json
	$(PY) -m experiments.avatars.evaluate models/snoopi-avatars-student.safetensors --count 1000 --alphas \
	  --threads 1 --sheet out/pictures.html --json docs/data/student.json
	$(PY) -m experiments.teacher_scale
	$(PY) -m experiments.negatives
	$(PY) -m experiments.avatars.judges
	$(PY) -m experiments.results_page
	$(PY) -m experiments.methods
	$(PY) -m experiments.methods --steps 4

# Compares guidance scales of the teachers in the shapes world: 27 runs, three hours on one idle core, less with JOBS=2;
# runs/study takes 6 GB. It can be interrupted and resumed, and ITERATIONS=700 (the recipe's length) continues the same
# runs. Runs in docs/study.json are not repeated. Writes the tables and charts of docs/STUDY.md.
shapes-study: setup
	$(PY) -m experiments.guidance_study --jobs $(or $(JOBS),1) $(if $(ITERATIONS),--iterations $(ITERATIONS))

# The same question in the avatars' world: PG-SB, SwiftBrush and a fixed scale of PG-SB's mean, at the recipe's full
# length; then, with one seed, what the recipe has added, taken back one at a time. Five hours on one idle core; can be
# interrupted and resumed. Writes docs/STUDY_AVATARS.md and its charts.
avatars-study: setup
	$(PY) -m experiments.guidance_study --world avatars --recipe avatars --cells pgsb swiftbrush fixed --iterations 300 \
	  --every 50 --alpha 0.75 --out runs/study_avatars --json docs/study_avatars.json --page docs/STUDY_AVATARS.md \
	  --jobs $(or $(JOBS),1)
	$(PY) -m experiments.guidance_study --world avatars --recipe avatars --seeds 0 \
	  --cells pgsb updates-1 updates-2 shared eps-loss sigma-squared rank-16 --iterations 300 \
	  --every 50 --alpha 0.75 --out runs/study_avatars --json docs/study_avatars.json --page docs/STUDY_AVATARS.md \
	  --jobs $(or $(JOBS),1)

# The paper's experiments: teachers' scales in the shapes world, and the results of the shipped models.
study: shapes-study results

# Students of one, two and four steps in the avatars' world, three seeds each; writes the tables of docs/FEW_STEPS.md and
# its picture. Can be interrupted and resumed. Two and a half hours on one idle core, less with JOBS=2.
few-steps: setup
	$(PY) -m experiments.few_steps --jobs $(or $(JOBS),1) $(if $(ITERATIONS),--iterations $(ITERATIONS))

# What NASA costs on full-size models: over an hour on one idle core; writes benchmarks/RESULTS.md.
bench: setup
	@mkdir -p out
	$(PY) benchmarks/nasa_cost.py sd15 pixart --rounds 7 > out/cost-small.md
	$(PY) benchmarks/nasa_cost.py sdxl --rounds 3 --cases plain NASA "CFG 2" > out/cost-large.md
	$(PY) benchmarks/nasa_cost.py sdxl --rounds 5 --cases plain NASA --no-memory >> out/cost-large.md
	$(PY) benchmarks/nasa_cost.py current --rounds 5 --bf16 --pytorch-attention > out/cost-current.md
	echo >> out/cost-current.md
	$(PY) benchmarks/nasa_cost.py current templates --count-only --bf16 --pytorch-attention >> out/cost-current.md
	echo >> out/cost-current.md
	$(PY) benchmarks/nasa_cost.py current templates --count-only memory --bf16 --pytorch-attention >> out/cost-current.md
	$(PY) benchmarks/train_step.py --model sd15-small --batch 1 --precision bf16 --rounds 5 --threads 1 > out/train.md
	$(PY) benchmarks/train_step.py --model sd15-small --batch 2 --precision bf16 --rounds 5 --threads 1 >> out/train.md
	for side in 16 24 32; do \
	  $(PY) benchmarks/train_step.py --batch 1 --precision no --rounds 9 --threads 1 --latent $$side >> out/train.md || exit 1; \
	done
	cat benchmarks/ABOUT.md out/cost-small.md out/cost-large.md out/cost-current.md benchmarks/ABOUT_TRAINING.md out/train.md \
	  > benchmarks/RESULTS.md

# Needs the network: resolves every version anew.
lock:
	rm -rf .venv-lock
	"$(PYTHON)" -m venv .venv-lock
	.venv-lock/bin/python -m scripts.setup.lock
	rm -rf .venv-lock

clean:
	rm -rf out build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './.git/*' -not -path './$(VENV)/*' -prune -exec rm -rf {} +
