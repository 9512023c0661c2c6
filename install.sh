#!/bin/sh
# Installs edge-gateway from this folder on a systemd machine that cannot take the Debian package. Safe to repeat.
#
#   sudo ./install.sh                  installs or upgrades: a venv in /opt/edge-gateway, the same unit as the package
#   sudo ./install.sh --force          makes the venv anew; configuration and store stay
#   sudo ./install.sh --uninstall      removes the program; configuration and store stay
#   sudo ./install.sh --uninstall --delete-data        removes configuration, secrets, logs and store too
#
# The libraries are those of the package, by hash, from pip's registry or, with PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER,
# from files. PYTHON names another interpreter than python3 (3.11 to 3.13).
set -eu
umask 022

OPT=/opt/edge-gateway
LINK=/usr/local/bin/edge-gateway
UNIT=/etc/systemd/system/edge-gateway.service
ETC=/etc/edge-gateway
STATE=/var/lib/edge-gateway
LOGS=/var/log/edge-gateway
MARK=$OPT/installed-by-install.sh
SYSCTL=/etc/sysctl.d/60-edge-gateway.conf
MAN=/usr/local/share/man/man1/edge-gateway.1
COMPLETION=/usr/local/share/bash-completion/completions/edge-gateway

say() { echo "install.sh: $*"; }
fail() { echo "install.sh: $*" >&2; exit 1; }

force='' uninstall='' delete_data=''
for argument in "$@"; do
    case "$argument" in
    --force) force=yes ;;
    --uninstall) uninstall=yes ;;
    --delete-data) delete_data=yes ;;
    -h|--help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) fail "unknown argument $argument; see --help" ;;
    esac
done
[ -z "$delete_data" ] || [ -n "$uninstall" ] || fail "--delete-data goes with --uninstall alone"
[ "$(id -u)" = 0 ] || fail "run it with sudo"
if dpkg-query -W -f '${Status}' edge-gateway 2>/dev/null | grep -q ' installed$'; then
    fail "the Debian package edge-gateway is installed here; remove it first: apt-get remove edge-gateway"
fi

remove() {
    systemctl disable --now edge-gateway.service 2>/dev/null || true
    rm -f "$UNIT" "$LINK" "$SYSCTL" "$MAN" "$COMPLETION"
    rm -rf "$OPT"
    systemctl daemon-reload
}

# Also where it is a link, and where it is a disk of its own: that is emptied. What a purge kept there stays.
erase() {
    folder=$(readlink -f "$1" || true)
    if [ -d "$folder" ]; then
        find "$folder" -depth ! -path '*/edge-gateway.kept-*' ! -path '*/lost+found*' \
            \( ! -type d -o -empty ! -exec mountpoint -q {} \; \) -delete
    fi
    if [ -L "$1" ]; then rm "$1"; fi
}

if [ -n "$uninstall" ]; then
    store=
    if [ -L "$STATE/.store" ]; then store=$(readlink -f "$STATE/.store" || true); fi
    remove
    if [ -n "$delete_data" ]; then
        if [ -n "$store" ]; then
            rm -rf "$store/hot.db" "$store"/hot.db-* "$store"/hot.db.* "$store/history" "$store/store.lock" \
                "$store/reserve" "$store/restoring" "$store"/replaced-[0-9]*
        fi
        erase "$STATE"
        erase "$LOGS"
        if [ -L "$ETC" ]; then rm "$ETC"; else erase "$ETC"; fi
        rm -rf /etc/systemd/system/edge-gateway.service.d
        say "removed, with configuration and store"
    else
        say "removed; configuration ($ETC) and store ($STATE) stay"
    fi
    exit 0
fi

cd "$(dirname "$0")"
[ -f debian/requirements.lock ] || fail "run it from the folder of the source"
PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
    fail "$PYTHON is not Python 3.11, 3.12 or 3.13; name one: PYTHON=/usr/bin/python3.12 ./install.sh"
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || fail "python's venv is missing: apt-get install python3-venv"

# A newer version may have changed the store in a way that this one cannot read.
before=$(readlink "$OPT/current" 2>/dev/null || true)
version=$(sed -n '1s/^edge-gateway (\([^)]*\)).*/\1/p' debian/changelog)
installed=$(cat "$before/version" 2>/dev/null || echo "$version")
newest=$(printf '%s\n' "$installed" "$version" | sort -V | tail -n 1)
if [ "$newest" != "$version" ] && [ -z "${EDGE_GATEWAY_ALLOW_DOWNGRADE:-}" ]; then
    echo "edge-gateway: refusing to go back from version $installed to $version: the store may be of a form that" \
        "$version cannot read." >&2
    echo "Install $installed or newer. If the store was restored from a backup made by $version or older, or was" >&2
    echo "purged, set EDGE_GATEWAY_ALLOW_DOWNGRADE=1 for this one installation." >&2
    exit 1
fi

# A venv holds its own path, so it is made where it stays: beside the one that runs, which is kept until the new one
# works. The link is what is exchanged.
new=$OPT/$(date +%Y%m%d-%H%M%S)-$$
trap 'rm -rf "$new"; rmdir "$OPT" 2>/dev/null || true' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$OPT"
if [ -n "$force" ] && [ -n "$before" ]; then say "making the program anew; $STATE is not touched"; fi
"$PYTHON" -m venv "$new"
pip() { "$new/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
sources=$(sed -n 's/^SOURCES = "\(.*\)"/\1/p' debian/bundle.py)
pip install --no-deps --require-hashes --only-binary :all: -r debian/tools.lock
pip install --no-deps --require-hashes --no-build-isolation --use-pep517 --only-binary :all: --no-binary "$sources" \
    -r debian/requirements.lock
copy=$new/source
mkdir -p "$copy/debian"
cp -r gateway pyproject.toml setup.py README.md "$copy/"
cp debian/changelog "$copy/debian/"
pip install --no-deps --no-build-isolation --no-index "$copy"
rm -rf "$copy"
"$new/bin/edge-gateway" settings >/dev/null || fail "the program does not start; nothing was changed"
mkdir "$new/share"
cp -r systemd/networkd "systemd/sysctl.d/${SYSCTL##*/}" "systemd/${UNIT##*/}" config/gateway.schema.json "$new/share/"
SOURCE_DATE_EPOCH=$(date +%s)
export SOURCE_DATE_EPOCH
"$new/bin/python" debian/manual.py man > "$new/share/edge-gateway.1"
"$new/bin/python" debian/manual.py bash > "$new/share/completion.bash"
echo "$version" > "$new/version"

getent passwd edge-gateway >/dev/null ||
    useradd --system --user-group --home-dir "$STATE" --no-create-home --shell /usr/sbin/nologin edge-gateway
install -d -m 755 "$ETC"
install -d -m 700 "$ETC/secrets"
[ -e "$ETC/gateway.yaml" ] || install -m 644 config/starter.yaml "$ETC/gateway.yaml"
cp install.sh "$OPT/install.sh"
chmod 755 "$OPT/install.sh"
# The package refuses by it: it is there only where there is something to remove, and what removes it.
: > "$MARK"

switch() {
    ln -sfn "$1" "$OPT/current.new"
    mv -T "$OPT/current.new" "$OPT/current"
}

# Makes a program the one that runs.
run() {
    switch "$1"
    ln -sfn "$OPT/current/bin/edge-gateway" "$LINK"
    mkdir -p "${MAN%/*}" "${COMPLETION%/*}" "${SYSCTL%/*}"
    ln -sfn "$OPT/current/share/edge-gateway.1" "$MAN"
    ln -sfn "$OPT/current/share/completion.bash" "$COMPLETION"
    install -m 644 "$1/share/${SYSCTL##*/}" "$SYSCTL"
    # At boot systemd does it; where the kernel's settings are not ours (a container), it is left as it is.
    [ ! -d /run/systemd/system ] || /lib/systemd/systemd-sysctl "${SYSCTL##*/}" || true
    install -m 644 "$1/share/${UNIT##*/}" "$UNIT"
    systemctl daemon-reload
    systemctl enable --quiet edge-gateway.service
    systemctl restart edge-gateway.service
}

go_back() {
    trap - EXIT
    if [ -z "$before" ] || [ ! -d "$before" ]; then
        fail "it is installed, but does not start, see above or: journalctl -u edge-gateway"
    fi
    say "version $version does not start, see above or: journalctl -u edge-gateway" >&2
    switch "$before"
    rm -rf "$new" # first: the disk may be full
    if ! run "$before"; then fail "and version $installed, which it is again, does not start either"; fi
    fail "version $installed runs again"
}

trap go_back EXIT
run "$new"
trap - EXIT
for folder in "$OPT"/[0-9]*; do
    if [ "$folder" != "$new" ]; then rm -rf "$folder"; fi
done
say "installed; edit $ETC/gateway.yaml, then: systemctl reload edge-gateway"
