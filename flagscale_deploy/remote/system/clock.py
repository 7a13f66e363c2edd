"""Read the clock of this host, by which its logs are stamped."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.logs import HostClock


def look() -> HostClock:
    """Return the time, and how far local time is ahead of UTC."""
    now = time.time()
    return {"clock": now, "utc_offset": float(time.localtime(now).tm_gmtoff)}
