#!/bin/sh
# Debian systems with different versions of Slurm, cached as folders, and a way to run a command inside one.
#
#   chroots.sh list                 every suite, with its version of Slurm
#   chroots.sh build SUITE          creates the folder if it is missing, and prints its path
#   chroots.sh run SUITE COMMAND…   runs COMMAND inside (building first), with its exit status
#   chroots.sh try SUITE COMMAND…   the same; if the folder cannot be built in time, warns and exits 0
#   chroots.sh clean                removes every folder
#
# A run sees the checkout read-only as /src, and the folder $OUT, if it is set, as /out.
# It has its own mounts, processes, host name ("node") and network (only loopback), and writes to memory:
# whatever COMMAND starts or mounts ends with it, and the folder stays unchanged.
# Needs root, debootstrap and, to build, a Debian mirror ($MIRROR, or the one this machine uses)
# and PyPI.
set -eu

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/slurm-usage-history-exporter-tests/chroots
PACKAGES=slurmctld,slurmdbd,slurmd,slurm-client,mariadb-server,munge,python3,python3-venv,iproute2,procps,tzdata,make
TEST_TOOLS='pytest pytest-timeout hypothesis requests tomli tqdm prometheus-client'
BUILD_SECONDS=600 # for try: a mirror may hang
SRC=$(cd "$(dirname "$0")/../.." && pwd)

say() { printf '%s\n' "chroots: $*" >&2; }
err() { say "$*"; exit 1; }
need_cmd() { command -v "$1" >/dev/null || err "needs the command $1 (Debian package $2)"; }

# A folder is for one list of packages and tools; another list gets another folder.
recipe() { printf '%s %s' "$PACKAGES" "$TEST_TOOLS" | cksum | cut -d' ' -f1; }

list() {
    echo 'bullseye 20.11'
    echo 'bookworm 22.05'
    echo 'trixie 24.11'
    echo 'sid 26.05'
}

build() {
    folder=$CACHE/$1-$(recipe)
    if [ ! -d "$folder" ]; then
        list | grep -q "^$1 " || err "no suite $1; there are: $(list | cut -d' ' -f1 | tr '\n' ' ')"
        [ "$(id -u)" = 0 ] || err 'needs root'
        need_cmd debootstrap debootstrap
        mkdir -p "$CACHE"
        half=$(mktemp -d "$CACHE/.$1.XXXXXX")
        chmod 755 "$half"
        trap 'rm -rf --one-file-system "$half"' EXIT
        trap 'exit 1' HUP INT TERM
        say "building $1 (some minutes, once)"
        # debootstrap and the package scripts mount things, which disappear with a mount namespace.
        unshare --mount --pid --fork --kill-child sh -eu "$0" fill "$1" "$half" >"$CACHE/$1.log" 2>&1 ||
            err "failed, see $CACHE/$1.log"
        mv "$half" "$folder"
        trap - EXIT
    fi
    echo "$folder"
}

# Inside build's namespace: the system itself, then the test tools.
fill() {
    # Post-install scripts must not start daemons, on a machine that may run its own.
    debootstrap --variant=minbase --include="$PACKAGES" "$1" "$2" "${MIRROR:-$(host_mirror)}"
    enter "$2"
    cp /etc/resolv.conf "$2/etc/resolv.conf"
    # Behind a proxy that re-encrypts traffic, only the host's bundle has the authority of the site.
    bundle=/etc/ssl/certs/ca-certificates.crt
    mkdir -p "$2${bundle%/*}"
    cp "$bundle" "$2$bundle"
    # shellcheck disable=SC2086  # TEST_TOOLS is a list
    PIP_CERT=$bundle chroot "$2" sh -eu -c 'python3 -m venv /opt/venv; /opt/venv/bin/pip install --quiet "$@"' - $TEST_TOOLS
    rm -rf "$2/var/cache/apt/archives" "$2/var/lib/apt/lists"
}

# The mirror that this machine's own packages come from.
# shellcheck disable=SC2016  # apt expands it
host_mirror() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1; }

enter() {
    mount -t proc proc "$1/proc"
    mount --rbind /dev "$1/dev"
    mount --rbind /sys "$1/sys" 
    mount -t tmpfs tmpfs "$1/run"
}

run() {
    folder=$(build "$1")
    shift
    exec unshare --mount --pid --net --uts --ipc --fork --kill-child sh -eu "$0" inside "$folder" "$@"
}

# For CI, which must not fail if a mirror is unreachable, or a suite has changed to another Slurm.
try() {
    suite=$1
    shift
    wanted=$(list | sed -n "s/^$suite //p")
    there=$(timeout "$BUILD_SECONDS" sh "$0" run "$suite" slurmctld -V) || there='no system'
    case $there in
    slurm*" $wanted."*) run "$suite" "$@" ;;
    *) printf '%s\n' '' "!!! NOT TESTED: Slurm $wanted of Debian $suite: there is $there !!!" '' >&2 ;;
    esac
}

# Inside run's namespaces: an overlay in memory over the built folder.
inside() {
    folder=$1
    shift
    hostname node
    sh "$SRC/tests/support/loopback.sh"
    scratch=$CACHE/scratch
    mkdir -p "$scratch"
    mount -t tmpfs tmpfs "$scratch"
    mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
    mount -t overlay overlay -o "lowerdir=$folder,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
    root=$scratch/root
    enter "$root"
    printf '127.0.0.1 localhost node\n' >"$root/etc/hosts"
    mkdir "$root/src"
    mount --bind "$SRC" "$root/src"
    mount -o remount,bind,ro "$root/src"
    if [ -n "${OUT:-}" ]; then
        mkdir "$root/out"
        mount --bind "$OUT" "$root/out"
    fi
    # Not exec: this shell is process 1 in here and has to reap what COMMAND's daemons leave behind.
    chroot "$root" /usr/bin/env -i PATH=/opt/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
        PYTHONDONTWRITEBYTECODE=1 "$@"
}

clean() { rm -rf --one-file-system "$CACHE"; }

case "${1:-}" in
    list | build | run | try | clean | fill | inside) "$@" ;;
    *) sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
