#!/bin/sh
# A Debian with systemd and Slurm's packages, cached as a folder, and booted with a temporary layer over it.
#
#   machine.sh build            creates the folder if it is missing, and prints its path
#   machine.sh boot DIR WHEELS  boots it; its changes go to DIR. It sees WHEELS as /wheels, and no network except
#                               its own loopback. Runs until the machine is powered off.
#
# $SUITE is the Debian: bullseye, bookworm (the default) or trixie.
# Needs root, debootstrap, systemd-container and, to build, the Debian mirror ($MIRROR).
set -eu

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/slurm-usage-history-exporter-tests
# The mirror that this machine uses.
# shellcheck disable=SC2016  # apt-get fills that in
MIRROR=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | head -n 1)}
# python3-apt is for Ansible. No python3-venv: many controllers lack it, and cannot download it.
PACKAGES=systemd,systemd-sysv,dbus,slurmctld,slurmdbd,slurmd,slurm-client,mariadb-server,munge,python3,python3-apt,git,iproute2,procps
SUITE=${SUITE:-bookworm}
BASE=$CACHE/machine-$SUITE-$(printf %s "$PACKAGES" | cksum | cut -d' ' -f1)

build() {
    if [ ! -d "$BASE" ]; then
        mkdir -p "$CACHE"
        half=$(mktemp -d "$CACHE/.machine.XXXXXX")
        chmod 755 "$half"
        trap 'rm -rf --one-file-system "$half"' EXIT
        # debootstrap's mounts disappear with a mount namespace.
        unshare --mount --pid --fork --kill-child debootstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$half" \
            "$MIRROR" >"$CACHE/machine-$SUITE.log" 2>&1 || { echo "debootstrap failed: see $CACHE/machine-$SUITE.log" >&2; exit 1; }
        rm -rf "$half/var/cache/apt/archives" "$half/var/lib/apt/lists"
        echo controller >"$half/etc/hostname"
        echo '127.0.0.1 localhost controller' >"$half/etc/hosts"
        mv "$half" "$BASE"
        trap - EXIT
    fi
    echo "$BASE"
}

boot() { # in separate namespaces, which take their mounts and network with them at the end
    exec unshare --mount --net "$0" inside "$@"
}

inside() { # DIR WHEELS
    ip link set lo up
    # Slurm resolves names with AI_ADDRCONFIG, which ignores 127.0.0.1 alone; 192.0.2.1 is for documentation.
    ip address add 192.0.2.1/32 dev lo
    mkdir -p "$1/upper" "$1/work" "$1/root"
    mount -t overlay overlay -o "lowerdir=$BASE,upperdir=$1/upper,workdir=$1/work" "$1/root"
    reboot=133
    ended=$reboot
    while [ $ended = $reboot ]; do
        ended=0
        systemd-nspawn --quiet --boot --register=no --keep-unit --link-journal=no --resolv-conf=off \
            --directory="$1/root" --bind-ro="$2:/wheels" </dev/null || ended=$?
    done
}

case "${1:-}" in
build | boot | inside) "$@" ;;
*) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
