"""Limit the clients of a listener, without that those of one address keep out those of another."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Dict, Generic, Optional, TypeVar

Client = TypeVar("Client")


class Slots(Generic[Client]):
    """At most `most` clients, and `of_one` from one address.

    A client too many takes the place of the oldest of its own address, else of the address with the most. Any thread
    may call it.
    """

    def __init__(self, most: int, of_one: Optional[int] = None) -> None:
        self._most, self._of_one = most, most if of_one is None else of_one
        self._addresses: Dict[Client, str] = {}
        self._lock = threading.Lock()

    def enter(self, client: Client, address: str) -> Optional[Client]:
        """Add a client; return the one to disconnect for it, None if there was room."""
        with self._lock:
            clients = Counter(self._addresses.values())
            clients[address] += 1
            crowded = address if clients[address] > self._of_one else None
            if crowded is None and len(self._addresses) >= self._most:
                crowded = clients.most_common(1)[0][0]
            leaving = next((other for other, place in self._addresses.items() if place == crowded), None)
            if leaving is not None:
                del self._addresses[leaving]
            self._addresses[client] = address
            return leaving

    def leave(self, client: Client) -> None:
        """Remove a client, unless another has taken its place."""
        with self._lock:
            self._addresses.pop(client, None)
