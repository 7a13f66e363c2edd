"""Whether this process may make a lab."""

from __future__ import annotations

import os
from pathlib import Path

NEEDED = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}


def obstacle() -> str | None:
    """Why no lab can be made here, in words; None where one can. Root in a container often lacks the capabilities."""
    if os.geteuid() != 0:
        return "the lab makes network namespaces, which needs root"
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    effective = int(status["CapEff"], 16)
    lacking = [name for name, bit in NEEDED.items() if not effective >> bit & 1]
    if lacking:
        return f"the lab makes network namespaces, which needs {' and '.join(lacking)} (docker run --privileged)"
    return None
