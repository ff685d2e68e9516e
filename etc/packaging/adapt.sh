#!/bin/sh
# Fits the exporter to this host: makes the spool and the configuration where they are missing, gives both to the user
# that slurmctld runs as, and tells systemd of that user. Packages run it when they are installed. Run it again as root
# once Slurm is there, or when SlurmUser has changed. It never touches slurm.conf and never restarts Slurm.
#
#   adapt               the host's own cluster
#   adapt INSTANCE      another cluster or dashboard: see docs/instances.md
#
# Environment: SLURM_USER, where slurmctld can't be asked; SLURM_CONF, the slurm.conf of the instance.
set -u
umask 022

NAME=slurm-usage-history-exporter
HOOK=/usr/libexec/$NAME/jobcomp.sh
EXAMPLE=/usr/share/$NAME/config.toml.example
CONFS='/etc/slurm/slurm.conf /etc/slurm-llnl/slurm.conf /opt/slurm/etc/slurm.conf'
LABEL='# Written by slurm-usage-history-exporter'

say() { printf '%s\n' "$@"; }
err() { say "adapt: $1" >&2 && exit "${2:-1}"; }

check_instance() { # sets the places: the names that systemd, the hook and the command take for an instance
    case $instance in
    -* | *[!A-Za-z0-9_-]*) err "$instance: an instance is named with letters, digits, - and _" 2 ;;
    esac
    etc=/etc/$NAME${instance:+/$instance}
    spool=/var/spool/$NAME${instance:+@$instance}
    services="$NAME${instance:+@$instance} $NAME-flush${instance:+@$instance}"
}

find_conf() { # exports SLURM_CONF where the instance has one of its own: named now, or when it was made
    [ -z "$instance" ] || [ -n "${SLURM_CONF:-}" ] ||
        SLURM_CONF=$(sed -n 's/^SLURM_CONF=//p' "$etc/environment" 2>/dev/null)
    [ -z "${SLURM_CONF:-}" ] || export SLURM_CONF
}

# Words of the Slurm user's, who has slurmctld say anything: no control character of theirs reaches root's terminal.
plain() { LC_ALL=C tr -cd '\012\040-\176'; }

slurm_setting() { # KEY: its value by slurmctld, else by slurm.conf
    value=$(told_setting "$1")
    say "${value:-$(conf_setting "$1")}"
}

conf_setting() { # KEY: its value by slurm.conf, which is root's
    for file in "${SLURM_CONF:-}" $CONFS; do
        [ -r "$file" ] || continue
        sed -n "s/^[[:blank:]]*$1[[:blank:]]*=[[:blank:]]*//Ip" "$file" |
            sed 's/[[:blank:]#].*//; s/"//g' | tail -n 1 | plain
        return
    done
}

told_setting() { # KEY: its value by slurmctld, which is the Slurm user's
    timeout 30 scontrol show config 2>/dev/null | sed -n "s/^$1 *= *//p" | sed 's/([0-9]*)$//' | head -n 1 | plain
}

find_user() { # sets $user and, where he exists, $owner as numbers
    PATH=$PATH:/usr/sbin:/opt/slurm/bin:/usr/local/slurm/bin:/cm/shared/apps/slurm/current/bin
    told_user=''
    user=${SLURM_USER:-$(conf_setting SlurmUser)}
    [ -n "$user" ] || user=$(told_setting SlurmUser) told_user=$user
    user=${user:-slurm}
    case $user in -* | *[!A-Za-z0-9._@-]*) err "SlurmUser $user: not a name" ;; esac
    user=$(id -un "$user" 2>/dev/null || say "$user") # slurm.conf may have its number
    [ -z "$told_user" ] || check_told
    owner=$(id -u "$user" 2>/dev/null):$(id -g "$user" 2>/dev/null) || owner=''
}

# Another SlurmUser than before gets the configuration, with what the one before wrote there, only by root's own word.
check_told() {
    for place in "$etc/config.toml" "$etc/config.json" "$spool"; do
        [ -e "$place" ] || continue
        before=$(stat -c %U "$place")
        case $before in
        root | "$user") ;;
        *) err "$place belongs to $before, but slurmctld says that SlurmUser is $user.
  If that is right, name the user yourself: sudo SLURM_USER=$user $0${instance:+ $instance}" ;;
        esac
    done
}

make_places() {
    mkdir -p "$etc" "$spool" || exit 1
    # In a folder of its own the Slurm user could put a link to any file, to be given away.
    chown root:root "/etc/$NAME" "$etc" && chmod go-w "/etc/$NAME" "$etc" || exit 1
    chmod 750 "$spool" || exit 1
    [ -e "$etc/config.json" ] || [ -e "$etc/config.toml" ] || install -m 600 "$EXAMPLE" "$etc/config.toml" || exit 1
    [ -z "$instance" ] || [ -e "$etc/jobcomp.sh" ] || write_hook
    if [ -n "$instance" ] && [ -n "${SLURM_CONF:-}" ] && [ ! -e "$etc/environment" ]; then
        say "$LABEL: the slurm.conf of this instance." "SLURM_CONF=$SLURM_CONF" >"$etc/environment" || exit 1
    fi
}

write_hook() { # what slurmctld runs for this instance: jobcomp/script hands down no argument and no environment
    cat >"$etc/jobcomp.sh" <<EOF || exit 1
#!/bin/sh
# JobCompLoc of the slurmctld whose jobs go to the instance $instance.
# For a second dashboard add another line like this one, with the spool of that instance.
SLURM_USAGE_HISTORY_SPOOL=$spool $HOOK
exit 0
EOF
    chmod 755 "$etc/jobcomp.sh"
}

give_away() { # links are not followed: the spool's owner could have set them
    for file in "$etc/config.toml" "$etc/config.json"; do
        if [ ! -f "$file" ] || [ -L "$file" ] || [ "$(stat -c %h "$file")" != 1 ]; then continue; fi
        chmod 600 "$file" && chown -h "$owner" "$file" || exit 1
    done
    if [ "$(stat -c %u:%g "$spool")" != "$owner" ]; then # what the owner before had linked here is not ours to give
        find "$spool" -xdev -maxdepth 1 '(' -type d -o -type f -links 1 ')' -exec chown -h "$owner" {} + || exit 1
    fi
    # By number: systemd-tmpfiles runs before name services are up.
    say "$LABEL." "d $spool 0750 $(say "$owner" | tr : ' ') -" >"/etc/tmpfiles.d/$NAME${instance:+@$instance}.conf"
}

# Several controllers take turns in a folder of slurm.conf's StateSaveLocation. Its user makes it, as a file server may
# squash root.
make_common_folder() { # sets $common; empty where there is a single controller
    common=''
    has_backup || return 0
    state=$(slurm_setting StateSaveLocation)
    case $state in [!/]* | *[!A-Za-z0-9/._@+-]* | '') return 0 ;; esac
    common=$state/$NAME
    # In a session of its own and without a terminal: into root's it could type commands (TIOCSTI).
    timeout 60 setsid -w runuser -u "$user" -- mkdir -p -m 700 "$common" </dev/null >/dev/null 2>&1 ||
        say "$user cannot make $common: see docs/controllers.md"
}

has_backup() {
    [ -z "$(slurm_setting 'SlurmctldHost\[1\]')" ] || return 0
    for file in "${SLURM_CONF:-}" $CONFS; do
        if [ -r "$file" ]; then
            [ "$(grep -ci '^[[:blank:]]*SlurmctldHost[[:blank:]]*=' "$file")" -gt 1 ]
            return
        fi
    done
    false
}

tell_units() { # the units say User=slurm, and their sandbox lets them into the spool alone
    for service in $services; do
        folder=/etc/systemd/system/$service.service.d
        put_drop_in slurm-user "$([ "$user" = slurm ] || say "User=$user")"
        put_drop_in controllers "${common:+ReadWritePaths=-$common}"
    done
    [ ! -d /run/systemd/system ] || systemctl --quiet daemon-reload
}

put_drop_in() { # NAME LINE: into $folder; without a line there is none
    if [ -n "$2" ]; then
        mkdir -p "$folder" && say "$LABEL." '[Service]' "$2" >"$folder/$1.conf" || exit 1
    else
        rm -f "$folder/$1.conf"
        rmdir "$folder" 2>/dev/null
    fi
}

label() { ! command -v restorecon >/dev/null || restorecon -R "$etc" "$spool" "/var/cache/$NAME"; }

main() {
    [ $# -le 1 ] || err 'see the comment at the top of this file' 2
    instance=${1:-}
    check_instance
    [ "$(id -u)" = 0 ] || err 'needs root'
    find_conf
    find_user
    make_places
    if [ -n "$owner" ]; then
        mkdir -p /etc/tmpfiles.d
        give_away
        make_common_folder
        tell_units
    else
        say "There is no user $user yet. Once Slurm is installed: sudo $0${instance:+ $instance}"
    fi
    label
    if [ -n "$instance" ] && [ -n "$owner" ]; then
        say "Instance $instance: configuration in $etc, spool $spool, of $user." \
            "Its hook, for slurm.conf: JobCompLoc=$etc/jobcomp.sh"
    fi
}

main "$@"
