"""Whether the kernel ended processes of this host for want of memory: who is killed has no last word of its own."""

from __future__ import annotations

from typing import Any, Dict, Optional

COUNTERS = "/proc/vmstat"


def kills() -> Optional[int]:
    """How many processes the kernel has ended for want of memory since boot (Linux 4.13 and later); None where it does
    not count them, or we may not see it."""
    try:
        with open(COUNTERS, encoding="ascii") as file:
            found = dict(line.split() for line in file)
        return int(found["oom_kill"])
    except (OSError, ValueError, KeyError):
        return None


def since(known: Dict[str, Any]) -> int:
    """How many since the run of a record began; 0 where that is not known, or the host was booted since."""
    before, now = known.get("oom_kills"), kills()
    return max(0, now - before) if isinstance(before, int) and now is not None else 0


def said(known: Dict[str, Any]) -> str:
    """The same, in words; "" for none."""
    count = since(known)
    what = "a process" if count == 1 else "%d processes" % count
    return "the kernel has ended %s of this host for want of memory since the run began" % what if count else ""
