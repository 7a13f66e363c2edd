"""Listeners that answer nobody but the other programs of the same check, whom they know by a password."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from functools import partial
from typing import Any, Callable, Dict, List, Optional

TRY, ECHO, FLOOD = b"t", b"e", b"f"
"""What a guest comes for: to be answered and no more, to have bytes answered, to be sent as much as it takes."""
GUEST_SECONDS = 5.0
"""How long somebody who has connected may take to say the password."""
Host = Callable[[socket.socket, bytes], None]


class Guest:
    """Somebody who connected and has not said the password yet."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.said = b""
        self.until = time.monotonic() + GUEST_SECONDS


class Doors:
    """The open listeners of a program; `entertain` takes over guests that came for more than an answer."""

    def __init__(self, selector: selectors.BaseSelector, password: str, answer: str, entertain: Host) -> None:
        self._selector, self._entertain = selector, entertain
        self._password, self._answer = password.encode(), answer.encode()
        self._guests: List[Guest] = []

    def open(self, address: str, port: int) -> Dict[str, Any]:
        """Listen on an address of this host; port 0 lets the kernel choose.

        `{"port": n}`, with `taken` and a `problem` where that cannot be done.
        """
        door = socket.socket(family(address))
        try:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind((address, port))
            door.listen(1024)
        except OSError as error:
            door.close()
            return {"port": port, "taken": error.errno == errno.EADDRINUSE, "problem": os.strerror(error.errno or 0)}
        door.setblocking(False)
        self._selector.register(door, selectors.EVENT_READ, partial(self._let_in, door))
        return {"port": door.getsockname()[1]}

    def turn_out_the_late(self) -> None:
        """Close on those who have said nothing of use in time."""
        now = time.monotonic()
        for guest in [each for each in self._guests if each.until < now]:
            self._turn_out(guest)

    def _let_in(self, door: socket.socket) -> None:
        try:
            connection, _ = door.accept()
        except OSError:  # it went away again
            return
        connection.setblocking(False)
        guest = Guest(connection)
        self._guests.append(guest)
        self._selector.register(connection, selectors.EVENT_READ, partial(self._listen, guest))

    def _listen(self, guest: Guest) -> None:
        wanted = len(self._password) + 1 - len(guest.said)
        heard = receive(guest.connection, wanted)
        if heard is None:
            return
        guest.said += heard
        if heard and len(heard) < wanted:
            return
        purpose = guest.said[:1]
        if guest.said[1:] != self._password or purpose not in (TRY, ECHO, FLOOD):
            self._turn_out(guest)
            return
        self._welcome(guest, purpose)

    def _welcome(self, guest: Guest, purpose: bytes) -> None:
        try:
            guest.connection.send(self._answer)
            if purpose != TRY:
                self._entertain(guest.connection, purpose)
        except OSError:
            pass  # it did not wait for the answer
        self._turn_out(guest)

    def _turn_out(self, guest: Guest) -> None:
        self._selector.unregister(guest.connection)
        guest.connection.close()
        self._guests.remove(guest)


def family(address: str) -> "socket.AddressFamily":
    """The kind of socket for an IP address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def receive(connection: socket.socket, wanted: int) -> Optional[bytes]:
    """What has come on a non-blocking connection: b"" at its end, or when it was torn, None if nothing has."""
    try:
        return connection.recv(wanted)
    except BlockingIOError:
        return None
    except OSError:
        return b""
