# make setup   .venv with everything, from nothing; does nothing when it is up to date
# make demo    edits a head with a prompt on this machine and shows the result in outputs/demo/
# make test    the tests. With ONLY='-m "not slow"' or ONLY=tests/flame a part of them
# make lint    ruff and mypy
# make fuzz    2,000 spoilt files for every reader: a table, and a part of outputs/trust.json. With ONLY="config" a part of it
# make docs    the documentation as a site, in site/; fails where a link leads nowhere
# make bench   how fast this machine is at it: a table, and outputs/bench.json. With ONLY="rasterizer" a part of it
# make gpu-check  everything that needs a GPU, in eight minutes: a table, and outputs/gpu_check.json; says what is missing
# make ablation  what makes edits agree and keep the expression: a table, outputs/ablation.json and images (40 minutes; resumes
#         where it was stopped). With ONLY=length: whether an edit of a capture four times as long costs more; with
#         ONLY=flow: the same of the flow-matching demo editor (outputs/ablation_flow.json); with ONLY=afterwards: how well views of editors that show no predictions agree
# make results  measures every figure and draws every image of the README and docs/ (hours from nothing; resumes where it was
#         stopped), and fails where they say something else
#
# Another Python: make setup PYTHON=python3.11

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
MASKS := sam2 addict yapf pycocotools
TRACKING := mediapipe==0.10.21 protobuf==4.25.9 absl-py flatbuffers

# The native thread pools fight each other on small machines when each takes every core in every process.
export TOKENIZERS_PARALLELISM := false
export OMP_WAIT_POLICY := passive

.PHONY: setup demo test lint docs fuzz bench gpu-check ablation results clean-demo

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 10) <= v < (3, 13) else "Edit3DGS needs Python 3.10, 3.11 or 3.12 (the versions that Nerfstudio 1.1.5 runs on); \
	$(PYTHON) is %d.%d. Install one of them and name it: make setup PYTHON=python3.11" % v[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=24" "setuptools>=77" wheel
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[dev,docs,ray]"
	@# Masks from words: built against the torch that is there by now; why no dependencies: pyproject.toml.
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --constraint constraints.txt --no-build-isolation $(MASKS)
	$(BIN)/python -m pip install --constraint constraints.txt --no-build-isolation --no-deps groundingdino-py
	@! $(BIN)/python -m pip check | grep -v -e '^No broken' -e '^groundingdino-py .* requires \(opencv-python\|supervision\),' \
	  -e '^mediapipe .* \(requires \(jax\|jaxlib\|opencv-contrib-python\|sentencepiece\|sounddevice\),\|has requirement protobuf\)'
	@# Tracking: MediaPipe's graphs do not start with the protobuf that Nerfstudio's metadata asks for; Nerfstudio runs with this one.
	$(BIN)/python -m pip install --quiet --no-deps $(TRACKING)
	@# ns-export imports open3d, which is linked against libusb, before any plugin of Nerfstudio.
	$(BIN)/python -m edit3dgs_ns.bundled_programs
	@# Compiled here, for otherwise the first training waits for it.
	$(BIN)/python -W ignore -m edit3dgs_ns.training.compiling
	@touch $@

demo: setup
	$(BIN)/edit3dgs demo

# A process for each of up to four cores, with one thread each: what shares files shares fixtures, so that a file stays whole.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ONLY)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The variable silences an advertisement of the theme's authors.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Files that nobody should have made, for every reader: outputs/trust.json
fuzz: setup
	$(BIN)/python -m tools.measure.fuzz $(if $(ONLY),--only $(ONLY))

bench: setup
	$(BIN)/python -m tools.measure.benchmarks $(if $(ONLY),--only $(ONLY))

gpu-check: setup
	$(BIN)/python -m tools.measure.gpu_check $(if $(ONLY),--only $(ONLY))

ablation: setup
	$(BIN)/python -m tools.measure.ablation $(if $(ONLY),--only $(ONLY))

results: setup
	$(BIN)/python -m tools.measure.results

clean-demo:
	rm -rf outputs/demo
