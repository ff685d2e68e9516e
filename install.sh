#!/bin/sh
# Installs, upgrades or removes slurm-usage-history-exporter: see --help. It is safe to run again at any time. It never
# changes slurm.conf, never restarts Slurm, and keeps the configuration, the queue and the ledger.
set -u
umask 022

NAME=slurm-usage-history-exporter
SYSTEM_SPOOL=/var/spool/$NAME
EXTRAS='[metrics,progress]'
SERVICES="$NAME.service $NAME-flush.service"
TIMERS="$NAME.timer $NAME-flush.timer"
WATCH="$NAME-flush.path"
UNITS="$SERVICES $TIMERS $WATCH $NAME-flush-soon.timer $NAME-flush-soon.target"
# For the instances that `adapt` creates: docs/instances.md.
TEMPLATES="$NAME@.service $NAME@.timer $NAME-flush@.service $NAME-flush@.timer $NAME-flush@.path"
TEMPLATES="$TEMPLATES $NAME-flush-soon@.timer $NAME-flush-soon@.target"
INSTANCES="$NAME@*.timer $NAME-flush@*.timer $NAME-flush@*.path"
PACKAGED=/usr/share/$NAME
MANUAL="man/man8/$NAME.8 bash-completion/completions/$NAME.bash zsh/site-functions/_$NAME"
# `check` prints the same text.
RESTART_MEANS='running jobs continue, and it first finishes all pending hook calls'
RESTART_MEANS="$RESTART_MEANS (this can take minutes after a burst; sdiag does not show them)"

usage() {
    cat <<EOF
Usage: sudo ./install.sh [OPTION]...

Installs into /opt/$NAME, with the configuration in /etc and the spool
in /var/spool. An older version is replaced only after the new one has been tested.

  --api-url URL        set up for this dashboard, with one of
    --deploy-key FILE    a file that holds a one-time key; - reads it from standard input
    --api-key-file FILE  a file that holds the API key
  --enable             start the timers now and at every boot
  --user               install for the current user only, in ~/.local and ~/.config; needs no root
  --prefix DIR         put the program into DIR/$NAME instead of /opt
  --wheelhouse DIR     take Python packages from DIR, and nothing from the network
  --no-systemd         use cron, which starts the runs at once: install a cron file, or with --user print its lines
  --uninstall          remove the program, but keep configuration and spool
  --purge              remove everything, including undelivered jobs
  --dry-run            print every action and do nothing
  --help               print this

Environment: PYTHON, the Python to use; SLURM_USER, the user that slurmctld runs as, if slurmctld cannot be asked;
SLURM_USAGE_HISTORY_SPOOL, another spool; DESTDIR, a folder to install into as if it were /, to build packages.
EOF
}

say() { printf '%s\n' "$@"; } # a line for each argument
err() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}
need_cmd() { command -v "$1" >/dev/null || err "needs the command $1 (package $2)"; }

run() { # COMMAND...: runs it, or prints it in a dry run
    if [ "$dry_run" = yes ]; then say "+ $*"; else "$@"; fi
}
ensure() { run "$@" || err "failed: $*"; }

make_folder() { # FOLDER: creates it with its parents, and lists the new ones, so that --uninstall can remove them
    missing='' above=$1
    until [ -d "$above/" ]; do
        missing="${above#"$root"} $missing" above=${above%/*}
    done
    [ -n "$missing" ] || return 0
    run mkdir -p "$1" || cannot_make "$1"
    # shellcheck disable=SC2086  # a list
    [ "$dry_run" = yes ] || say $missing >>"$root$program/folders" || err "cannot write $program/folders"
}

cannot_make() { # FOLDER
    case $1 in
    "$root$program"*) err "cannot create ${1#"$root"}. If ${program%/*} is read-only, choose another folder: --prefix DIR" ;;
    *) err "cannot create ${1#"$root"}" ;;
    esac
}

put() { # MODE FILE: writes standard input to FILE atomically
    make_folder "${2%/*}"
    if [ "$dry_run" = yes ]; then
        say "+ write $2 (mode $1)"
    else
        # A previous owner of the folder may have left a link with this name.
        { rm -f "$2.new" && (umask 077 && cat >"$2.new") && chmod "$1" "$2.new" && mv -f "$2.new" "$2"; } ||
            err "cannot write $2"
    fi
}

# --- options

parse_options() {
    mode=install dry_run=no for_user=no systemd=yes enable=no set_up_failed=no
    prefix='' wheelhouse='' api_url='' deploy_key='' api_key_file=''
    while [ $# -gt 0 ]; do
        case $1 in
        --api-url | --deploy-key | --api-key-file | --prefix | --wheelhouse)
            [ $# -gt 1 ] || err "$1 needs a value; see --help"
            take_value "$1" "$2"
            shift
            ;;
        --user) for_user=yes ;;
        --no-systemd) systemd=no ;;
        --enable) enable=yes ;;
        --uninstall) mode=uninstall ;;
        --purge) mode=purge ;;
        --dry-run) dry_run=yes ;;
        -h | --help) usage && exit 0 ;;
        *) err "unknown option ${1%%=*}; see --help" ;;
        esac
        shift
    done
    case $api_url,$deploy_key,$api_key_file in
    ,, | ?*,?*, | ?*,,?*) ;;
    *) err '--api-url needs either --deploy-key or --api-key-file' ;;
    esac
}

take_value() { # OPTION VALUE
    case $1 in
    --api-url) api_url=$2 ;;
    --deploy-key)
        deploy_key=-
        [ "$2" = - ] || deploy_key=$(absolute "$2")
        # The value is not printed: it may be the key itself.
        [ "$deploy_key" = - ] || [ -f "$deploy_key" ] ||
            err '--deploy-key takes - (standard input) or a file. Every user can see a key on the command line.'
        ;;
    --api-key-file) api_key_file=$(absolute "$2") ;;
    --prefix) prefix=$(absolute "$2") ;;
    --wheelhouse) wheelhouse=$(absolute "$2") ;;
    esac
}

absolute() {
    case $1 in
    /*) say "${1%/}" ;;
    *) say "${start%/}/${1%/}" ;;
    esac | tr -s /
}

# Leaves the current folder, which may belong to any user, so that no file is looked up in it.
leave_folder() { # sets $start, the folder that was left, and $sources, the folder of install.sh
    unset CDPATH PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE PYTHONINSPECT PYTHONEXECUTABLE PYTHONPYCACHEPREFIX
    unset PYTHONPLATLIBDIR PYTHONWARNINGS PYTHONBREAKPOINT
    start=$(pwd -P) && cd / || exit 1
    keep_pip_settings # only now: it calls commands, and PATH may name that folder
    case $0 in
    /*) sources=${0%/*} ;;
    */*) sources=$start/${0%/*} ;;
    *) sources=$start ;;
    esac
    sources=$(cd "$sources/" && pwd -P) || err 'cannot find the folder of install.sh'
    [ -z "${DESTDIR:-}" ] || DESTDIR=$(absolute "$DESTDIR")
    [ -z "${SLURM_CONF:-}" ] || SLURM_CONF=$(absolute "$SLURM_CONF")
    case ${PYTHON:-} in
    */*) PYTHON=$(cd "$start" && cd "${PYTHON%/*}/" && pwd -P)/${PYTHON##*/} ;;
    esac
}

# Keeps only the caller's pip settings that say where packages are; their hashes are checked. Other settings could make pip
# write elsewhere (PIP_TARGET) or run another Python (PIP_PYTHON).
keep_pip_settings() {
    for name in $(env | sed -n 's/^\(PIP_[A-Za-z_]*\)=.*/\1/p'); do
        case ${name#PIP_} in
        INDEX_URL | EXTRA_INDEX_URL | FIND_LINKS | NO_INDEX | TRUSTED_HOST | CERT | CLIENT_CERT | PROXY) ;;
        TIMEOUT | DEFAULT_TIMEOUT | RETRIES) ;;
        *) unset "$name" ;;
        esac
    done
    unset XDG_CONFIG_DIRS
}

check_rights() {
    [ "$for_user" = yes ] || [ -n "$root" ] || [ "$dry_run" = yes ] || [ "$(id -u)" = 0 ] ||
        err 'needs root: run it with sudo, or use --user to install for the current user only'
}

# --- paths; $root precedes a path that is used here, but not one that is written into a file

find_places() {
    root=${DESTDIR:-}
    [ -n "$wheelhouse" ] || [ ! -d "$sources/wheelhouse" ] || wheelhouse=$sources/wheelhouse
    if [ "$for_user" = yes ]; then
        [ -n "${HOME:-}" ] || err '--user installs into HOME, which is not set'
        user_config=${XDG_CONFIG_HOME:-$HOME/.config}
        sudo='' manager=' --user'
        etc=$user_config/$NAME units=$user_config/systemd/user link=$HOME/.local/bin/$NAME share=$HOME/.local/share
        usual_prefix=$share usual_spool=$HOME/.local/state/$NAME
        stamps=$HOME/.local/share/systemd/timers
    else
        sudo='sudo ' manager=''
        etc=/etc/$NAME units=/etc/systemd/system link=/usr/local/bin/$NAME share=/usr/local/share
        usual_prefix=/opt usual_spool=$SYSTEM_SPOOL
        stamps=/var/lib/systemd/timers
    fi
    cron=/etc/cron.d/$NAME
    phase=$(($(uname -n | cksum | cut -d' ' -f1) % 290)) # seconds, different on each machine, to spread the load
    prefix=${prefix:-$(installed_prefix)}
    program=${prefix:-$usual_prefix}/$NAME
    hook=$program/bin/jobcomp.sh
    spool=${SLURM_USAGE_HISTORY_SPOOL:-$(installed_spool)}
    spool=${spool:-$usual_spool}
    for place in "$program" "$spool" "$etc"; do
        case $place in
        [!/]* | *[!A-Za-z0-9/._@+-]* | */.. | */../*) err "$place: must be an absolute path of letters, digits and . _ @ + -" ;;
        esac
    done
}

# Root must not write, delete or chown anything under a path that another user could redirect.
check_places() {
    [ "$(id -u)" = 0 ] || return 0
    for place in "$program" "${spool%/*}" "${etc%/*}" "$units" "${link%/*}" "$share"; do check_owners "$place"; done
    for place in "$spool" "$etc"; do
        [ ! -L "$root$place" ] || err "$place is a link: replace it with a folder, or name the folder that it points to"
    done
    [ -z "$root" ] && [ "$mode" = install ] || return 0
    for place in "$sources" ${wheelhouse:+"$wheelhouse"}; do check_copy "$place"; done
}

# The owner of this copy has chosen to run it as root. Nobody else may be able to change it.
check_copy() { # FOLDER
    owner=$(stat -c %u "$sources")
    check_owners "$1" "$owner"
    own_group=$(private_group "$sources")
    changed=$(find "$1" -name '.?*' ! -path "$1" -prune -o '(' -type f -o -type d ')' \
        '(' ! -user 0 ! -user "$owner" -o -perm -002 -o -perm -020 ! -group 0 ! -group "${own_group:-0}" ')' -print |
        head -n 1)
    [ -z "$changed" ] || refuse_strangers "$changed"
}

private_group() { # FILE: prints its gid if the group is named after the owner, who is its only member on EL and Ubuntu
    # shellcheck disable=SC2046  # three words
    set -- $(stat -c '%g %U %G' "$1")
    [ "$2" != "$3" ] || [ "$2" = UNKNOWN ] || say "$1"
}

refuse_strangers() { # FILE
    err "users other than root can change ${1#"$root"}, and with it what root installs.
  Give it to root (chown root, chmod go-w), or choose another folder"
}

check_owners() { # PATH [UID]: each part of it, links included, must belong to root or to that user
    todo=$1 way='' hops=0
    while [ -n "$todo" ]; do
        todo=${todo#/} step=${todo%%/*}
        case $todo in */*) todo=/${todo#*/} ;; *) todo='' ;; esac
        case $step in
        '' | .) continue ;;
        ..) way=${way%/*} && continue ;;
        esac
        here=$root$way/$step
        [ -e "$here" ] || [ -L "$here" ] || return 0 # root will create it
        nobody_else_changes "$here" "${2:-0}" || refuse_strangers "$here"
        if [ -z "$root" ] && [ -L "$here" ] && hops=$((hops + 1)) && [ $hops -le 40 ]; then
            target=$(readlink "$here")
            case $target in /*) way='' ;; esac
            todo=/$target$todo
        else
            way=$way/$step
        fi
    done
}

nobody_else_changes() { # FILE UID: only root and that user can. Debian's group staff, for /usr/local, counts as root
    # shellcheck disable=SC2046  # three words
    set -- "$1" "$2" $(stat -c '%u %g 0%a' "$1")
    [ "$3" = 0 ] || [ "$3" = "$2" ] || return
    [ ! -L "$1" ] && [ $(($5 & 01000)) = 0 ] || return 0 # with the sticky bit, users can change only their own files
    [ $(($5 & 02)) = 0 ] || return
    [ $(($5 & 020)) != 0 ] || return 0
    case $1 in "$root/usr/local"*) return ;; esac
    [ "$4" = 0 ] || [ "$4" = "$(private_group "$1")" ] || return
    case $(ls -ld "$1") in ??????????+*) false ;; esac # an ACL may grant access to anyone
}

installed_prefix() { # found by following the command's link, so that an upgrade keeps it
    target=$(readlink "$root$link") && case $target in
    */"$NAME/venv/bin/$NAME") say "${target%"/$NAME/venv/bin/$NAME"}" ;;
    esac
}

# shellcheck disable=SC2016  # the hook's own line, verbatim
installed_spool() { sed -n 's/^: "${SLURM_USAGE_HISTORY_SPOOL:=\(.*\)}"$/\1/p' "$root$hook" 2>/dev/null; }

refuse_over_package() { # our units and command would hide the package's, and both would use the same spool
    [ "$for_user" = yes ] || [ ! -d "$root$PACKAGED" ] ||
        err "a package of $NAME is installed: upgrade that, or remove it first (its configuration and spool stay)"
}

# --- Slurm

find_slurm() { # sets $user and $group, which the exporter will run as, and $slurm_config, slurmctld's settings
    PATH=$PATH:/usr/sbin:/opt/slurm/bin:/usr/local/slurm/bin:/cm/shared/apps/slurm/current/bin
    slurm_config='' reported_user=''
    user=${SLURM_USER:-$(conf_setting SlurmUser)} # root's file takes precedence over slurmctld, which the Slurm user runs
    slurm_config=$(timeout 30 scontrol show config 2>/dev/null | plain)
    [ -n "$user" ] || user=$(slurm_setting SlurmUser) reported_user=$user
    user=${user:-slurm}
    state=$(slurm_setting StateSaveLocation)
    case $state in [!/]* | *[!A-Za-z0-9/._@+-]*) state='' ;; esac # it is inserted into a unit and into sed's commands
    case $user in -* | *[!A-Za-z0-9._@-]*) err "SlurmUser is '$user', which is not a name" ;; esac
    user=$(id -un "$user" 2>/dev/null || say "$user") # slurm.conf may have its number
    [ "$for_user" = no ] || user=$(id -un)
    group=$(id -gn "$user" 2>/dev/null) || [ -n "$root" ] ||
        err "there is no user $user: set SLURM_USER to the user that slurmctld runs as"
}

# The Slurm user controls what slurmctld prints. Removes control characters before the text reaches root's terminal.
plain() { LC_ALL=C tr -cd '\011\012\040-\176'; }

slurm_setting() { # KEY: its value according to slurmctld, or else slurm.conf
    if [ -n "$slurm_config" ]; then slurmctld_setting "$1"; else conf_setting "$1"; fi
}

slurmctld_setting() { slurmctld_values "$1" | head -n 1; } # KEY
slurmctld_values() { # KEY: all its values; EpilogSlurmctld may have several
    say "$slurm_config" | sed -n "s/^$1 *= *//p" | sed 's/([0-9]*)$//; /^(null)$/d'
}

conf_setting() { conf_values "$@" | tail -n 1; } # KEY [FILE]: its last value in slurm.conf
conf_values() { # KEY [FILE]
    conf_lines "${2:-$(conf_file)}" | sed -n "s/^[[:blank:]]*$1[[:blank:]]*=[[:blank:]]*//Ip" |
        sed 's/[[:blank:]#].*//; s/"//g' | plain
}

conf_lines() ( # FILE [FOLDER [DEPTH]]: prints slurm.conf, with the files that it includes in their places
    folder=${2:-${1%/*}} depth=${3:-8}
    [ -f "$1" ] && [ -r "$1" ] && [ "$depth" -gt 0 ] || exit 0
    while read -r line || [ -n "$line" ]; do
        say "$line"
        case $line in [Ii][Nn][Cc][Ll][Uu][Dd][Ee][[:blank:]]*) ;; *) continue ;; esac
        names=$(say "$line" | sed -n 's/^include[[:blank:]]\{1,\}"\{0,1\}\([^"#[:blank:]]*\).*/\1/Ip')
        case $names in /* | '') ;; *) names=$folder/$names ;; esac
        for file in $names; do conf_lines "$file" "$folder" $((depth - 1)); done # it may be a pattern
    done <"$1"
)

conf_file() {
    reported=$(slurmctld_setting SLURM_CONF)
    case $reported in [!/]* | *[!A-Za-z0-9/._@%+-]*) reported='' ;; esac # it is inserted into commands that root is asked to run
    [ -z "$reported" ] || is_safe "$reported" || reported=''
    for file in "$reported" "${SLURM_CONF:-}" /etc/slurm/slurm.conf /etc/slurm-llnl/slurm.conf /opt/slurm/etc/slurm.conf; do
        if [ -f "$file" ] && [ -r "$file" ]; then say "$file" && return; fi
    done
    say /etc/slurm/slurm.conf
}

# If SlurmUser has changed, root must confirm it: the new user would run commands that the previous one could configure.
check_user() {
    [ -n "$reported_user" ] && [ -z "$root" ] && [ "$for_user" = no ] || return 0
    for place in "$etc/config.toml" "$etc/config.json" "$spool"; do
        [ -e "$place" ] || continue
        before=$(stat -c %U "$place")
        case $before in
        root | "$user") ;;
        *) err "$place belongs to $before, but slurmctld reports SlurmUser=$user.
  If that is correct, confirm it: ${sudo}SLURM_USER=$user ./install.sh" ;;
        esac
    done
}

# A process that shares root's terminal could type commands into it (TIOCSTI). This one therefore gets a separate session,
# and no open file of that terminal.
said=/dev/null
as_user() { # COMMAND...: runs it as the user that the exporter will run as; its output goes to the file $said
    if [ "$(id -u)" = 0 ] && [ "$user" != root ] && [ -z "$root" ]; then
        set -- setsid -w runuser -u "$user" -- env -i PATH="$PATH" "$@"
    fi
    timeout 60 "$@" </dev/null >"$said" 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
}

make_common_folder() { # for the controllers' turns; the services' sandbox allows nothing else in StateSaveLocation
    [ -z "$root" ] && [ "$for_user" = no ] && [ -d "$state" ] && has_backup || return 0
    run as_user mkdir -p -m 700 "$state/$NAME" || say "$user cannot create $state/$NAME: see docs/controllers.md"
}

has_backup() {
    if [ -n "$slurm_config" ]; then
        say "$slurm_config" | grep -q '^SlurmctldHost\[1\]'
    else
        [ "$(conf_lines "$(conf_file)" | grep -ci '^[[:blank:]]*SlurmctldHost')" -gt 1 ]
    fi
}

give_away() { # FILE...: changes the owner to that user
    [ -n "$root" ] || [ "$for_user" = yes ] || ensure chown -h "$user:$group" "$@"
}

check_writable() { # the places that are written last, so that a read-only /usr leaves nothing half installed
    [ "$dry_run" = no ] || return 0
    for place in "$spool" "$etc" "${link%/*}" "$share"; do
        above=$root$place
        until [ -d "$above/" ]; do above=${above%/*}; done
        [ -w "$above/" ] || err "cannot write to ${above#"$root"}, and has changed nothing.
  If it is always read-only, install where the image is built."
    done
}

# --- Python

find_python() { # sets $python to the newest one that works; the first in PATH may be readable by root only
    if [ -n "${PYTHON:-}" ]; then
        python=$(command -v "$PYTHON") || python=''
        is_safe "$python" || err "users other than root can change $python, or a folder above it"
        can_do "$python" && return
    else
        for version in $(seq -f 3.%g 40 -1 8) 3; do
            for folder in $(say "$PATH" | tr : ' '); do
                python=$folder/python$version
                if [ -x "$python" ] && is_safe "$python" && can_do "$python"; then return; fi
            done
        done
    fi
    err "needs Python 3.8 or later with venv, ssl and sqlite3, which the user $user can run. Install it:
  $(how_to_get_python)
  or choose one: ${sudo}PYTHON=/path/to/python3.x ./install.sh"
}

can_do() { # PYTHON
    modules='venv, ssl, sqlite3'
    has_pip_wheel || modules="$modules, ensurepip"
    [ -n "$1" ] && as_user "$1" -I -c "import sys, $modules; sys.exit(sys.version_info < (3, 8))"
}

is_safe() { # FILE: nobody but root can change it
    [ "$(id -u)" != 0 ] || [ -n "$root" ] || (check_owners "$1") 2>/dev/null
}

has_pip_wheel() { ls "$wheelhouse"/pip-*.whl >/dev/null 2>&1; }

how_to_get_python() {
    # shellcheck source=/dev/null  # the distribution's own description
    case $(. /etc/os-release 2>/dev/null && say "${ID:-} ${ID_LIKE:-}") in
    *debian*) say 'apt install python3-venv' ;;
    *rhel* | *fedora*) say 'dnf install python3.12' ;;
    *suse*) say 'zypper install python311' ;;
    *) say "install your distribution's newest Python" ;;
    esac
}

# --- the program: a new environment beside the old one, which it replaces once it has been tested

install_program() {
    new=venv-$(date +%Y%m%d-%H%M%S)
    say "installing into $program with $python"
    build=$root$program/.build # not in $TMPDIR, which may belong to anyone
    make_folder "$root$program/bin"
    trap 'rm -rf "$build" "$root$program/$new"' EXIT
    trap 'exit 1' HUP INT TERM
    ensure rm -rf "$build"
    run mkdir -p "$build" || cannot_make "$build"
    make_environment "$root$program/$new"
    try "$root$program/$new/bin/python" -I -c 'import agent.cli, agent.spool.ledger, requests'
    old=$(readlink "$root$program/venv")
    ensure ln -sfn "$new" "$root$program/venv.new"
    ensure mv -fT "$root$program/venv.new" "$root$program/venv"
    trap 'rm -rf "$build"' EXIT
    remove_others "$new" "$old"
}

make_environment() { # FOLDER
    pip_wheel=$(has_pip_wheel && ls "$wheelhouse"/pip-*.whl)
    environment=$1
    if [ -n "$pip_wheel" ]; then # pip runs from its wheel: a Debian without python3-venv has no pip to install
        ensure "$python" -I -m venv --without-pip "$1"
    else
        ensure "$python" -I -m venv "$1"
    fi
    case $wheelhouse in
    '') # builds the exporter from a copy, because a build leaves files in its folder
        ensure cp -R "$sources/agent" "$sources/pyproject.toml" "$sources/README.md" "$sources/LICENSE" "$build"
        pip_install --require-hashes --no-deps -r "$(pinned)" -r "$sources/etc/requirements/build.txt"
        pip_install --no-index --no-deps --no-build-isolation "$build"
        ;;
    "$sources/wheelhouse")
        pip_install --no-index --find-links "$wheelhouse" --require-hashes --no-deps -r "$(pinned)"
        pip_install --no-index --no-deps "$wheelhouse"/slurm_usage_history_exporter-*.whl
        ;;
    *) pip_install --no-index --find-links "$wheelhouse" "$NAME$EXTRAS" ;;
    esac
    [ -z "$root" ] || # what was built in DESTDIR must work without it
        ensure find "$1" -maxdepth 2 -type f '(' -path '*/bin/*' -o -name pyvenv.cfg ')' -exec sed -i "s|$root||g" {} +
    # Nothing of the caller's environment, such as PYTHONPATH, is imported.
    [ "$dry_run" = yes ] || ensure sed -i '1s|^\(#!/[^ ]*python[0-9.]*\)$|\1 -I|' "$1/bin/$NAME"
}

pinned() { # prints the requirements file, with hashes, for $python, or the newest file if $python is newer than all
    version=$("$python" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    file=$sources/etc/requirements/$version.txt
    [ -e "$file" ] || file=$(find "$sources/etc/requirements" -name '3.*.txt' | sort -V | tail -n 1)
    say "$file"
}

pip_install() { # PIP-OPTION...: runs no code of a package while installing it
    proxy=${HTTPS_PROXY:-${https_proxy:-}}
    if [ -n "$pip_wheel" ]; then set -- "$pip_wheel/pip" install "$@"; else set -- -m pip install "$@"; fi
    set -- "$environment/bin/python" -I "$@" --quiet --no-input --disable-pip-version-check --only-binary :all:
    # sudo may keep HOME, and a pip.conf in another user's home could name a Python to run.
    roots_home=~root
    [ "$(id -u)" != 0 ] || set -- env -u XDG_CONFIG_HOME HOME="$roots_home" "$@"
    run "$@" ||
        err "pip failed; the previous installation is unchanged.
  ${proxy:+HTTPS_PROXY is ${proxy##*@}. }If PyPI cannot be reached, install from the bundle (make bundle), or use --wheelhouse."
}

try() { # COMMAND...
    said=$build/said
    [ "$dry_run" = yes ] || as_user "$@" || {
        head -c 4000 "$said" | plain >&2
        err "the user $user cannot run the new version; the previous installation is unchanged"
    }
}

remove_others() { # NEW OLD: a run may still be using OLD, so the next upgrade removes it
    for folder in "$root$program"/venv-*; do
        case ${folder##*/} in
        "$1" | "${2:-$1}" | 'venv-*') ;;
        *) ensure rm -rf "$folder" ;;
        esac
    done
}

# --- the other files

install_files() {
    make_folder "$root$spool"
    [ "$dry_run" = yes ] || [ -d "$root$spool" ] || err "$spool is not a folder"
    ensure chmod 750 "$root$spool"
    give_away "$root$spool"
    make_common_folder
    install_hook
    put 755 "$root$program/install.sh" <"$sources/install.sh"
    [ "$for_user" = yes ] || install_adapt
    put 644 "$root$program/config.toml.example" <"$sources/etc/config.toml.example"
    sed "s|^hook=.*|hook=$hook|" "$sources/etc/hooks/call-both.sh" | put 644 "$root$program/call-both.sh" || exit 1
    make_folder "$root${link%/*}"
    ensure ln -sfn "$program/venv/bin/$NAME" "$root$link"
    for file in $MANUAL; do # each is in another folder below etc/
        put 644 "$root$share/$file" <"$(say "$sources"/etc/*/"${file##*/}")"
    done
    install_config
    if [ "$systemd" = yes ]; then install_units; else install_cron; fi
    [ -n "$root" ] || ! command -v restorecon >/dev/null || ensure restorecon -R "$program" "$spool" "$etc"
}

# In a folder named bin, from which SELinux allows services to run programs.
# shellcheck disable=SC2016  # the hook's own line, verbatim
install_hook() { # an unchanged hook is not rewritten: from its age, `check` knows whether slurmctld can have seen it
    hook_was_there=no
    if [ -x "$root$hook" ]; then hook_was_there=yes; fi
    new_hook=$(sed 's|^\(: "${SLURM_USAGE_HISTORY_SPOOL:=\).*|\1'"$spool"'}"|' "$sources/hooks/jobcomp.sh") || exit 1
    [ "$hook_was_there,$new_hook" = "yes,$(cat "$root$hook" 2>/dev/null)" ] ||
        say "$new_hook" | put 755 "$root$hook" || exit 1
}

install_adapt() { # creates instances; packages contain it, too
    sed -e "s|/usr/libexec/\$NAME/jobcomp.sh|$hook|" -e "s|/usr/share/\$NAME/|$program/|" \
        "$sources/etc/packaging/adapt.sh" | put 755 "$root$program/bin/adapt" || exit 1
}

install_config() { # sets $config
    keep_folder
    for config in "$etc/config.toml" "$etc/config.json"; do
        if [ -L "$root$config" ] || has_other_names "$root$config"; then
            say "keeping $config, which is a link: its target must belong to $user and have mode 600"
            return
        elif [ -f "$root$config" ]; then
            say "keeping $config"
            ensure chmod 600 "$root$config"
            give_away "$root$config"
            return
        fi
    done
    config=$etc/config.toml
    { cat "$sources/etc/config.toml.example" && local_settings; } | put 600 "$root$config" || exit 1
    give_away "$root$config"
}

has_other_names() { [ -f "$1" ] && [ "$(stat -c %h "$1")" != 1 ]; } # hard links: another one may be /etc/shadow

keep_folder() { # makes root its owner: the Slurm user could link to any file in it, and root would change that file's owner
    make_folder "$root$etc"
    [ -z "$root" ] && [ "$for_user" = no ] || return 0
    ensure chown root:root "$etc" && ensure chmod go-w "$etc"
    # systemd would follow a link named environment as root, and show the Slurm user the variables that it finds.
    ensure find "$etc" -mindepth 1 -maxdepth 1 -type l ! -user 0 ! -name 'config.*' -delete
}

local_settings() { # the paths that differ from the program's defaults on this machine
    [ "$spool" = "$SYSTEM_SPOOL" ] || say "spool_dir = \"$spool\""
    for tool in sacct scontrol; do
        case $(command -v $tool) in
        '' | /usr/bin/* | /usr/local/bin/* | /bin/*) ;;
        *) say "$tool = \"$(command -v $tool)\"" ;;
        esac
    done
}

install_units() {
    for unit in $UNITS $TEMPLATES; do
        adapt "$sources/etc/systemd/$unit" | put 644 "$root$units/$unit" || exit 1
    done
    ensure rm -f "$root$cron"
    if manager_runs; then
        # shellcheck disable=SC2086  # a list
        { control daemon-reload && control try-restart $TIMERS $WATCH $INSTANCES; } || err 'systemd rejects the units'
    fi
}

adapt() { # FILE: prints it with this machine's user and paths
    sed -e "s|-/var/spool/slurmctld/$NAME|-${state:-/var/spool/slurmctld}/$NAME|" \
        -e "s|^User=slurm|User=$user|" -e "s|/opt/$NAME|$program|g" -e "s|/var/spool/$NAME|$spool|g" \
        -e "s|/etc/$NAME|$etc|g" -e "s| slurm sleep 42;| $user sleep $phase;|" \
        -e "s| slurm sleep 252;| $user sleep $((6 * phase));|" \
        "$1" | if [ "$for_user" = yes ]; then
        # A user's systemd cannot change users, has other targets, and may be unable to set up the sandbox.
        sed -e '/^User=/d' -e '/network-online/d' -e 's/multi-user.target/default.target/' -e '/^# Sandbox/,$d'
    else
        cat
    fi
}

manager_runs() { # whether a systemd is running that can load the units
    [ -z "$root" ] && [ -d /run/systemd/system ] &&
        { [ "$for_user" = no ] || systemctl --user show-environment >/dev/null 2>&1; }
}

control() { # COMMAND...: systemctl, of the system or of the user
    # shellcheck disable=SC2086  # an option or none
    run systemctl $manager --quiet "$@"
}

install_cron() {
    remove_units
    if [ "$for_user" = yes ]; then
        say 'add these lines with crontab -e:'
        adapt "$sources/etc/cron/$NAME" | sed -n "s/^\\([0-9*].*\\) $user sleep/  \\1 sleep/p"
    else
        adapt "$sources/etc/cron/$NAME" | put 644 "$root$cron" || exit 1
    fi
}

# --- setting up

set_up() {
    [ -n "$api_url" ] || return 0
    if ! [ "$dry_run" = yes ] && ! grep -q your-secret-api-key "$root$config"; then
        say "$config is set up already; for another dashboard or key: $NAME setup"
        return 0
    fi
    set -- "$root$program/venv/bin/$NAME" --config "$root$config" setup --api-url "$api_url"
    trap : INT # Ctrl-C ends the prompt for the key, but the next steps are still printed
    if [ -n "$api_key_file" ]; then
        run "$@" --api-key-file "$api_key_file" || set_up_failed=yes
    else
        run "$@" --deploy-key "$deploy_key" || set_up_failed=yes
    fi
    trap 'exit 1' INT
}

enable_timers() {
    [ "$enable,$systemd,$set_up_failed" = yes,yes,no ] || return 0
    set --
    if [ -n "$root" ]; then
        set -- --root "$root"
    elif manager_runs; then
        set -- --now
    elif [ "$for_user" = yes ]; then
        return 0 # systemd cannot be reached: print_timers says what to do
    fi
    # shellcheck disable=SC2086  # a list
    control "$@" enable $TIMERS || err 'the timers cannot be enabled'
}

# --- next steps for the admin

print_next_steps() {
    command=$sudo$NAME
    command -v "$NAME" >/dev/null || command=$sudo${link%/*}/$NAME # sudo on EL does not look into /usr/local/bin
    if [ "$set_up_failed" = yes ]; then
        say '' 'NOT SET UP: the program, its hook and its units are installed, but there is no API key. Continue with:' \
            "    $command setup --api-url $api_url --deploy-key -" \
            'A deploy key works only once: if it was accepted, get another from the dashboard. Or use --api-key-file FILE.' ''
    elif [ "$dry_run" = no ]; then
        say '' 'Done.'
        ! grep -q your-secret-api-key "$root$config" || say "Fill in $config."
    fi
    print_hook
    if [ "$systemd" = yes ]; then print_timers; else print_cron; fi
    [ -n "$root" ] || [ -e "$spool/ledger.db" ] ||
        say "To deliver the jobs of the last week: $command reconcile" \
            "To deliver everything since a day: $command --start-date 2024-01-01"
    say "Check the installation: $command check"
    [ "$set_up_failed" = no ]
}

print_hook() {
    if names_hook slurmctld_values; then
        if [ "$hook_was_there" = yes ]; then
            say 'slurm.conf names the hook already.'
        else
            say 'slurm.conf names the hook already, but when slurmctld looked for it, it was not installed yet.'
            print_restart
        fi
    elif names_hook conf_values; then
        say "$(conf_file) names the hook already, but slurmctld has not read that line yet."
        print_restart
    elif [ "$for_user" = no ] || [ "$user" = "$(slurm_setting SlurmUser)" ]; then
        print_wiring
    else
        say "Slurm's hook cannot write to your spool, so the daily reconcile delivers all jobs. Set in $config:" \
            '    status_coverage_percent = [0, 0]'
    fi
}

names_hook() ( # READER, slurmctld_values or conf_values: whether it names the hook, or a script that calls the hook
    set -f
    for script in $("$1" JobCompLoc) $("$1" 'EpilogSlurmctld[][0-9]*' | tr , ' '); do
        [ "$script" != "$hook" ] || exit 0
        # slurmctld may name anything, such as an option with which sed writes files, or a FIFO.
        case $script in /*) [ -f "$script" ] || continue ;; *) continue ;; esac
        if sed 's/^[[:blank:]]*#.*//' "$script" 2>/dev/null | grep -qF "$hook"; then exit 0; fi
    done
    exit 1
)

print_wiring() { # prints the same lines as `check`, which keep the site's own script or plugin
    jobcomp=$(slurm_setting JobCompType) location=$(slurm_setting JobCompLoc)
    epilog=$(slurm_setting 'EpilogSlurmctld[][0-9]*')
    case ${jobcomp##*/},$epilog in
    ,* | none,*)
        print_lines '' "JobCompType=jobcomp/script" "JobCompLoc=$hook"
        ;;
    script,*)
        if [ -e "$location" ]; then
            print_both JobCompLoc "$location"
        else
            print_lines ", instead of JobCompLoc=$location" "JobCompLoc=$hook"
        fi
        ;;
    *,)
        print_lines ", because JobCompType is used by $jobcomp" "EpilogSlurmctld=$hook"
        ;;
    *)
        if several_epilogs; then
            print_lines ", beside the line with $epilog, which stays" "EpilogSlurmctld=$hook"
        else
            print_both EpilogSlurmctld "$epilog"
        fi
        ;;
    esac
}

print_lines() { # WHERE LINE...
    where=$1
    shift
    say "Add to $(conf_file)$where:"
    for line; do say "    $line"; done
    print_roll_out
}

print_both() { # KEY SCRIPT
    case $2 in
    *[!A-Za-z0-9/._@%+-]*) # unsafe in a command that root is asked to run
        say "$1 is already '$2'. Write a script that calls both, that one and $hook."
        return
        ;;
    esac
    both=$(dirname "$(conf_file)")/call-both.sh
    say "$1 is already $2. Use a script that calls both: $2 is still called, and its exit status is returned." \
        "    sed 's|^site_script=.*|site_script=$2|' $program/call-both.sh | ${sudo}tee $both" \
        "    ${sudo}chmod 755 $both" \
        "and in $(conf_file)" \
        "    $1=$both"
    print_roll_out
}

print_roll_out() {
    say "Nodes compare their slurm.conf with the controller's: distribute it to all of them, as usual."
    print_restart
}

print_restart() { say "Restart slurmctld: $RESTART_MEANS." "    ${sudo}systemctl restart slurmctld"; }

several_epilogs() { # from 24.05 on
    version=$(slurmctld_setting SLURM_VERSION | sed -n 's/^\([0-9][0-9]*\)\.0*\([0-9][0-9]*\).*/\1 \2/p')
    # shellcheck disable=SC2086  # two numbers
    [ -n "$version" ] && set -- $version && [ "$(($1 * 100 + $2))" -ge 2405 ]
}

print_timers() {
    if [ "$for_user" = yes ] && [ -z "$root" ] && ! manager_runs; then
        say 'Your own systemd cannot be reached, because su and sudo open no session. Log in by ssh, or start it as root:' \
            "    sudo loginctl enable-linger $user && export XDG_RUNTIME_DIR=/run/user/$(id -u)" \
            "Then: systemctl --user daemon-reload && systemctl --user enable --now $TIMERS"
        return
    fi
    # shellcheck disable=SC2086  # a list
    is_active $TIMERS || [ "$enable,$set_up_failed" = yes,no ] ||
        say "Start the timers: ${sudo}systemctl$manager enable --now $TIMERS"
    is_active "$WATCH" || say "Optional, to deliver jobs within half a minute: ${sudo}systemctl$manager enable --now $WATCH"
    [ "$for_user" = no ] || [ -n "$root" ] || [ -e "/var/lib/systemd/linger/$user" ] ||
        say "The timers stop when you log out, unless you run: loginctl enable-linger $user"
}

is_active() { # UNIT...: all of them
    manager_runs || return
    for unit; do
        # shellcheck disable=SC2086  # an option or none
        systemctl $manager is-active --quiet "$unit" || return
    done
}

print_cron() {
    [ -n "$root" ] || cat /proc/[0-9]*/comm 2>/dev/null | grep -qxE 'cron|crond|fcron|cronie|busybox-crond' ||
        say 'No cron daemon is running. Install and start one (Debian: apt install cron, EL: dnf install cronie).'
}

# --- removing

# From 24.11 on, slurmctld does not start if a script that slurm.conf names is missing.
check_unwired() {
    [ "$for_user" = no ] || return 0
    hooks=" $hook "
    [ "$mode" = uninstall ] || [ -d "$root$PACKAGED" ] || # --purge removes the hooks of instances, too
        for file in "$root$etc"/*/jobcomp.sh; do hooks="$hooks${file#"$root"} "; done
    for conf in "$(conf_file)" $(sed -n 's/^SLURM_CONF=//p' "$root$etc"/*/environment 2>/dev/null); do
        for script in $(called_scripts "$conf"); do
            case $hooks in *" $script "*) ;; *) continue ;; esac
            err "$conf still names $script, without which slurmctld might not start again.
  Nothing has been removed. Take that line out and run this again; in between,
  restart slurmctld: $RESTART_MEANS."
        done
    done
}

# A script of the site's that calls the hook does not count: it works without the hook.
called_scripts() { # FILE: those that this slurm.conf names, or that slurmctld reports if it is not readable here
    if [ -r "$1" ]; then
        conf_values JobCompLoc "$1" && conf_values 'EpilogSlurmctld[][0-9]*' "$1"
    else
        slurmctld_values JobCompLoc && slurmctld_values 'EpilogSlurmctld[][0-9]*'
    fi | tr , ' '
}

remove() {
    check_unwired
    folders=$(sort -r "$root$program/folders" 2>/dev/null) # innermost first
    remove_units
    ensure rm -f "$root$cron" "$root$link"
    for file in $MANUAL; do ensure rm -f "$root$share/$file"; done
    ensure rm -rf "$root$program"
    if [ "$mode" = purge ] && [ "$for_user" = no ] && [ -d "$root$PACKAGED" ]; then
        say "A package of $NAME is installed, and keeps using $etc and $spool." \
            "Enable its timers: systemctl$manager enable --now $TIMERS"
        mode=uninstall
    fi
    if [ "$mode" = purge ]; then
        for unit in $UNITS; do ensure rm -rf "$root$units/$unit.d"; done
        ensure rm -rf "$root$etc" "$root$usual_spool"@* "$root$units/$NAME"@*.d "$root$units/$NAME"-flush@*.d
        [ "$for_user" = yes ] ||
            ensure rm -f "$root/etc/tmpfiles.d/$NAME.conf" "$root/etc/tmpfiles.d/$NAME"@*.conf
        remove_spool
    fi
    for folder in $folders; do # only if empty: others may have put files there
        [ "$mode,$folder" = "uninstall,$spool" ] || run rmdir "$root$folder" 2>/dev/null
    done
    if [ "$mode,$dry_run" = purge,no ]; then say_what_is_left; fi
    [ "$mode,$dry_run" != uninstall,no ] || say "Kept: $etc and $spool; --purge removes these, too."
    if names_hook slurmctld_values; then
        say "slurmctld still calls $hook, which has been removed."
        print_restart
    fi
}

say_what_is_left() {
    if [ "$for_user" = no ] && [ -n "$state" ] && as_user test -d "$state/$NAME"; then
        say "Kept: $state/$NAME, which the controllers share. When no controller uses it any more: rm -r $state/$NAME"
    else
        say 'Everything has been removed.'
    fi
}

remove_units() {
    if manager_runs; then
        # shellcheck disable=SC2086  # options and patterns
        instances=$(systemctl $manager list-units --all --plain --no-legend $INSTANCES | cut -d' ' -f1)
        for unit in $TIMERS $WATCH $NAME-flush-soon.timer $SERVICES $instances; do
            control disable --now "$unit" 2>/dev/null
        done
    fi
    for unit in $UNITS $TEMPLATES; do
        ensure rm -f "$root$units/$unit" "$root$stamps/stamp-$unit" "$root$units"/*.wants/"$unit"
    done
    ensure rm -f "$root$units"/*.wants/"$NAME"@*.timer "$root$units"/*.wants/"$NAME"-flush@* \
        "$root$stamps/stamp-$NAME"@*.timer
    if manager_runs; then
        control daemon-reload
        for unit in $SERVICES; do control reset-failed "$unit" 2>/dev/null; done
    fi
}

remove_spool() { # if the folder may contain other files, removes only known ones
    case $spool in
    */"$NAME") ensure rm -rf "$root$spool" ;;
    *)
        ensure rm -rf "$root$spool"/queue "$root$spool"/queue.* "$root$spool"/odd.queue* \
            "$root$spool"/agent.lock "$root$spool"/host "$root$spool"/ledger.db*
        run rmdir "$root$spool" 2>/dev/null || say "Kept: $spool, which contains other files."
        ;;
    esac
}

main() {
    leave_folder
    parse_options "$@"
    find_places
    check_rights
    check_places
    find_slurm
    if [ "$mode" != install ]; then
        remove
        return
    fi
    [ -d "$sources/hooks" ] || err 'this copy can only remove the program: install from a clone or a bundle'
    refuse_over_package
    check_user
    need_cmd flock util-linux
    [ "$systemd" = no ] || [ -n "$root" ] || command -v systemctl >/dev/null || err 'systemd was not found: use --no-systemd'
    check_writable
    find_python
    install_program
    install_files
    set_up
    enable_timers
    print_next_steps
}

main "$@"
