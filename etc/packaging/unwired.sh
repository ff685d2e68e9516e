#!/bin/sh
# Exits 1 with an explanation while a slurm.conf of this host names a hook of the package. Since Slurm 24.11, slurmctld does
# not start if a script named in slurm.conf is missing. The package's scripts call this before anything is removed.
set -u

NAME=slurm-usage-history-exporter
# The package's hook, and those of instances. A script of the site's that calls them still works without them.
NAMED="^[^#]*(JobCompLoc|EpilogSlurmctld)[[:blank:]]*=[^#]*(/usr/libexec|/etc)/$NAME/([A-Za-z0-9_-]+/)?jobcomp\\.sh"
PATH=$PATH:/usr/sbin:/opt/slurm/bin:/usr/local/slurm/bin:/cm/shared/apps/slurm/current/bin

folders() { # of every slurm.conf: slurmctld's, the instances' and the usual ones
    {
        timeout 30 scontrol show config 2>/dev/null | sed -n 's/^SLURM_CONF *= *//p'
        cat /etc/"$NAME"/environment /etc/"$NAME"/*/environment 2>/dev/null | sed -n 's/^SLURM_CONF=//p'
        printf '%s\n' "${SLURM_CONF:-}" /etc/slurm/slurm.conf /etc/slurm-llnl/slurm.conf /opt/slurm/etc/slurm.conf
    } | sed -n 's|^\(/.*\)/[^/]*$|\1|p' | sort -u
}

files() { # in those folders, and what they include from anywhere
    include='s|^[[:blank:]]*Include[[:blank:]]\{1,\}"\{0,1\}\([^"#[:blank:]]*\).*|\1|Ip'
    folders | while read -r folder; do
        [ ! -d "$folder" ] || timeout 30 find "$folder/" -maxdepth 2 -name '*.conf' -print -exec sed -n "$include" {} + |
            sed "s|^[^/]|$folder/&|"
    done
}

found=$(files | sort -u | xargs -r -d '\n' timeout 30 grep -lsiE "$NAMED" -- |
    LC_ALL=C tr -cd '\012\040-\176') # the Slurm user can choose a file's name, which root's terminal shows
[ -n "$found" ] || exit 0
printf '%s\n' "$NAME: this file still names the hook, without which slurmctld might not start again:" "$found" \
    'Remove that line, and restart slurmctld: running jobs continue, and it first finishes all pending hook calls' \
    '(this can take minutes after a burst; sdiag does not show them). Then remove the package. Nothing has been removed.' >&2
exit 1
