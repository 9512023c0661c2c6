#!/usr/bin/env bash
# Fails where a tag is not v and the version of debian/changelog, or that is still UNRELEASED.
set -euo pipefail
cd "$(dirname "$0")/../.."
read -r _ version distribution _ < debian/changelog
version=${version//[()]/}
if [ "$1" != "v$version" ]; then
    echo "the tag $1 is not v$version, which debian/changelog begins with: a version stands there alone" >&2
    exit 1
fi
if [ "${distribution%;}" = UNRELEASED ]; then
    echo "debian/changelog says that $version is UNRELEASED: name the suite there before the tag" >&2
    exit 1
fi
