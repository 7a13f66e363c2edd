"""What only Linux offers the operator's side, and what takes its place elsewhere. Not tested on macOS."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path


def uptime() -> float:
    """Return seconds by a clock that nobody sets and that includes suspend.

    That is CLOCK_BOOTTIME on Linux (clock_gettime(2)) and CLOCK_MONOTONIC on macOS.
    """
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def path_of_descriptor(descriptor: int) -> Path | None:
    """Return a path by which an open folder is reached, None where the system has none."""
    path = Path(f"/proc/self/fd/{descriptor}")
    try:
        os.scandir(path).close()
    except OSError:
        return None
    return path


def limit_silence(connection: socket.socket, milliseconds: int) -> None:
    """Let a TCP connection fail when what was sent is not acknowledged for this long.

    Elsewhere than on Linux nothing is set: the keepalive notices a lost host some seconds later.
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        connection.setsockopt(socket.IPPROTO_TCP, option, milliseconds)
