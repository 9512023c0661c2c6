#!/usr/bin/env bash
# Gives this tree a version of its own: 0.2.0~a57 for the 57th commit on the way to 0.2.0. It is older than any
# 0.2.0~deb12 and newer than each commit before it, for dpkg and for Python.
set -euo pipefail
cd "$(dirname "$0")/../.."
commits=$(git rev-list --count HEAD)
version=$(sed -n '1s/^edge-gateway (\([^)]*\)).*/\1/p' debian/changelog)
[ -n "$version" ] || { echo "debian/changelog begins with no version" >&2; exit 1; }
{
    printf 'edge-gateway (%s~a%s) UNRELEASED; urgency=medium\n\n  * Commit %s.\n\n' \
        "${version%%~*}" "$commits" "$(git rev-parse HEAD)"
    printf ' -- edge-gateway developers <developers@edge-gateway.invalid>  %s\n\n' "$(git log -1 --format=%cD)"
    cat debian/changelog
} > debian/changelog.new
mv debian/changelog.new debian/changelog
