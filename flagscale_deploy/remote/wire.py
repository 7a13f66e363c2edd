"""How a program on a host answers: one line of JSON a message, behind a prefix no login banner prints."""

import json
import os
import select
import sys
from typing import Mapping, Optional

PREFIX = "@fsd1 "
LONGEST_MESSAGE = (16 << 20) - 1024
"""Bytes; the operator's side accepts no line of 16 MiB."""


def send(message: Mapping[str, object]) -> None:
    """Send one message to the operator, at once. Raises ValueError where it is too long, or holds a number like NaN.

    A program gives it the type of its own replies: `send: Callable[[ProbeReply], None] = wire.send`.
    """
    text = json.dumps(message, allow_nan=False)
    if len(text) > LONGEST_MESSAGE:
        raise ValueError("the reply has %d bytes; at most %d are sent" % (len(text), LONGEST_MESSAGE))
    sys.stdout.write(PREFIX + text + "\n")
    sys.stdout.flush()


def cut(text: str, most: int) -> str:
    """Return the beginning of a text, with `…` where the rest is left out, which shows where a secret may be cut."""
    return text if len(text) <= most else text[:most] + "…"


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
