"""Signed messages between the supervisors of a group: JSON lines, each with an HMAC by the connection's key."""

from __future__ import annotations

import hmac
import json
import socket
import time
from typing import Dict, Mapping

from flagscale_deploy.remote.handshake import wait_until
from flagscale_deploy.remote.system import json_files

LONGEST = 8192
"""Bytes of a message. A host name has 253 at most, a reason a few hundred."""
TAG_DIGITS = 64


class ForgedMessageError(OSError):
    """A message without the right HMAC, too long, or no JSON object."""


class Channel:
    """One end of a connection of `remote/peers.py`; `key` is the connection's.

    The HMAC covers the sender and the number of the message, so none can be repeated, left out or sent back.
    """

    def __init__(self, connection: socket.socket, key: bytes, *, is_client: bool) -> None:
        self._connection, self._key, self._is_client = connection, key, is_client
        self._sent = self._received = 0
        self._rest = b""

    def send(self, message: Mapping[str, object], seconds: float) -> None:
        """Send a message. Raises OSError."""
        text = json.dumps(message).encode()
        self._connection.settimeout(seconds)
        self._connection.sendall(self._tag(text, self._sent, of_client=self._is_client) + b" " + text + b"\n")
        self._sent += 1

    def receive(self, seconds: float) -> Dict[str, object]:
        """Return the next message. Raises OSError: it is late, forged, or the connection has ended."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            if len(self._rest) > LONGEST:
                raise ForgedMessageError("the message is too long")
            wait_until(self._connection, deadline)
            data = self._connection.recv(LONGEST)
            if not data:
                raise ConnectionError("the connection ended")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        tag, _, text = line.partition(b" ")
        if not hmac.compare_digest(tag, self._tag(text, self._received, of_client=not self._is_client)):
            raise ForgedMessageError("the signature is wrong")
        self._received += 1
        try:
            return json_files.parse_object(text)
        except ValueError as error:
            raise ForgedMessageError(str(error)) from error

    def _tag(self, text: bytes, number: int, *, of_client: bool) -> bytes:
        sender = b"client" if of_client else b"server"
        return hmac.new(self._key, b"%s %d %s" % (sender, number, text), "sha256").hexdigest().encode()
