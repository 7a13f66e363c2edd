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
from typing import Any, Dict, List, Mapping, Optional

from flagscale_deploy.remote import network, push_hash
from flagscale_deploy.remote.push_hash import Memory, Told
from flagscale_deploy.remote.push_orders import Counter, Orders, tell
from flagscale_deploy.remote.push_serve import Listener
from flagscale_deploy.remote.push_tree import Piece, from_wire, pieces, scan


class Source:
    """A tree that is read. `path` is of the host's, with ~ for its home. Raises OSError where it can't be read."""

    def __init__(self, path: str, host: str, copy_links: bool = False) -> None:
        self.path = os.fsencode(os.path.abspath(os.path.expanduser(path)))
        self.tree = scan(self.path, copy_links)
        self.files = [entry for entry in self.tree["entries"] if entry["kind"] == "file"]
        self.pieces = pieces([file["size"] for file in self.files])
        self._memory = Memory("%s:%s" % (host, os.fsdecode(os.path.realpath(self.path))))

    def open(self, file: int) -> int:
        """A descriptor of one of its files. Raises OSError."""
        name = b"" if self.tree["single"] else from_wire(self.files[file]["path"])
        return os.open(os.path.join(self.path, name) if name else self.path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, file: int, offset: int, length: int) -> bytes:
        """A part of a file. Raises OSError, EOFError where the file ends before."""
        descriptor = self.open(file)
        try:
            data = os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)
        if len(data) < length:
            raise EOFError("%s became shorter" % self.files[file]["path"])
        return data

    def piece(self, number: int) -> Optional[Piece]:
        """A piece by its number: all of them are there."""
        return self.pieces[number] if number < len(self.pieces) else None

    def digests(self, checksum: bool, told: Told) -> List[bytes]:
        """The hashes of each file; with `checksum`, also of those hashed before. Raises OSError, EOFError.

        EOFError also where a file was changed while it was read.
        """
        found: Dict[int, bytes] = {}
        unknown: List[int] = []
        before = [self._stat(number) for number in range(len(self.files))]
        for number, file in enumerate(self.files):
            known = None if checksum else self._memory.get(file["path"], before[number])
            if known is None or before[number].st_size != file["size"]:
                unknown.append(number)
            else:
                found[number] = known
        found.update(push_hash.of_files(self.open, [(each, self.files[each]["size"]) for each in unknown], told))
        for number in unknown:
            after, file = self._stat(number), self.files[number]
            if (after.st_mtime_ns, after.st_size) != (file["mtime_ns"], file["size"]):
                raise EOFError("%s was changed while it was read" % file["path"])
            self._memory.put(file["path"], after, found[number])
        self._memory.save([file["path"] for file in self.files])
        return [found[number] for number in range(len(self.files))]

    def _stat(self, number: int) -> os.stat_result:
        descriptor = self.open(number)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)


def main(args: Mapping[str, Any]) -> None:
    """Send; see the module."""
    _Sender(args).work()
    sys.stdout.flush()
    os._exit(0)  # a thread still reads standard input, and an interpreter that ends must not wait for its lock


class _Sender:
    """What this host is told, done."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        self._args = args
        self._listener: Optional[Listener] = None
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
            tell(digests=[push_hash.to_text(each) for each in digests])
        elif "listen" in order:
            token = bytes.fromhex(self._args["token"])
            self._listener = Listener(order["listen"], token, source.piece, source.open)
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
