#!/bin/sh
# Calls two scripts where slurm.conf has room for one: the hook of slurm-usage-history-exporter, and a script of yours.
#
#   1. Copy this file to a place of yours, such as /etc/slurm/call-both.sh, and make it executable (chmod 755).
#   2. Fill in site_script: what slurm.conf names now, as JobCompLoc or as EpilogSlurmctld.
#   3. Name the copy there instead, and restart slurmctld: running jobs continue, and it makes all pending hook calls
#      before it stops (after a burst that takes a while; sdiag does not show them).
#
# `slurm-usage-history-exporter check` prints these steps with the paths filled in.
site_script=/path/to/your/script
hook=/opt/slurm-usage-history-exporter/bin/jobcomp.sh

# The hook comes first: it takes a few milliseconds, and nothing that it does reaches your script.
if [ -x "$hook" ]; then "$hook" </dev/null >/dev/null 2>&1; fi
# Your script takes the place of this process: slurmctld waits for it and sees its exit status, as it did before.
exec "$site_script" "$@"
