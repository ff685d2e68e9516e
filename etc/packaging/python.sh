#!/bin/sh
# Runs Python 3.8 or later: the distribution's python3, or the newest other one if that is older (3.6 on EL 8 and
# SUSE 15). The name of the link's target shows the version, so that no Python has to be started to find out.
# -I imports nothing from the caller's environment or home.
for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8; do
    case $(readlink -f "/usr/bin/$python") in
    */python3.[89] | */python3.[1-9][0-9])
        [ ! -x "/usr/bin/$python" ] ||
            exec "/usr/bin/$python" -I -X pycache_prefix=/var/cache/slurm-usage-history-exporter "$@"
        ;;
    esac
done
echo 'slurm-usage-history-exporter needs Python 3.8 or later in /usr/bin, such as the package python3.12' >&2
exit 1
