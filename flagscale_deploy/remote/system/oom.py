"""Count the processes that the kernel killed for lack of memory: they write no last line to a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from flagscale_deploy.remote.system import files

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.record import Record

COUNTERS = "/proc/vmstat"


def kills() -> Optional[int]:
    """Return how many processes the kernel has killed for lack of memory since boot.

    None where it does not count them (before Linux 4.13), or we may not see it.
    """
    try:
        counters = dict(line.split() for line in files.read_text(COUNTERS).splitlines())
        return int(counters["oom_kill"])
    except (ValueError, KeyError):
        return None


def since(deployed: Record) -> int:
    """Return how many since the run of a record began; 0 where that is unknown, or the host was booted since."""
    before, now = deployed.get("oom_kills"), kills()
    return max(0, now - before) if isinstance(before, int) and now is not None else 0


def describe(deployed: Record) -> str:
    """Return the same in words; "" for none."""
    count = since(deployed)
    what = "a process" if count == 1 else "%d processes" % count
    return "the kernel has killed %s of this host for lack of memory since the run began" % what if count else ""
