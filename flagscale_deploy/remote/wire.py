"""How a program on a host answers: one line of JSON a message, behind a prefix no login banner prints."""

import json
import os
import select
import sys
from typing import Mapping, Optional

PREFIX = "@fsd1 "


def send(message: Mapping[str, object]) -> None:
    """Send one message to the operator, at once.

    A program gives it the type of its own replies: `send: Callable[[ProbeReply], None] = wire.send`.
    """
    sys.stdout.write(PREFIX + json.dumps(message) + "\n")
    sys.stdout.flush()


def receive(wait: float = 0.0) -> Optional[bytes]:
    """Return what comes on standard input within `wait` seconds, at once when it comes.

    None: nothing came; b"": it has ended.
    """
    try:
        ready, _, _ = select.select([0], [], [], wait)
        return os.read(0, 65536) if ready else None
    except OSError:
        return b""


def input_ended(wait: float = 0.0) -> bool:
    """Return whether standard input has ended, which tells a program that nobody listens any more.

    It takes `wait` seconds at most, and returns at once if the end comes sooner. What arrives on standard input is
    dropped.
    """
    return receive(wait) == b""
