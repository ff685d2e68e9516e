#!/bin/sh
# Adapts the exporter to this host: creates the spool and the configuration if they are missing, makes the user that
# slurmctld runs as their owner, and sets that user in the systemd units. Packages run it at installation. Run it
# again as root after installing Slurm or changing SlurmUser. It never edits slurm.conf and never restarts Slurm. It
# writes only what is missing or wrong, so that it also works where /etc is complete and read-only.
#
#   adapt               the host's own cluster
#   adapt INSTANCE      another cluster or dashboard: see docs/instances.md
#
# Environment: SLURM_USER overrides SlurmUser; SLURM_CONF is the slurm.conf of the instance.
set -u
umask 022
LC_ALL=C && export LC_ALL # elsewhere, [A-Z] can include letters with accents

NAME=slurm-usage-history-exporter
HOOK=/usr/libexec/$NAME/jobcomp.sh
EXAMPLE=/usr/share/$NAME/config.toml.example
PYTHON=/usr/libexec/$NAME/python
PROGRAM=/usr/share/$NAME
CONFS='/etc/slurm/slurm.conf /etc/slurm-llnl/slurm.conf /opt/slurm/etc/slurm.conf'
LABEL='# Written by slurm-usage-history-exporter'

say() { printf '%s\n' "$@"; }
err() { say "adapt: $1" >&2 && exit "${2:-1}"; }
stop() { # after a command has printed its error
    err "stopped there. Run $0${instance:+ $instance} again once that is possible;
  on a system whose /etc is read-only, run it where the image is built"
}

check_instance() { # sets the paths and names that systemd, the hook and the command use for an instance
    case $instance in
    -* | *[!A-Za-z0-9_-]*) err "$instance: an instance is named with letters, digits, - and _" 2 ;;
    environment) err "$instance: the file /etc/$NAME/environment has this name" 2 ;;
    esac
    [ ${#instance} -le 64 ] || err "the name of an instance has at most 64 characters" 2
    etc=/etc/$NAME${instance:+/$instance}
    spool=/var/spool/$NAME${instance:+@$instance}
    services="$NAME${instance:+@$instance} $NAME-flush${instance:+@$instance}"
}

find_conf() { # exports SLURM_CONF if the instance has its own, named now or when it was created
    if [ -n "$instance" ] && [ -z "${SLURM_CONF:-}" ] && [ -e "$etc/environment" ]; then
        is_roots "$etc/environment" || err "users other than root can change $etc/environment: give it to root"
        SLURM_CONF=$(sed -n 's/^SLURM_CONF=//p' "$etc/environment")
    fi
    [ -z "${SLURM_CONF:-}" ] || export SLURM_CONF
}

# root's scontrol loads the plugins that slurm.conf names. In a folder of its own, the Slurm user could name any slurm.conf.
is_roots() { # FILE: a regular file that nobody but root can change
    case $(stat -c %u:%g:%A "$1") in 0:*:-????-??-? | 0:0:-???????-?) ;; *) false ;; esac
}

# The Slurm user controls what slurmctld prints, so control characters are removed before root's terminal shows it.
plain() { LC_ALL=C tr -cd '\012\040-\176'; }

slurm_setting() { # KEY: its value according to slurmctld, or else slurm.conf
    value=$(reported_setting "$1")
    say "${value:-$(conf_setting "$1")}"
}

conf_setting() { # KEY: its last value in slurm.conf, which root controls
    conf_lines "$(conf_file)" | sed -n "s/^[[:blank:]]*$1[[:blank:]]*=[[:blank:]]*//Ip" |
        sed 's/[[:blank:]#].*//; s/"//g' | tail -n 1 | plain
}

conf_file() { # prints nothing if there is none
    for file in "${SLURM_CONF:-}" $CONFS; do
        if [ -r "$file" ]; then say "$file" && return; fi
    done
}

# The same as in install.sh, which has to work without this file.
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

reported_setting() { # KEY: its value according to slurmctld, which the Slurm user controls
    timeout 30 scontrol show config 2>/dev/null | sed -n "s/^$1 *= *//p" | sed 's/([0-9]*)$//' | head -n 1 | plain
}

find_user() { # sets $user and, if that user exists, $owner as numbers
    PATH=$PATH:/usr/sbin:/opt/slurm/bin:/usr/local/slurm/bin:/cm/shared/apps/slurm/current/bin
    reported_user=''
    user=${SLURM_USER:-$(conf_setting SlurmUser)}
    [ -n "$user" ] || user=$(reported_setting SlurmUser) reported_user=$user
    user=${user:-slurm}
    case $user in -* | *[!A-Za-z0-9._@-]*) err "SlurmUser $user: not a name" ;; esac
    user=$(id -un "$user" 2>/dev/null || say "$user") # slurm.conf may contain a uid
    [ -z "$reported_user" ] || check_reported
    owner=$(id -u "$user" 2>/dev/null):$(id -g "$user" 2>/dev/null) || owner=''
}

# slurmctld alone cannot give the configuration, which may contain commands of its present owner, to another user.
check_reported() {
    for place in "$etc/config.toml" "$etc/config.json" "$spool"; do
        [ -e "$place" ] || continue
        before=$(stat -c %U "$place")
        case $before in
        root | "$user") ;;
        *) err "$place belongs to $before, but slurmctld reports SlurmUser=$user.
  If that is correct, confirm it: sudo SLURM_USER=$user $0${instance:+ $instance}" ;;
        esac
    done
}

make_places() {
    mkdir -p "$etc" || stop
    { mkdir -p "$spool" && chmod 750 "$spool"; } || stop
    # In a folder of its own, the Slurm user could plant a link to any file and so become its owner.
    for folder in "/etc/$NAME" "$etc"; do
        case $(stat -L -c %U:%G:%A "$folder") in
        root:root:d????-??-?) ;;
        *)
            { chown root:root "$folder" && chmod go-w "$folder"; } || stop
            # Root would write through such a link, and systemd would read through one named environment.
            find "$folder" -mindepth 1 -maxdepth 1 -type l ! -user 0 ! -name 'config.*' -delete || stop
            ;;
        esac
    done
    [ -e "$etc/config.json" ] || [ -e "$etc/config.toml" ] || install -m 600 "$EXAMPLE" "$etc/config.toml" || stop
    [ -z "$instance" ] || [ -e "$etc/jobcomp.sh" ] || write_hook
    if [ -n "$instance" ] && [ -n "${SLURM_CONF:-}" ] && [ ! -e "$etc/environment" ]; then
        say "$LABEL: the slurm.conf of this instance." "SLURM_CONF=$SLURM_CONF" >"$etc/environment" || stop
    fi
}

write_hook() { # the script for slurmctld: jobcomp/script passes neither arguments nor environment
    cat >"$etc/jobcomp.sh" <<EOF || stop
#!/bin/sh
# JobCompLoc of the slurmctld whose jobs go to the instance $instance.
# For a second dashboard add another line like this one, with the spool of that instance.
SLURM_USAGE_HISTORY_SPOOL=$spool $HOOK
exit 0
EOF
    chmod 755 "$etc/jobcomp.sh"
}

give_away() { # does not follow links, which the spool's owner could have planted
    for file in "$etc/config.toml" "$etc/config.json"; do
        if [ ! -f "$file" ] || [ -L "$file" ] || [ "$(stat -c %h "$file")" != 1 ]; then continue; fi
        [ "$(stat -c %u:%g:%a "$file")" = "$owner:600" ] || { chmod 600 "$file" && chown -h "$owner" "$file"; } || stop
    done
    if [ "$(stat -c %u:%g "$spool")" != "$owner" ]; then # a previous owner may have linked other files here
        find "$spool" -xdev -maxdepth 1 '(' -type d -o -type f -links 1 ')' -exec chown -h "$owner" {} + || stop
    fi
    # By number, because systemd-tmpfiles runs before name services are up.
    put_file "/etc/tmpfiles.d/$NAME${instance:+@$instance}.conf" "$LABEL." "d $spool 0750 $(say "$owner" | tr : ' ') -"
}

# Several controllers take turns through a folder in StateSaveLocation. The Slurm user creates it, because a file server
# may squash root.
make_common_folder() { # sets $common; empty if there is only one controller
    common=''
    has_backup || return 0
    state=$(slurm_setting StateSaveLocation)
    case $state in [!/]* | *[!A-Za-z0-9/._@+-]* | '') return 0 ;; esac
    common=$state/$NAME
    # In a separate session without a terminal: otherwise the child could type commands into root's (TIOCSTI).
    timeout 60 setsid -w runuser -u "$user" -- mkdir -p -m 700 "$common" </dev/null >/dev/null 2>&1 ||
        say "$user cannot create $common: see docs/controllers.md"
}

has_backup() {
    [ -n "$(slurm_setting 'SlurmctldHost\[1\]')" ] ||
        [ "$(conf_lines "$(conf_file)" | grep -ci '^[[:blank:]]*SlurmctldHost[[:blank:]]*=')" -gt 1 ]
}

configure_units() { # the units have User=slurm, and their sandbox allows access to the spool only
    for service in $services; do
        folder=/etc/systemd/system/$service.service.d
        put_drop_in slurm-user "$([ "$user" = slurm ] || say "User=$user")"
        put_drop_in controllers "${common:+ReadWritePaths=-$common}"
    done
    [ ! -d /run/systemd/system ] || systemctl --quiet daemon-reload
}

put_drop_in() { # NAME LINE: writes LINE to $folder; removes the file if LINE is empty
    if [ -n "$2" ]; then
        put_file "$folder/$1.conf" "$LABEL." '[Service]' "$2"
    elif [ -e "$folder/$1.conf" ]; then
        rm "$folder/$1.conf" || stop
        rmdir "$folder" 2>/dev/null
    fi
}

put_file() { # FILE LINE...: writes the lines if the file does not contain them yet
    file=$1
    shift
    [ "$(cat "$file" 2>/dev/null)" != "$(say "$@")" ] || return 0
    { mkdir -p "${file%/*}" && say "$@" >"$file"; } || stop
}

# Writes the packaged program's bytecode for the host's Python. Packages for other Pythons may not compile, and are not used.
compile_program() {
    [ -x "$PYTHON" ] || return 0
    mkdir -p "/var/cache/$NAME" && "$PYTHON" -m compileall -q "$PROGRAM" >/dev/null 2>&1
}

label() { ! command -v restorecon >/dev/null || restorecon -R "$etc" "$spool" "/var/cache/$NAME"; }

main() {
    [ $# -le 1 ] || err 'usage: adapt [INSTANCE]' 2
    instance=${1:-}
    check_instance
    [ "$(id -u)" = 0 ] || err 'needs root'
    compile_program
    find_conf
    find_user
    make_places
    if [ -n "$owner" ]; then
        give_away
        make_common_folder
        configure_units
    else
        say "There is no user $user yet. Once Slurm is installed, run: sudo $0${instance:+ $instance}"
    fi
    label
    if [ -n "$instance" ] && [ -n "$owner" ]; then
        say "Instance $instance: configuration in $etc, spool $spool, owned by $user." \
            "Set its hook in slurm.conf: JobCompLoc=$etc/jobcomp.sh"
    fi
}

main "$@"
