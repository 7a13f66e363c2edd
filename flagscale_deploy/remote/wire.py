"""How a program on a host answers: one line of JSON a message, behind a prefix no login banner prints."""

import json
import os
import select
import sys
from typing import Any

PREFIX = "@fsd1 "


def say(**message: Any) -> None:
    """Send one message to the operator, at once."""
    sys.stdout.write(PREFIX + json.dumps(message) + "\n")
    sys.stdout.flush()


def lifeline_lost(wait: float = 0.0) -> bool:
    """Whether standard input has ended, which tells a program that nobody listens any more.

    Returns within `wait` seconds, at once if the end comes sooner. What arrives on standard input is dropped.
    """
    try:
        ready, _, _ = select.select([0], [], [], wait)
        return bool(ready) and os.read(0, 65536) == b""
    except OSError:
        return True
