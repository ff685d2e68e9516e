#!/bin/sh
# Process 1 of a host (tests/ha/hosts.py): host.sh NAME DISK HOSTS_FILE, in namespaces of its own.
# Its name, /run, /proc, /etc/hosts, /var/spool and /var/log are its own; the last two are on DISK, and so survive it.
set -eu
name=$1 disk=$2 hosts=$3
read -r outside _ </proc/self/stat # the old /proc still shows this shell's pid on the machine

hostname "$name"
mkdir -p "$disk/spool" "$disk/log"
chmod 755 "$disk" "$disk/spool" "$disk/log"
mount --bind "$disk/spool" /var/spool
mount --bind "$disk/log" /var/log
mount --bind "$hosts" /etc/hosts
mount -t tmpfs tmpfs /run
mount -t proc proc /proc
mkdir -p /run/munge /run/slurm /run/mysqld
ln -s mysqld /run/mariadbd # where MariaDB 11.8 of Debian has its socket

echo "$outside" >"$disk/pid.new"
mv "$disk/pid.new" "$disk/pid"

exec env --ignore-signal=CHLD sleep infinity # so the kernel reaps the children that process 1 inherits
