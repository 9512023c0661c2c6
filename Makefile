# make demo | test | check | bench | chaos | deb | image | machine-test: each installs by itself what it lacks, into .venv and node_modules here.
SHELL := /bin/bash
.DEFAULT_GOAL := check
# Debian's own: what the box runs. (A newer 3.11 hid a difference once.)
PYTHON ?= /usr/bin/python3
BIN := .venv/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
TEST_PACKAGES = chromium libatomic1 strace systemd shellcheck e2fsprogs
APT = DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y --no-install-recommends

MACHINE_PACKAGES = systemd-container mmdebstrap debhelper python3-pip lintian $(IMAGE_PACKAGES) podman runc \
	qemu-system-x86 qemu-utils qemu-user-static busybox-static kmod cpio e2fsprogs
BUILD_PACKAGES = debhelper python3-pip
IMAGE_PACKAGES = buildah dpkg-dev
LOCK = $(BIN)/uv pip compile --quiet --upgrade --universal --fork-strategy fewest --python-version 3.11 --generate-hashes \
	--only-binary :all: --no-header --no-annotate --no-emit-index-url --no-emit-find-links

.PHONY: demo test lint check bench chaos deb image machine-test lock clean

.venv/run: pyproject.toml setup.py debian/changelog
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(SUDO) apt-get update && $(APT) python3-venv ca-certificates; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

.venv/dev: .venv/run
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

node_modules/.made: tests/package.json .venv/dev
	$(BIN)/npm install --prefix . --no-save --no-audit --no-fund --no-package-lock $$($(BIN)/python -c 'import json; print(*(f"{n}@{v}" for n, v in json.load(open("tests/package.json"))["dependencies"].items()))')
	@touch $@

# A real browser, a library that the node of playwright's driver needs, what makes system calls fail, what judges the
# unit and the scripts, and what makes a disk to be broken.
.venv/debian: Makefile .venv/dev
	@dpkg -s $(TEST_PACKAGES) >/dev/null 2>&1 || { $(SUDO) apt-get update && $(APT) $(TEST_PACKAGES); }
	@touch $@

demo: .venv/run
	$(BIN)/edge-gateway demo

# Two tests to a core: many of them wait for a process, a timer or a disk. One at a time: make test WORKERS=0
test: WORKERS ?= $(shell echo $$((2 * $$(nproc))))
test: .venv/dev node_modules/.made .venv/debian
	$(BIN)/pytest -q -n $(WORKERS) --maxschedchunk 1 $(ARGS)

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

bench: .venv/dev
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench.reads
	$(BIN)/python -m tests.bench.idle
	$(BIN)/python -m tests.bench.start
	$(BIN)/python -m tests.forward.bench
	$(BIN)/python -m tests.revpi.bench
	$(BIN)/python -m tests.opcua.bench
	$(BIN)/python -m tests.can.bench
	$(BIN)/python -m tests.icotronic.bench

# The full counts of tests/chaos and of what else is random or long, some four hours of two cores; CHAOS_SEED=N takes other random choices.
chaos: export CHAOS_KILLS ?= 10000
chaos: export CHAOS_STATES ?= 1000000
chaos: export CHAOS_DAMAGES ?= 10000
chaos: export CHAOS_ERRNO ?= all
chaos: export CHAOS_DAYS ?= 300
chaos: export CHAOS_SEEDS ?= 8
chaos: export CHAOS_SEED ?= $(shell date +%s)
chaos: export OPCUA_FRAMES ?= 1000000
chaos: export CAN_MUTATIONS ?= 10000
chaos: export MEASURED_FRAMES ?= 5714286
chaos: export OPCUA_SEED ?= $(CHAOS_SEED)
chaos: WORKERS ?= $(shell echo $$((2 * $$(nproc))))
chaos: .venv/dev .venv/debian
	timeout 18000 $(BIN)/pytest -n $(WORKERS) --maxschedchunk 1 -rP --show-capture=stdout tests/chaos tests/config/test_fuzz.py tests/opcua/test_mutated.py tests/can/test_loading.py tests/icoapi/test_long.py $(ARGS)

# The Debian package for this machine's suite, into dist/; ARCH=arm64 or amd64 for the other processor. For another
# suite: debian/build-in-root.sh trixie
deb: export DEB_RULES_REQUIRES_ROOT = no
deb: ARCH ?= $(shell dpkg --print-architecture)
deb:
	@dpkg -s $(BUILD_PACKAGES) >/dev/null 2>&1 || { $(SUDO) apt-get update && $(APT) $(BUILD_PACKAGES); }
	dpkg-architecture -a$(ARCH) --force -c $(MAKE) --no-print-directory -f debian/rules clean binary OUT=$(CURDIR)/dist

# The container's image, IMAGE in buildah's and podman's store; with PLATFORMS=linux/amd64,linux/arm64 a list of both
# (the other one's apt-get runs under qemu-user-static). IMAGE_ARGS: more for buildah, as --build-arg BASE=...
image: IMAGE ?= localhost/edge-gateway:$(shell dpkg-parsechangelog -S Version)
image:
	@dpkg -s $(IMAGE_PACKAGES) >/dev/null 2>&1 || { $(SUDO) apt-get update && $(APT) $(IMAGE_PACKAGES); }
	buildah bud --format docker --no-cache --timestamp $$(dpkg-parsechangelog -S Timestamp) \
		--build-arg VERSION=$$(dpkg-parsechangelog -S Version) --build-arg REVISION=$$(git rev-parse HEAD) \
		--build-arg BUILDPLATFORM=linux/$$(dpkg --print-architecture) \
		$(if $(PLATFORMS),--platform $(PLATFORMS) --manifest,--tag) $(IMAGE) $(IMAGE_ARGS) .

# On machines that really boot (systemd-nspawn, QEMU), from the packages in dist/, made where they are not there.
# CUTS=100 CUT_IMAGES=100 for the full counts of power cuts.
machine-test: .venv/dev
	@dpkg -s $(MACHINE_PACKAGES) >/dev/null 2>&1 || { $(SUDO) apt-get update && $(APT) $(MACHINE_PACKAGES); }
	$(SUDO) $(BIN)/pytest -m machine tests/machine $(ARGS)

# Pins the package's libraries, by hash, to the newest that pyproject.toml allows, and renews debian/copyright.
lock: .venv/dev
	$(LOCK) --no-binary aiohttp-apispec --no-binary sdnotify --no-binary wait-for2 \
		--no-emit-package pip pyproject.toml -o debian/requirements.lock
	$(LOCK) debian/tools.in -o debian/tools.lock
	$(MAKE) deb
	PYTHONPATH=debian/build/tools $(PYTHON) debian/components.py copyright debian/build/lib > debian/copyright

clean:
	rm -rf .venv node_modules .demo *.egg-info dist debian/build debian/edge-gateway
