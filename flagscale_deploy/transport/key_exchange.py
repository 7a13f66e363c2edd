"""Bound what a key exchange costs: a server, or whoever is in between, chooses its numbers, and how often it is made.

Python computes with numbers of 8192 bits while all other threads wait, those of other hosts too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import paramiko

EXPONENT_BYTES = 64
"""Bytes of a secret exponent: twice as many bits as the strongest cipher's key, as in OpenSSH.

Paramiko's are as long as the modulus: 1.8 s for one of 8192 bits, instead of 0.1 s.
"""
LARGEST_MESSAGE = 32_768
"""Bytes of a message of a key exchange: every SSH program takes so many (RFC 4253, section 6.1). Of a number of 1 MiB
Paramiko makes an integer in 40 s."""
MESSAGES = range(20, 50)
"""The numbers of messages of key exchanges (RFC 4250, section 4.1.2)."""
AT_ONCE, EACH_SECONDS, EACH_BYTES = 8, 10.0, 1 << 20
"""How many key exchanges a server may begin, and after how many seconds or bytes one more."""


def refuse_long(kind: int, size: int) -> None:
    """Raise SSHException for a message of a key exchange that is too long."""
    if kind in MESSAGES and size > LARGEST_MESSAGE:
        raise paramiko.SSHException(f"the server sends {size} bytes in a message of the key exchange")


class Budget:
    """Counts the key exchanges that a server begins after the first one."""

    def __init__(self) -> None:
        self._count, self._began = 0, time.monotonic()

    def spend(self, received: int) -> None:
        """Count one more, after so many bytes. Raises SSHException for too many."""
        self._count += 1
        if self._count > AT_ONCE + (time.monotonic() - self._began) / EACH_SECONDS + received / EACH_BYTES:
            raise paramiko.SSHException(f"the server has begun {self._count} key exchanges")


def with_short_exponents(engines: Mapping[str, Any]) -> dict[str, Any]:
    """Return Paramiko's kinds of key exchange, those over integers with exponents of EXPONENT_BYTES."""
    return {name: _shortened(engine) if hasattr(engine, "_generate_x") else engine for name, engine in engines.items()}


def _shortened(engine: Any) -> Any:
    def generate(self: Any) -> None:
        self.x = int.from_bytes(os.urandom(EXPONENT_BYTES), "big") | 1 << (8 * EXPONENT_BYTES - 1)

    return type(engine.__name__, (engine,), {"_generate_x": generate})
