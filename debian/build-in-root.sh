#!/usr/bin/env bash
# Builds the package for another suite than this machine's: in a root of that suite, without network.
#
#   sudo debian/build-in-root.sh SUITE [ARCH [OUT]]        bookworm or trixie; amd64 or arm64; default: dist
#
# The libraries are fetched here, by hash, and installed there from files. ROOTS (/tmp/edge-gateway-roots) keeps the
# roots between runs; MIRROR is a Debian mirror, else this machine's.
set -euo pipefail
suite=$1 arch=${2:-$(dpkg --print-architecture)} out=$(realpath -m "${3:-dist}")
cd "$(dirname "$0")/.."
roots=${ROOTS:-/tmp/edge-gateway-roots}
work=$(mktemp -d /tmp/edge-gateway-build.XXXXXX)
trap 'rm -rf "$work"' EXIT
mkdir -p "$roots" "$out"
python=$([ "$suite" = bookworm ] && echo 3.11 || echo 3.13)
machine=$([ "$arch" = arm64 ] && echo aarch64 || echo x86_64)
if [ ! -e "$roots/$suite-build.tar" ]; then
    # shellcheck disable=SC2086  # no mirror is no argument
    mmdebstrap --quiet --variant=minbase --include=debhelper,python3-pip "$suite" "$work/root.tar" ${MIRROR:-}
    mv "$work/root.tar" "$roots/$suite-build.tar"
fi

debian/fetch.sh "$python" "$machine" "$work/files"
mkdir "$work/root"
tar -C "$work/root" -xf "$roots/$suite-build.tar"
mkdir -p "$work/root/build/source"
git ls-files -z --cached --others --exclude-standard | xargs -0 tar -cf - -- | tar -C "$work/root/build/source" -xf -
mv "$work/files" "$work/root/build/files"
# shellcheck disable=SC2016  # $1 and $2 are of the inner shell
unshare --mount --pid --fork --net -- sh -ec '
    mount -t proc proc "$1/proc"
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/build LANG=C.UTF-8 PIP_NO_INDEX=1 PIP_FIND_LINKS=/build/files \
        PIP_NO_CACHE_DIR=1 DEB_RULES_REQUIRES_ROOT=no chroot "$1" \
        dpkg-architecture -a"$2" --force -c make -C /build/source -f debian/rules clean binary OUT=/build/out
' sh "$work/root" "$arch"
cp "$work"/root/build/out/*.deb "$out/"
