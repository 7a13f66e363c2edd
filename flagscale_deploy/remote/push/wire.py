"""How hosts talk to each other during a push: who doesn't know the push's token gets not a byte of it.

The host that is called sends 16 bytes of chance; the caller answers with 16 of its own and an HMAC over both; it is
answered with another HMAC. Then the caller asks for pieces, 4 bytes each, and gets a byte that says whether it is
there, its size in 8 bytes, and its bytes. Nothing can be sent to a host that it did not ask for. Bytes are not
encrypted; who changes them is found out by the hashes, which came through SSH.
"""

from __future__ import annotations

import hmac
import os
import socket
import struct

NONCE, TAG = 16, 32
HELLO_SECONDS = 5.0
ASKED, ANSWERED = struct.Struct("!I"), struct.Struct("!BQ")
THERE, ABSENT = 1, 0


class StrangerError(OSError):
    """The other side does not know the token."""


def welcome(connection: socket.socket, token: bytes) -> None:
    """Let a caller in. Raises StrangerError where it doesn't know the token, OSError where it says nothing in time."""
    connection.settimeout(HELLO_SECONDS)
    mine = os.urandom(NONCE)
    connection.sendall(mine)
    said = receive(connection, NONCE + TAG)
    theirs, tag = said[:NONCE], said[NONCE:]
    if not hmac.compare_digest(tag, _tag(token, b"caller", mine + theirs)):
        raise StrangerError("somebody without the token called")
    connection.sendall(_tag(token, b"called", mine + theirs))


def introduce(connection: socket.socket, token: bytes) -> None:
    """Show that we belong here, and that the other side does. Raises OSError."""
    connection.settimeout(HELLO_SECONDS)
    theirs, mine = receive(connection, NONCE), os.urandom(NONCE)
    connection.sendall(mine + _tag(token, b"caller", theirs + mine))
    if not hmac.compare_digest(receive(connection, TAG), _tag(token, b"called", theirs + mine)):
        raise StrangerError("something else answers there")


def receive(connection: socket.socket, count: int) -> bytes:
    """Exactly so many bytes. Raises ConnectionError where they end before, OSError."""
    heard = b""
    while len(heard) < count:
        more = connection.recv(count - len(heard))
        if not more:
            raise ConnectionError("the connection ended")
        heard += more
    return heard


def _tag(token: bytes, who: bytes, nonces: bytes) -> bytes:
    return hmac.new(token, who + nonces, "sha256").digest()
