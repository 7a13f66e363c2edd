#!/usr/bin/env bash
# The first process of a lab host, started by keeper.py inside fresh namespaces. It makes the machine's view into a
# host's own, and becomes the host's sshd. Arguments: the host's directory, name, address, gateway and home, then the
# directories to borrow from the machine at their own path, parents first.
set -euo pipefail
host=$1 name=$2 address=$3 gateway=$4 home=$5
shift 5

# /proc is still the machine's: this is the pid that the machine knows this process by.
read -r pid _ </proc/self/stat
echo "$pid"
read -r _   # the keeper plugs the cable in, then says so

ip link set lo up
ip addr add "$address/24" dev eth0
ip link set eth0 up
ip route add default via "$gateway"
hostname "$name"

# Borrowed directories may lie under the paths that are about to be hidden: hold them first.
i=0
for directory in "$@"; do
  mkdir -p "$host/borrowed/$i"   # there already on a host that boots again
  mount --bind "$directory" "$host/borrowed/$i"
  i=$((i + 1))
done

mount -t proc proc /proc
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/sshd
mount --bind "$host/tmp" /tmp
mount --bind "$host/home" "$home"
mount --bind "$host/sbin" /usr/local/sbin
mount --bind "$host/hosts" /etc/hosts
# On many machines resolv.conf is a link into /run, which is empty now.
resolver=$(readlink -m /etc/resolv.conf)
[ -e "$resolver" ] || { mkdir -p "$(dirname "$resolver")"; touch "$resolver"; }
mount --bind "$host/resolv.conf" "$resolver"

i=0
for directory in "$@"; do
  mkdir -p "$directory"
  mount --bind "$host/borrowed/$i" "$directory"
  mount -o remount,bind,ro "$directory"   # a host can't harm what it borrows
  i=$((i + 1))
done

cd /
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
  /usr/sbin/sshd -D -e -f "$host/../sshd_config" -h "$host/host_key" </dev/null >&2
