#!/usr/bin/env bash
# Does what the README says, as a newcomer: in a bare Debian 12 root with git, make and python3 alone.
#
#   sudo tests/machine/bare-root.sh [FOLDER [demo] [test]]
#
# FOLDER keeps the pristine root between runs (default: a new one under /tmp). The clone is of HEAD. pip, npm
# and apt are given the certificates and settings of the host, nothing else. Takes some fifteen minutes.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
work=${1:-$(mktemp -d /tmp/bare-root.XXXXXX)}
root=$work/root
shift || true
targets=${*:-demo test}
seconds=25

command -v debootstrap >/dev/null || { apt-get update && apt-get install -y debootstrap; }
if [ ! -f "$work/pristine.tar" ]; then
  rm -rf "$root"
  debootstrap --variant=minbase --include=git,make,python3,ca-certificates bookworm "$root"
  tar -C "$root" -cf "$work/pristine.tar" .
fi
cleanup() {
  for at in dev/shm dev/pts proc; do ! mountpoint -q "$root/$at" || umount -l "$root/$at"; done
  rm -rf --one-file-system "$root"
}
trap cleanup EXIT
cleanup
mkdir -p "$root"
tar -C "$root" -xf "$work/pristine.tar"
mount -t proc proc "$root/proc"
mkdir -p "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t devpts devpts "$root/dev/pts"
cp /etc/resolv.conf /etc/hosts "$root/etc/"
cp -rT /etc/apt/sources.list.d "$root/etc/apt/sources.list.d" 2>/dev/null || true
cp -rT /etc/apt/apt.conf.d "$root/etc/apt/apt.conf.d" 2>/dev/null || true
# The host's certificates stand beside Debian's own, which apt may renew.
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/host-certificates.crt"
cp "$(npm config get userconfig 2>/dev/null || echo /dev/null)" "$root/root/.npmrc" 2>/dev/null || true
git clone -q "$here" "$root/root/edge-gateway"

bundle=/etc/ssl/host-certificates.crt
inside() {
  # A newcomer's shell: no virtual environment, no tools of the host on the PATH.
  env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    PIP_CERT="$bundle" SSL_CERT_FILE="$bundle" NODE_EXTRA_CA_CERTS="$bundle" REQUESTS_CA_BUNDLE="$bundle" \
    $(env | grep -E '^(PIP_INDEX_URL|https?_proxy|HTTPS?_PROXY|no_proxy|NO_PROXY)=' || true) \
    chroot "$root" bash -c "cd /root/edge-gateway && $1"
}
for target in $targets; do
  echo "== make $target, on $(date -u)"
  if [ "$target" = demo ]; then
    inside "make .venv/run"
    # A newcomer looks for a while and presses Ctrl-C.
    inside "timeout -s INT $seconds make demo" || [ $? -eq 124 ]
  else
    inside "make $target"
  fi
done
echo "== done, on $(date -u)"
