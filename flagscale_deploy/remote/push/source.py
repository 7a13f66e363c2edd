"""A tree of this host, read for the other hosts of a push."""

from __future__ import annotations

import os
from typing import Dict, List, Optional

from flagscale_deploy.remote.push import hashes
from flagscale_deploy.remote.push.hashes import Memory, Told
from flagscale_deploy.remote.push.tree import Piece, from_wire, pieces, scan


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
        found.update(hashes.of_files(self.open, [(each, self.files[each]["size"]) for each in unknown], told))
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
