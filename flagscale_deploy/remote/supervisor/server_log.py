"""Write lines of a supervisor to its server's own log."""

from __future__ import annotations

import contextlib
import os
import time


def write(name: str, text: str) -> None:
    """Write a line about the server `name` to standard output, also behind half a line of the server's own."""
    line = "\nflagscale-deploy %s: %s %s\n" % (time.strftime("%Y-%m-%d %H:%M:%S"), " ".join(name.split()), text)
    with contextlib.suppress(OSError):
        os.write(1, line.encode("utf-8", "replace"))
