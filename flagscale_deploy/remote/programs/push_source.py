"""Sends a tree of this host to the others of a push: they come and get it.

main({host, source, token, copy_links, checksum}) says {"tree": as `push_tree.scan` has it, "network": {"interfaces",
"default_address"}} or {"refused": why}, and does what it is told on standard input, a line of JSON each:

- {"hash": true}: {"hashed": bytes} meanwhile, at last {"digests": [hashes of each file]} or {"refused": why}.
- {"listen": address}: {"port": n} or {"refused": why}.
- {"read": id, "file", "offset", "length"}: {"read": id, "data": base64}, for hosts that can't call this one.
- {"finish": true}: {"finished": {}}, and the listener is gone. {"alive": true}: nothing.

It ends with standard input.
"""

from __future__ import annotations

import base64
import os
import sys
from typing import Any, Mapping, Optional

from flagscale_deploy.remote.push import hashes
from flagscale_deploy.remote.push.orders import Counter, Orders, tell
from flagscale_deploy.remote.push.serve import PieceServer
from flagscale_deploy.remote.push.source import Source
from flagscale_deploy.remote.system import network


def main(args: Mapping[str, Any]) -> None:
    """Send; see the module."""
    _Sender(args).work()
    sys.stdout.flush()
    os._exit(0)  # a thread still reads standard input, and an interpreter that ends must not wait for its lock


class _Sender:
    """What this host is told, done."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        self._args = args
        self._listener: Optional[PieceServer] = None
        self._orders = Orders(self._close, lambda order: "alive" in order)

    def work(self) -> None:
        """Do what is told, until the end of it."""
        try:
            source = Source(self._args["source"], self._args["host"], self._args["copy_links"])
        except OSError as error:
            tell(refused=str(error))
            self._wait_for_finish()
            return
        found = {"interfaces": network.interfaces(), "default_address": network.default_address()}
        tell(tree=source.tree, network=found)
        while True:
            order = self._orders.next()
            if "finish" in order:
                self._finish()
                return
            try:
                self._do(source, order)
            except (OSError, EOFError) as error:
                tell(refused=str(error))

    def _do(self, source: Source, order: Mapping[str, Any]) -> None:
        if "hash" in order:
            digests = source.digests(self._args["checksum"], Counter("hashed"))
            tell(digests=[hashes.to_text(each) for each in digests])
        elif "listen" in order:
            token = bytes.fromhex(self._args["token"])
            self._listener = PieceServer(order["listen"], token, source.piece, source.open)
            tell(port=self._listener.port)
        elif "read" in order:
            data = source.read(order["file"], order["offset"], order["length"])
            tell(read=order["read"], data=base64.b64encode(data).decode())

    def _wait_for_finish(self) -> None:
        while "finish" not in self._orders.next():
            continue
        self._finish()

    def _finish(self) -> None:
        self._close()
        tell(finished={})

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
