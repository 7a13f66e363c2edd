"""Send a tree of this host to the others of a push: they connect and fetch it.

It ends with standard input.
"""

from __future__ import annotations

import base64
import os
import sys
from typing import TYPE_CHECKING, Optional

from flagscale_deploy.remote.push import hashes
from flagscale_deploy.remote.push.orders import ByteCounter, OrderQueue, reply
from flagscale_deploy.remote.push.serve import PieceServer
from flagscale_deploy.remote.push.source import Source
from flagscale_deploy.remote.system import network

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.push import PushNetwork, PushOrder, PushSourceArguments


def main(args: PushSourceArguments) -> None:
    """Send, until the operator ends it."""
    _Sender(args).work()
    sys.stdout.flush()
    os._exit(0)  # a thread still reads standard input, and an interpreter that ends must not wait for its lock


class _Sender:
    """The orders to this host, carried out."""

    def __init__(self, args: PushSourceArguments) -> None:
        self._args = args
        self._server: Optional[PieceServer] = None
        self._orders = OrderQueue(self._close, lambda order: "alive" in order)

    def work(self) -> None:
        """Carry out orders, until the last of them."""
        try:
            source = Source(self._args["source"], self._args["host"], self._args["copy_links"])
        except OSError as error:
            reply({"refused": str(error)})
            self._wait_for_finish()
            return
        own: PushNetwork = {"interfaces": network.interfaces(), "default_address": network.default_address()}
        reply({"tree": source.tree, "network": own})
        while True:
            order = self._orders.next()
            if "finish" in order:
                self._finish()
                return
            try:
                self._do(source, order)
            except (OSError, EOFError, ValueError) as error:
                reply({"refused": str(error)})

    def _do(self, source: Source, order: PushOrder) -> None:
        if "hash" in order:
            digests = source.digests(self._args["checksum"], ByteCounter("hashed"))
            reply({"digests": [hashes.to_text(digest) for digest in digests]})
        elif "listen" in order:
            token = bytes.fromhex(self._args["token"])
            self._server = PieceServer(order["listen"], token, source.piece, source.open, order.get("peers", ()))
            reply({"port": self._server.port})
        elif "read" in order:
            data = source.read(order["file"], order["offset"], order["length"])
            reply({"read": order["read"], "data": base64.b64encode(data).decode()})

    def _wait_for_finish(self) -> None:
        while "finish" not in self._orders.next():
            continue
        self._finish()

    def _finish(self) -> None:
        self._close()
        reply({"finished": {}})

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
