#!/bin/sh
# Calls two scripts where slurm.conf takes one: the hook of slurm-usage-history-exporter, and your own script.
#
#   1. Copy this file, for example to /etc/slurm/call-both.sh, and make it executable (chmod 755).
#   2. Set site_script to the current JobCompLoc or EpilogSlurmctld of slurm.conf.
#   3. Put the copy's path there instead, and restart slurmctld: running jobs continue, and it first finishes all
#      pending hook calls (this can take minutes after a burst; sdiag does not show them).
#
# `slurm-usage-history-exporter check` prints these steps with the paths filled in.
site_script=/path/to/your/script
hook=/opt/slurm-usage-history-exporter/bin/jobcomp.sh

# The hook comes first: it takes a few milliseconds, and nothing that it does reaches your script.
if [ -x "$hook" ]; then "$hook" </dev/null >/dev/null 2>&1; fi
# exec: slurmctld waits for your script and gets its exit status, as it did before.
exec "$site_script" "$@"
