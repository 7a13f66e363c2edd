"""The clock of this host, by which its logs are stamped."""

from __future__ import annotations

import time
from typing import Dict


def look() -> Dict[str, float]:
    """`clock`: Unix time in seconds; `utc_offset`: seconds that local time is ahead of UTC now."""
    now = time.time()
    return {"clock": now, "utc_offset": float(time.localtime(now).tm_gmtoff)}
