"""The handshake between hosts of a network test, a push or a group: both sides prove that they know the same token.

The client sends a nonce of 16 bytes, and the server replies with its own; the client sends an HMAC over both, and the
server replies with another. A client without the token gets a nonce and nothing else. What follows is not encrypted;
`Handshake.key` is there for those who sign it.
"""

from __future__ import annotations

import hmac
import os
import socket
import time

NONCE, TAG = 16, 32
HANDSHAKE_SECONDS = 5.0


class WrongPeerError(ConnectionError):
    """The other side does not know the token."""


class Handshake:
    """One side of the handshake, without I/O: give what arrives to `receive`, and send what it returns.

    A server may have several tokens: `token` is the one that its client knows, at the end.
    """

    def __init__(self, *tokens: bytes, is_client: bool) -> None:
        self._tokens, self._is_client = tokens, is_client
        self.token = tokens[0]
        self._nonce = os.urandom(NONCE)
        self._received = b""

    @property
    def missing(self) -> int:
        """Return the number of bytes that are still to come, 0 at the end."""
        return NONCE + TAG - len(self._received)

    def start(self) -> bytes:
        """Return what is to be sent first."""
        return self._nonce if self._is_client else b""

    def receive(self, data: bytes) -> bytes:
        """Take at most `missing` bytes; return the reply. Raises WrongPeerError.

        A client raises it at the first wrong byte: what answers there may be no program of ours, and send no more.
        """
        had_nonce = len(self._received) >= NONCE
        self._received += data
        if len(self._received) < NONCE:
            return b""
        tag = self._received[NONCE:]
        if not self._is_client and self.missing and had_nonce:
            return b""  # a client's tag is compared once, as a whole
        matching = [token for token in self._tokens if self._is_tag(tag, token)]
        if not matching:
            raise WrongPeerError("something else answers there" if self._is_client else "the token is wrong")
        self.token, reply = matching[0], b""
        if not had_nonce:
            reply += self._tag(of_client=True) if self._is_client else self._nonce
        if not self.missing and not self._is_client:
            reply += self._tag(of_client=False)
        return reply

    @property
    def key(self) -> bytes:
        """Return what both sides know of this connection alone, at the end of the handshake: 32 bytes."""
        return self._mac(b"connection", self.token)

    def _tag(self, *, of_client: bool) -> bytes:
        return self._mac(b"client" if of_client else b"server", self.token)

    def _is_tag(self, tag: bytes, token: bytes) -> bool:
        """Return whether this is the beginning of the other side's tag by a token."""
        return hmac.compare_digest(tag, self._mac(b"server" if self._is_client else b"client", token)[: len(tag)])

    def _mac(self, purpose: bytes, token: bytes) -> bytes:
        nonces = (self._nonce, self._received[:NONCE])
        client, server = nonces if self._is_client else nonces[::-1]
        return hmac.new(token, purpose + client + server, "sha256").digest()


def authenticate(
    connection: socket.socket, *tokens: bytes, is_client: bool, seconds: float = HANDSHAKE_SECONDS
) -> Handshake:
    """Shake hands on a connection, in `seconds` in all; return the handshake at its end.

    Raises WrongPeerError, and OSError where it ends before.
    """
    deadline = time.monotonic() + seconds
    handshake = Handshake(*tokens, is_client=is_client)
    wait_until(connection, deadline)
    connection.sendall(handshake.start())
    while handshake.missing:
        wait_until(connection, deadline)
        connection.sendall(handshake.receive(_some(connection, handshake.missing)))
    return handshake


def receive(connection: socket.socket, count: int, seconds: float) -> bytes:
    """Return exactly so many bytes of a connection. Raises OSError where they end before, or take longer."""
    deadline, received = time.monotonic() + seconds, b""
    while len(received) < count:
        wait_until(connection, deadline)
        received += _some(connection, count - len(received))
    return received


def wait_until(connection: socket.socket, deadline: float) -> None:
    """Let the next operation of a connection take until a deadline of time.monotonic. Raises TimeoutError there.

    A peer that sends a byte a second cannot put it off.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    connection.settimeout(left)


def _some(connection: socket.socket, most: int) -> bytes:
    data = connection.recv(most)
    if not data:
        raise ConnectionError("the connection ended")
    return data


def family(address: str) -> socket.AddressFamily:
    """Return the kind of socket for an IP address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET
