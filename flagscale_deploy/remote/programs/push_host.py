"""Receive a tree on this host, and pass on what has come of it to the other hosts of the same push.

It ends with standard input, and its listener with it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from typing import TYPE_CHECKING, Dict, Optional, Sequence

from flagscale_deploy.remote.push.fetch import Fetcher
from flagscale_deploy.remote.push.intake import CorruptError, Intake
from flagscale_deploy.remote.push.orders import ByteCounter, OrderQueue, reply
from flagscale_deploy.remote.push.place import root_of
from flagscale_deploy.remote.push.serve import PieceServer
from flagscale_deploy.remote.push.store import Store
from flagscale_deploy.remote.push.validate import checked_number, checked_tree_of_operator
from flagscale_deploy.remote.system import network

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.push import PushFinish, PushHostArguments, PushLook, PushOrder


def main(args: PushHostArguments) -> None:
    """Receive, until the operator ends it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    receiver = Receiver(args)
    reply({"network": {"interfaces": network.interfaces(), "default_address": network.default_address()}})
    receiver.work()
    sys.stdout.flush()
    os._exit(0)  # a thread still reads standard input, and an interpreter that ends must not wait for its lock


class Receiver:
    """The orders to this host, carried out."""

    def __init__(self, args: PushHostArguments) -> None:
        self._args, self._token = args, bytes.fromhex(args["token"])
        self._store: Optional[Store] = None
        self._server: Optional[PieceServer] = None
        self._fetcher: Optional[Fetcher] = None
        self._feeding: Dict[int, Intake] = {}
        self._received = ByteCounter("received")
        self._buffer = memoryview(bytearray(1 << 20))
        self._orders = OrderQueue(self._lost, self._at_once)

    def work(self) -> None:
        """Carry out orders, until the last of them."""
        while True:
            order = self._orders.next()
            if "look" in order:
                self._look(order["look"])
            elif "compare" in order:
                self._compare(order["compare"])
            elif "prepare" in order:
                self._prepare()
            elif "listen" in order:
                self._listen(order["listen"], order.get("peers", ()))
            elif "finish" in order or "leave" in order:
                self._close()
                reply({"finished": self._tree.finish() if "finish" in order else self._leave()})
                return

    @property
    def _tree(self) -> Store:
        assert self._store is not None, "look comes first"
        return self._store

    def _look(self, look: PushLook) -> None:
        try:
            tree = checked_tree_of_operator(look["tree"])
            root, refused = root_of(look["dest"], tree["single"])
            if refused:
                reply({"refused": refused})
                return
            self._store = Store(root, tree, self._args["host"])
            self._store.look(look["checksum"], ByteCounter("hashed"))
        except (OSError, EOFError, ValueError) as error:
            reply({"refused": str(error)})
            return
        reply({"looked": True})

    def _compare(self, digests: Sequence[str]) -> None:
        try:
            reply(self._tree.compare(digests))
        except ValueError as error:
            reply({"refused": str(error)})

    def _prepare(self) -> None:
        try:
            self._tree.prepare(ByteCounter("hashed"))
            reply({"have": sorted(self._tree.have), "needed": self._tree.needed(), "free": self._tree.free()})
        except BlockingIOError:
            reply({"refused": "another push writes there"})
        except (OSError, EOFError) as error:
            reply({"refused": str(error)})

    def _listen(self, address: str, peers: Sequence[str]) -> None:
        self._fetcher = Fetcher(self._tree, self._token, reply, self._broken, self._received)
        try:
            self._server = PieceServer(address, self._token, self._tree.piece, self._tree.open_to_read, peers)
        except OSError as error:
            reply({"refused": str(error)})
        else:
            reply({"port": self._server.port})

    def _at_once(self, order: PushOrder) -> bool:
        """Carry out what must not wait for anything else; return whether it was such an order."""
        if "feed" in order:
            self._feed(order["feed"], order["at"], order["size"])
            reply({"fed": order["size"]})
        elif self._fetcher is not None and "fetch" in order:
            self._fetcher.order(order)
        elif self._fetcher is not None and "cancel" in order:
            self._fetcher.cancel(order["cancel"])
        else:
            return "alive" in order
        return True

    def _feed(self, number: int, at: int, size: int) -> None:
        """Read all bytes of a piece that come from the operator, in their order, wanted or not.

        Raises ValueError for a piece that there is not.
        """
        checked_number(number, range(len(self._tree.pieces)), "piece")
        intake = self._feeding.pop(number, None) if at else self._begin(number)
        while size:
            part = self._buffer[: min(size, len(self._buffer))]
            self._orders.read_into(part)
            self._received(len(part))
            size -= len(part)
            if intake is not None and not self._taken(intake, part):
                intake = None
        if intake is not None:
            self._feeding[number] = intake

    def _begin(self, number: int) -> Optional[Intake]:
        try:
            return Intake(self._tree, number)
        except OSError as error:
            self._broken(str(error))
            return None

    def _taken(self, intake: Intake, part: memoryview) -> bool:
        """Give bytes to a piece; return whether it waits for more."""
        try:
            intake.take(part)
            if intake.missing:
                return True
            intake.end()
            reply({"got": intake.number})
        except CorruptError as error:
            reply({"failed": intake.number, "kind": "corrupt", "why": str(error)})
        except OSError as error:
            self._broken(str(error))
        intake.close()
        return False

    def _broken(self, why: str) -> None:
        """Report that this host cannot go on, and close its listener."""
        self._close()
        reply({"broken": why})

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()

    def _lost(self) -> None:
        self._leave()

    def _leave(self) -> PushFinish:
        self._close()
        with contextlib.suppress(OSError):
            if self._store is not None:
                self._store.leave()
        return {"missing": []}
