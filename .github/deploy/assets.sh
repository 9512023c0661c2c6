#!/usr/bin/env bash
# Adds to a folder of packages what a release has besides: the SBOM, the image's pinned name, the checksums.
#
#   assets.sh FOLDER REGISTRY/IMAGE@sha256:DIGEST
set -euo pipefail
folder=$1 image=${2,,}
cd "$folder"
packages=(*.deb)
if [ ${#packages[@]} -ne 4 ]; then
    echo "$folder holds ${#packages[@]} packages; two suites and two architectures make four" >&2
    exit 1
fi
for package in "${packages[@]}"; do
    dpkg-deb --fsys-tarfile "$package" | tar -xO ./usr/share/edge-gateway/sbom.cdx.json > "${package%.deb}.cdx.json"
done
echo "$image" > image.txt
sha256sum -- * > SHA256SUMS.new
mv SHA256SUMS.new SHA256SUMS
