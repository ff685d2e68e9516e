#!/bin/sh
# Installs missing requirements of the tests and the demo from Debian's or Ubuntu's packages.
#
#   provision.sh [python|lint|slurm|monitoring|proxies|install|packages|chroots|machine|containers]...
#                    all but the last three, if none is named
#
# Only what is missing is installed; nothing is upgraded, removed or started. Exits 0 if everything is installed;
# otherwise reports what cannot be installed and why, and exits 1.
set -eu
PATH=/usr/local/sbin:$PATH:/usr/sbin:/sbin

say() { printf '%s\n' "provision: $*" >&2; }
err() { say "$*"; exit 1; }

has() { command -v "$1" >/dev/null; }

missing=''
need_cmd() { has "$1" || missing="$missing $2"; } # COMMAND PACKAGE

want_python() {
    need_cmd python3 python3
    # Debian splits the standard library: venv exists, but can't create an environment with pip in it.
    python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
}

want_lint() {
    need_cmd shellcheck shellcheck
    need_cmd systemd-analyze systemd
    need_cmd openssl openssl
}

want_slurm() {
    need_cmd munged munge
    need_cmd mariadbd mariadb-server
    need_cmd slurmdbd slurmdbd
    need_cmd slurmctld slurmctld
    need_cmd slurmd slurmd
    need_cmd sacct slurm-client
    need_cmd flock util-linux
    need_cmd ss iproute2
    need_cmd strace strace
}

want_monitoring() {
    need_cmd promtool prometheus
    need_cmd prometheus-node-exporter prometheus-node-exporter
    need_cmd man man-db
    need_cmd zsh zsh
}

want_proxies() {
    need_cmd nginx nginx
    need_cmd squid squid
    need_cmd tinyproxy tinyproxy
    need_cmd openssl openssl
}

want_packages() {
    need_cmd dpkg-deb dpkg
    need_cmd rpmbuild rpm
    need_cmd lintian lintian
    need_cmd rpmlint rpmlint
    need_cmd debootstrap debootstrap
}

want_containers() {
    need_cmd podman podman
    need_cmd runc runc
}

want_install() { need_cmd systemd-analyze systemd; }

want_chroots() {
    need_cmd debootstrap debootstrap
    need_cmd unshare util-linux
}

want_machine() {
    need_cmd debootstrap debootstrap
    need_cmd systemd-nspawn systemd-container
    need_cmd ip iproute2
    need_cmd openssl openssl
}

# Packages start their services as soon as they are installed, unless this script forbids it.
forbid_services() {
    policy=/usr/sbin/policy-rc.d
    [ ! -e "$policy" ] || return 0
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}

install_packages() { # PACKAGE...
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq -o DPkg::Lock::Timeout=300 update &&
        apt-get -qq -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends --no-upgrade --no-remove "$@"
}

main() {
    [ $# -gt 0 ] || set -- python lint slurm monitoring proxies install packages
    for group in "$@"; do
        case $group in
        python | lint | slurm | monitoring | proxies | install | packages | chroots | machine | containers) "want_$group" ;;
        *) err "no group $group; there are: python lint slurm monitoring proxies install packages chroots machine containers" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    has apt-get || err "missing:$missing; without apt-get, please install the like by hand"
    [ "$(id -u)" = 0 ] || err "missing:$missing; only root can install packages"
    forbid_services
    say "installing$missing"
    # shellcheck disable=SC2086  # a list of package names
    said=$(install_packages $missing 2>&1) || err "apt-get could not install$missing:
$said"
}

main "$@"
