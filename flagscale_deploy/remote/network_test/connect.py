"""Connect to many addresses at once, and measure how long that takes or classify why it fails."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple

from flagscale_deploy.remote.handshake import Handshake, family
from flagscale_deploy.remote.network_test.listener import receive_available

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.check import Address, ConnectFailure, TriedAddress

CONNECT_SECONDS = 2.0
"""A first packet that is lost is sent again after 1 s (RFC 6298): what takes longer is dropped on its way."""
REPLY_SECONDS = 5.0
"""A peer that was reached may be slow to reply: its program shares a busy machine."""
WRONG_PEER = "something else answers there"


class Attempt:
    """One attempt. Once it has ended, `failure` is its kind and `problem` the same in words.

    They are None and "" where an authenticated peer has replied; `seconds` is then how long the connection took.
    """

    def __init__(self, selector: selectors.BaseSelector, address: str, port: int, token: bytes) -> None:
        self._selector = selector
        self._handshake = Handshake(token, is_client=True)
        self._connected = False
        self._began = time.monotonic()
        self.seconds = 0.0
        self.ended = False
        self.failure: Optional[ConnectFailure] = None
        self.problem = ""
        try:
            self._begin(address, port)
        except (
            OSError,
            ValueError,
            TypeError,
            OverflowError,
        ) as error:  # no route, no files left, or no address at all
            self.ended, self.failure = True, "no-route"
            self.problem = str(getattr(error, "strerror", None) or error)

    def end_if_late(self) -> None:
        """End the attempt if its time is over."""
        if self.ended or time.monotonic() - self._began <= (REPLY_SECONDS if self._connected else CONNECT_SECONDS):
            return
        if self._connected:
            self._end("wrong-peer", f"{WRONG_PEER}, and sends nothing")
        else:
            self._end("timed-out", "timed out")

    def _begin(self, address: str, port: int) -> None:
        self._socket = socket.socket(family(address))
        self._socket.setblocking(False)
        try:
            code = self._socket.connect_ex((address, port))
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            self._selector.register(self._socket, selectors.EVENT_WRITE, self._start)
        except BaseException:
            self._socket.close()
            raise

    def _start(self) -> None:
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._end(*classify(code))
            return
        self._connected, self.seconds = True, time.monotonic() - self._began
        try:
            self._socket.send(self._handshake.start())
        except OSError:
            self._end("wrong-peer", WRONG_PEER)
            return
        self._selector.modify(self._socket, selectors.EVENT_READ, self._receive)

    def _receive(self) -> None:
        data = receive_available(self._socket, self._handshake.missing)
        if data is None:
            return
        try:
            if not data:
                raise ConnectionError
            self._socket.send(self._handshake.receive(data))
        except OSError:
            self._end("wrong-peer", WRONG_PEER)
            return
        if not self._handshake.missing:
            self._end()

    def _end(self, failure: Optional[ConnectFailure] = None, problem: str = "") -> None:
        self._selector.unregister(self._socket)
        self._socket.close()
        self.ended, self.failure, self.problem = True, failure, problem


class Attempts:
    """Attempts that are made together."""

    def __init__(self, selector: selectors.BaseSelector, peers: Sequence[Address], token: bytes) -> None:
        self._attempts = [Attempt(selector, peer["address"], peer["port"], token) for peer in peers]

    def over(self) -> bool:
        """Return whether every attempt has ended."""
        for attempt in self._attempts:
            attempt.end_if_late()
        return all(attempt.ended for attempt in self._attempts)

    def results(self) -> List[TriedAddress]:
        """Return, of each attempt in their order, its seconds to the connection, its failure, and that in words."""
        return [
            {"seconds": attempt.seconds, "failure": attempt.failure, "problem": attempt.problem}
            for attempt in self._attempts
        ]


def classify(code: int) -> Tuple[ConnectFailure, str]:
    """Return the kind of an error of `connect` on its way, and the same in words."""
    if code == errno.ECONNREFUSED:
        return "refused", "refused"
    if code == errno.ETIMEDOUT:
        return "timed-out", "timed out"
    return "unreachable", f"unreachable: {os.strerror(code)}"
