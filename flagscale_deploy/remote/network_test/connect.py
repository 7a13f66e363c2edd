"""Tries connections to many addresses at once, and says of each how long it took or what was wrong."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from typing import Any, Dict, List, Literal, Mapping, Optional, Sequence, Tuple

from flagscale_deploy.remote.network_test.listener import TRY, family, receive

CONNECT_SECONDS = 2.0
"""A first packet that is lost is sent again after 1 s (RFC 6298): what takes longer is dropped on its way."""
ANSWER_SECONDS = 5.0
"""What has connected may be slow to answer: the program on the other side shares a busy machine."""
STRANGER = "something else answers there"
ConnectFailure = Literal["no-route", "refused", "timed-out", "unreachable", "wrong-peer"]
"""no-route: this host's own kernel sent nothing. unreachable: a router or a firewall on the way said so."""


class Knock:
    """One attempt. Once it has ended `failure` is its kind and `problem` the same in words; None and "" if the right
    program has answered."""

    def __init__(self, selector: selectors.BaseSelector, address: str, port: int, password: str, answer: str) -> None:
        self._selector, self._password, self._answer = selector, password.encode(), answer.encode()
        self._heard = b""
        self._connected = False
        self.began = time.monotonic()
        self.seconds = 0.0
        self.ended = False
        self.failure: Optional[ConnectFailure] = None
        self.problem = ""
        self._socket = socket.socket(family(address))
        self._socket.setblocking(False)
        code = self._socket.connect_ex((address, port))
        if code not in (0, errno.EINPROGRESS):
            self._socket.close()
            self.ended, self.failure, self.problem = True, "no-route", os.strerror(code)
        else:
            selector.register(self._socket, selectors.EVENT_WRITE, self._reached)

    def give_up_if_late(self) -> None:
        """End the attempt if its time is over."""
        if self.ended or time.monotonic() - self.began <= (ANSWER_SECONDS if self._connected else CONNECT_SECONDS):
            return
        if self._connected:
            self._end("wrong-peer", f"{STRANGER}, and says nothing")
        else:
            self._end("timed-out", "timed out")

    def _reached(self) -> None:
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._end(*classify(code))
            return
        self._connected, self.seconds = True, time.monotonic() - self.began
        try:
            self._socket.send(TRY + self._password)
        except OSError:
            self._end("wrong-peer", STRANGER)
            return
        self._selector.modify(self._socket, selectors.EVENT_READ, self._listen)

    def _listen(self) -> None:
        heard = receive(self._socket, len(self._answer) - len(self._heard))
        if heard is None:
            return
        self._heard += heard
        if self._heard == self._answer:
            self._end()
        elif not heard or not self._answer.startswith(self._heard):
            self._end("wrong-peer", STRANGER)

    def _end(self, failure: Optional[ConnectFailure] = None, problem: str = "") -> None:
        self._selector.unregister(self._socket)
        self._socket.close()
        self.ended, self.failure, self.problem = True, failure, problem


class Round:
    """Attempts that are made together."""

    def __init__(
        self, selector: selectors.BaseSelector, peers: Sequence[Mapping[str, Any]], password: str, answer: str
    ) -> None:
        self._knocks = [Knock(selector, each["address"], each["port"], password, answer) for each in peers]

    def over(self) -> bool:
        """Whether every attempt has come to an end."""
        for each in self._knocks:
            each.give_up_if_late()
        return all(each.ended for each in self._knocks)

    def results(self) -> List[Dict[str, Any]]:
        """Of each attempt, in their order, its seconds to the connection, its failure and that in words."""
        return [{"seconds": each.seconds, "failure": each.failure, "problem": each.problem} for each in self._knocks]


def classify(code: int) -> Tuple[ConnectFailure, str]:
    """Return the kind of an error of `connect` on its way, and the same in words."""
    if code == errno.ECONNREFUSED:
        return "refused", "refused"
    if code == errno.ETIMEDOUT:
        return "timed-out", "timed out"
    return "unreachable", f"unreachable: {os.strerror(code)}"
