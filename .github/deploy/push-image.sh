#!/usr/bin/env bash
# Pushes a list of images, and gives its digest to the steps that follow.
#
#   push-image.sh LIST NAME:TAG        with REGISTRY_TOKEN, GITHUB_ACTOR and GITHUB_OUTPUT of GitHub's
set -euo pipefail
list=$1 image=${2,,}
[ -n "${image%%/*}" ] || { echo "$image names no registry: set the variable IMAGE_REGISTRY" >&2; exit 1; }
printf '%s' "$REGISTRY_TOKEN" | buildah login --username "$GITHUB_ACTOR" --password-stdin "${image%%/*}"
trap 'buildah logout "${image%%/*}"' EXIT
buildah manifest push --all --digestfile digest.txt "$list" "docker://$image"
echo "digest=$(cat digest.txt)" >> "$GITHUB_OUTPUT"
rm digest.txt
