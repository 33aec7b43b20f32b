#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What the hosts of the bed are besides their Debian packages; $1 is the root of the new system.
set -eu
root="$1"
systemctl --quiet --root="$root" disable postgresql.service haproxy.service
systemctl --quiet --root="$root" mask systemd-udevd.service console-getty.service
# Each host makes keys of its own; equal ones would hide a mistaken host.
rm -f "$root"/etc/ssh/ssh_host_*
cat > "$root/etc/systemd/system/ssh-keys.service" << 'UNIT'
[Unit]
Before=ssh.service
[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A
[Install]
WantedBy=multi-user.target
UNIT
systemctl --quiet --root="$root" enable ssh-keys.service
# Wheels are mounted there; no host asks an index.
printf '[global]\nno-index = true\nfind-links = /wheels\n' > "$root/etc/pip.conf"
