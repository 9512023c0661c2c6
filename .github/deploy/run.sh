#!/usr/bin/env bash
# Upgrades a ring: RING is a file of rings/, without .txt. What runs there now is taken from the newest release.
#
#   run.sh RING FOLDER        with SSH_KEY and KNOWN_HOSTS, and GH_TOKEN to read releases
set -euo pipefail
ring=$1 packages=$2
here=$(cd "$(dirname "$0")" && pwd)
file=$here/rings/$ring.txt
case "$ring" in *[!a-z0-9-]*) echo "$ring is no name of a ring" >&2; exit 1 ;; esac
[ -f "$file" ] || { echo "there is no ring $file" >&2; exit 1; }
if ! grep -qv '^[[:space:]]*\(#\|$\)' "$file"; then
    echo "the ring $ring has no box yet: nothing to upgrade"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 077
printf '%s\n' "$SSH_KEY" > "$work/key"
printf '%s\n' "$KNOWN_HOSTS" > "$work/known_hosts"
mkdir "$work/previous"
# Asked for first: a gh that is not there, or a token that is refused, is not taken for a repository without a release.
released=$(gh release list --exclude-drafts --exclude-pre-releases --limit 1)
if [ -n "$released" ]; then
    gh release download --dir "$work/previous" --pattern '*.deb'
else
    echo "there is no release yet to go back to"
fi
remote="ssh -i $work/key -o IdentitiesOnly=yes -o UserKnownHostsFile=$work/known_hosts -o StrictHostKeyChecking=yes"
remote="$remote -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15 {box} sudo -n"
python3 "$here/deploy.py" --ring "$file" --packages "$packages" --previous "$work/previous" --remote "$remote"
