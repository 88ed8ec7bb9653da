# Everything on a machine that has only Python and git. Every command is printed as it runs.
BUNDLE ?= nasopharynx_mri_mmfnet
PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
ROOT := bundles/$(BUNDLE)
DEMO := $(ROOT)/demo
CONFIGS := $(ROOT)/configs
EXPLAIN := $(wildcard $(CONFIGS)/explain.json)
# the case to draw: the first that has a mask
CASE ?= $(patsubst %_seg.nii.gz,%,$(notdir $(firstword $(sort $(wildcard $(DEMO)/masks/*_seg.nii.gz)))))
RUN := $(BIN)/python -m monai.bundle run --bundle_root $(ROOT)
EXPLAIN_RUN = $(RUN) --config_file "['$(CONFIGS)/inference.json','$(EXPLAIN)','$(CONFIGS)/demo.json']" --output_dir $(DEMO)/masks
SHIPPED := bundles/hippocampus_mri_mmfnet
SHIPPED_CASE := hippocampus_099
SHIPPED_RUN := $(BIN)/python -m monai.bundle run --bundle_root $(SHIPPED) --dataset_dir $(SHIPPED)/sample
SPEC = --config_file "['$(CONFIGS)/$(1).json','$(CONFIGS)/demo.json']"

.PHONY: help sample demo picture reproduce diagrams docs release test-fast test lint clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit("the pinned versions need Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dicom,fast,itk,pictures,test]"
	touch $@

## segment 24 real scans with the shipped weights, score them against their ground truth, draw one
sample: $(INSTALLED)
	$(SHIPPED_RUN) --config_file $(SHIPPED)/configs/inference.json --output_dir $(SHIPPED)/demo/masks
	$(SHIPPED_RUN) --config_file "['$(SHIPPED)/configs/train.json','$(SHIPPED)/configs/evaluate.json']" --output_dir $(SHIPPED)/demo/scores
	$(BIN)/python -m common picture $(SHIPPED)/sample/imagesTr/$(SHIPPED_CASE).nii.gz --prediction $(SHIPPED)/demo/masks/$(SHIPPED_CASE)_seg.nii.gz --truth $(SHIPPED)/sample/labelsTr/$(SHIPPED_CASE).nii.gz --out $(SHIPPED)/demo/picture.png
	$(BIN)/python -m common report scores=$(SHIPPED)/demo/scores masks=$(SHIPPED)/demo/masks --dataset_dir $(SHIPPED)/sample --out $(SHIPPED)/demo/report.html

## the sample; then train on a phantom cohort, evaluate on its held-out cases beside the untrained network, infer one, draw it
demo: sample
	rm -rf $(DEMO)
	$(BIN)/python -m common phantoms $(BUNDLE) --out $(DEMO)/data
	$(RUN) $(call SPEC,train)
	$(RUN) --config_file "['$(CONFIGS)/train.json','$(CONFIGS)/evaluate.json','$(CONFIGS)/demo.json']" --output_dir $(DEMO)/untrained --weights untrained
	$(RUN) --config_file "['$(CONFIGS)/train.json','$(CONFIGS)/evaluate.json','$(CONFIGS)/demo.json']" --output_dir $(DEMO)/trained
	$(RUN) $(call SPEC,inference) --output_dir $(DEMO)/masks
	$(if $(EXPLAIN),$(EXPLAIN_RUN))
	$(MAKE) --no-print-directory picture
	$(BIN)/python -m common scores untrained=$(DEMO)/untrained trained=$(DEMO)/trained
	$(BIN)/python -m common report untrained=$(DEMO)/untrained trained=$(DEMO)/trained masks=$(DEMO)/masks --dataset_dir $(DEMO)/data --out $(DEMO)/report.html

## draw one held-out case of the demo again, for example CASE=case_010
picture:
	$(BIN)/python -m common picture $(DEMO)/data/images/$(CASE)* --prediction $(DEMO)/masks/$(CASE)_seg.nii.gz --truth $(DEMO)/data/labels/$(CASE).nii.gz $(if $(EXPLAIN),--heat $(DEMO)/masks/$(CASE)_cam.nii.gz --result $(DEMO)/masks/$(CASE)_class.json) --out $(DEMO)/picture.png

## write docs/reference/reproduce.md and the results tables of the cards from every bundle's docs/results.yaml
reproduce: $(INSTALLED)
	$(BIN)/python -m reproduce

## draw the architecture of every network from its own modules, docs/images/*.svg
diagrams: $(INSTALLED)
	$(BIN)/python -m diagrams

## build the pages and the API reference with Sphinx in docs/_build/html; a warning or a dead local link is an error
docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --conf-dir docs . docs/_build/html

## check that the version, the changelog, the citation and the tag of a release agree
release: $(INSTALLED)
	$(BIN)/python -m release

## the tests for every day, about 90 seconds on 2 cores: no training, no inference by a bundle's configs, no other process
test-fast: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder -m "not slow and not ddp"

## the whole test suite
test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

## style and types
lint: $(INSTALLED)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

## remove the environment and the results of the demos
clean:
	rm -rf $(VENV) bundles/*/demo*

## print the targets
help:
	@awk '/^## /{text=substr($$0,4);next} /^[a-z-]+:/&&text{split($$1,name,":");printf "  make %-10s %s\n",name[1],text} {text=""}' $(MAKEFILE_LIST)
