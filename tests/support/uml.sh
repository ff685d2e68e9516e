#!/bin/sh
# Runs a command under a kernel with NFS, on a machine whose own kernel lacks it: Debian's user-mode-linux.
#
#   uml.sh run COMMAND   runs the text COMMAND in a shell, as root of a Debian 12; prints its output, and returns its exit status
#   uml.sh clean         removes the kernel and the disk
#
# A run sees the checkout as /src. Its disk, processes and network are its own and end with it.
# Needs root, e2fsprogs, and what chroots.sh needs; apt-get has to know a package user-mode-linux.
set -eu

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/slurm-usage-history-exporter-tests/uml
SRC=$(cd "$(dirname "$0")/../.." && pwd)
MEMORY=3G

build() {
    [ ! -e "$CACHE/disk" ] || return 0
    base=$("$SRC/tests/support/chroots.sh" build bookworm)
    mkdir -p "$CACHE"
    half=$(mktemp -d "$CACHE/half.XXXXXX")
    trap 'rm -rf --one-file-system "$half"' EXIT
    (cd "$half" && apt-get -qq -o APT::Sandbox::User=root download user-mode-linux && dpkg-deb -x user-mode-linux_*.deb uml)
    cp -a "$base" "$half/root"
    unshare --mount --pid --fork --kill-child sh -eu "$0" fill "$half/root" >"$CACHE/log" 2>&1 ||
        { echo "uml: failed, see $CACHE/log" >&2; exit 1; }
    mkdir -p "$half/root/lib/modules"
    cp -a "$half"/uml/usr/lib/uml/modules/* "$half/root/lib/modules/"
    chroot "$half/root" depmod "$(ls "$half/root/lib/modules")"
    cp "$0" "$half/root/uml.sh"
    printf '#!/bin/sh\nexec sh -eu /uml.sh inside\n' >"$half/root/init.sh"
    chmod 755 "$half/root/init.sh"
    mke2fs -q -t ext4 -d "$half/root" "$half/disk" 4G
    mv "$half/uml/usr/bin/linux.uml" "$CACHE/linux"
    mv "$half/disk" "$CACHE/disk"
    rm -rf --one-file-system "$half"
    trap - EXIT
}

fill() {
    mount -t proc proc "$1/proc"
    mount --rbind /dev "$1/dev"
    cp /etc/resolv.conf "$1/etc/resolv.conf"
    chroot "$1" sh -eu -c 'apt-get update; DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        nfs-kernel-server kmod; apt-get clean'
}

run() {
    build
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
    printf '%s\n' "$1" >"$out/command"
    # The disk stays as it was built: what a run writes goes into a file beside it.
    "$CACHE/linux" "ubd0=$out/changes,$CACHE/disk" "mem=$MEMORY" root=/dev/ubda rw init=/init.sh con=null con0=null,fd:1 \
        "src=$SRC" "out=$out" </dev/null >"$out/console" 2>&1 &
    machine=$!
    trap 'kill "$machine"; exit 1' HUP INT TERM
    wait "$machine" || true
    [ -e "$out/code" ] || { cat "$out/console" >&2; exit 1; }
    cat "$out/log"
    exit "$(cat "$out/code")"
}

# Process 1 inside; the kernel hands over $src and $out.
inside() {
    export PATH=/opt/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
    mount -t proc proc /proc
    grep -q 'User Mode Linux' /proc/cpuinfo # at the end it powers the machine off
    mount -t sysfs sysfs /sys
    mkdir -p /dev/pts /dev/shm /src /out
    mount -t devpts devpts /dev/pts
    for folder in /run /tmp /dev/shm; do mount -t tmpfs tmpfs "$folder"; done
    ln -sf /proc/self/fd /dev/fd
    ip link set lo up
    hostname uml
    # shellcheck disable=SC2154  # from the kernel's command line
    mount -t hostfs none /src -o "ro,$src"
    # shellcheck disable=SC2154
    mount -t hostfs none /out -o "$out"
    mount --make-rprivate /
    for module in nfsd nfsv4 veth bridge fuse overlay; do modprobe "$module"; done
    sh /out/command >/out/log 2>&1 && code=0 || code=$?
    echo "$code" >/out/code
    sync
    echo o >/proc/sysrq-trigger
    sleep infinity
}

clean() { rm -rf --one-file-system "$CACHE"; }

case "${1:-}" in
    run | clean | fill | inside) "$@" ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
