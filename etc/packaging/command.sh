#!/bin/sh
# The command slurm-usage-history-exporter, as packages install it.
exec /usr/libexec/slurm-usage-history-exporter/python /usr/share/slurm-usage-history-exporter "$@"
