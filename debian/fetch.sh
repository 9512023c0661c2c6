#!/usr/bin/env bash
# Fetches, by hash, the files of every library of the two locks: for a build or an install.sh without network.
#
#   debian/fetch.sh PYTHON MACHINE FOLDER       as 3.13 aarch64 /tmp/files
set -euo pipefail
python=$1 machine=$2 folder=$(realpath -m "$3")
cd "$(dirname "$0")"
fetch() { python3 -m pip --disable-pip-version-check -qq download --no-deps --require-hashes --dest "$folder" "$@"; }
platforms=()
for name in manylinux_2_28 manylinux_2_17 manylinux2014; do platforms+=(--platform "${name}_$machine"); done
fetch --only-binary :all: --python-version "$python" -r tools.lock
# Making an sdist known to pip takes a setuptools, and that of the lock will do.
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m pip -qq install --no-deps --no-compile --no-index --find-links "$folder" --target "$tools" setuptools
sources=$(sed -n 's/^SOURCES = "\(.*\)"/\1/p' bundle.py)
PYTHONPATH=$tools fetch --no-build-isolation --only-binary :all: --no-binary "$sources" "${platforms[@]}" \
    --implementation cp --python-version "$python" -r requirements.lock
