"""Memory, limits and disks that are too small."""

from __future__ import annotations

from tests.lab.product.breaking.reach import log_in_as_another
from tests.lab.product.breaking.stage import Stage, caught_by

SMALL_TMP = r"""
mkdir -p /run/small && mount -t tmpfs -o size=256M,mode=1777 tmpfs /run/small
for place in $(awk '$5 ~ "^/tmp/" {print $5}' /proc/self/mountinfo); do
  mkdir -p "/run/small${place#/tmp}" && mount --bind "$place" "/run/small${place#/tmp}"
done
mount --rbind /run/small /tmp
"""
"""The directories that the host borrows from the machine lie in /tmp as well, and stay there."""

SMALL_HOME = r"""
mkdir -p /run/home && mount -t tmpfs -o size=256M,mode=700 tmpfs /run/home && cp -r /root/.ssh /run/home/
sed 's|^\(root:.*:\)/root:|\1/run/home:|' /etc/passwd >/run/passwd && mount --bind /run/passwd /etc/passwd
"""

INFINIBAND = """
mount -t tmpfs tmpfs /sys/class && mkdir -p /sys/class/infiniband/mlx5_0/ports/1
echo '{state}' >/sys/class/infiniband/mlx5_0/ports/1/state
"""


def give_infiniband(stage: Stage, broken: str = "4: ACTIVE") -> None:
    """Every host has InfiniBand; the port of the broken one is in this state."""
    for host in stage.lab.hosts:
        state = broken if host == stage.host else "4: ACTIVE"
        stage.on(INFINIBAND.format(state=state), "umount /sys/class", host)


@caught_by("memory", "ps -eo pid,user,rss,args --sort=-rss | head", round="room", at="node2")
def its_memory_is_in_use(stage: Stage) -> None:
    stage.on(
        "sed 's/^MemAvailable:.*/MemAvailable:     100000 kB/' /proc/meminfo >/run/meminfo\n"
        "mount --bind /run/meminfo /proc/meminfo",
        "umount /proc/meminfo",
    )


@caught_by("shared-memory", "mount -o remount,size=1024M /dev/shm", round="room", at="node3")
def its_shared_memory_is_a_containers(stage: Stage) -> None:
    stage.on("mount -o remount,size=64M /dev/shm", "mount -o remount,size=50% /dev/shm")


@caught_by("open-files", "nofile 65536", round="room", at="node4")
def it_lets_processes_open_few_files(stage: Stage) -> None:
    """Its own limit is not to be touched: no right of ours would raise it again."""
    stage.on("echo 'ulimit -n 4096' > ~/.bashrc", "rm ~/.bashrc")


@caught_by("locked-memory", "memlock unlimited")
def it_lets_nobody_lock_memory_for_infiniband(stage: Stage) -> None:
    """Root may in any case."""
    give_infiniband(stage)
    log_in_as_another(stage, "ulimit -l 64")


@caught_by("infiniband", "ibstat")
def its_infiniband_port_is_down(stage: Stage) -> None:
    give_infiniband(stage, "1: DOWN")


@caught_by("disk", "du -xh --max-depth=2 ~", round="room", at="node2")
def its_home_is_nearly_full(stage: Stage) -> None:
    stage.on(SMALL_HOME, "umount /etc/passwd; rm /run/passwd; umount -l /run/home; rmdir /run/home")


@caught_by("tmp", "du -xh --max-depth=1 /tmp", round="room", at="node3")
def its_tmp_is_nearly_full(stage: Stage) -> None:
    stage.on(SMALL_TMP, "umount -lR /tmp; umount -lR /run/small; rmdir /run/small")
