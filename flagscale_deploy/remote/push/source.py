"""Read a tree of this host for the other hosts of a push."""

from __future__ import annotations

import os
from typing import Dict, List, Optional

from flagscale_deploy.remote.push import hashes
from flagscale_deploy.remote.push.hashes import HashCache, Progress
from flagscale_deploy.remote.push.scan import scan
from flagscale_deploy.remote.push.tree import Piece, from_wire, pieces
from flagscale_deploy.remote.push.validate import checked_number


class Source:
    """A tree that is read. `path` is on this host, with ~ for its home. Raises OSError if it cannot be read."""

    def __init__(self, path: str, host: str, copy_links: bool = False) -> None:
        self.path = os.fsencode(os.path.abspath(os.path.expanduser(path)))
        self._copy_links = copy_links
        self.tree = scan(self.path, copy_links)
        self.files = [entry for entry in self.tree["entries"] if entry["kind"] == "file"]
        self.pieces = pieces([file["size"] for file in self.files])
        self._cache = HashCache("%s:%s" % (host, os.fsdecode(os.path.realpath(self.path))))

    def open(self, file: int) -> int:
        """Return a descriptor of one of its files. Raises OSError."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # it may have become a pipe, or a link
        if self.tree["single"]:
            return os.open(self.path, flags)
        path = os.path.join(self.path, from_wire(self.files[file]["path"]))
        return os.open(path, flags if self._copy_links else flags | os.O_NOFOLLOW)

    def read(self, file: int, offset: int, length: int) -> bytes:
        """Return a part of a file. Raises OSError, EOFError if the file ends before, ValueError if it never had it."""
        size = self.files[checked_number(file, range(len(self.files)), "file")]["size"]
        checked_number(length, range(size - checked_number(offset, range(size + 1), "offset") + 1), "length")
        descriptor = self.open(file)
        try:
            data = os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)
        if len(data) < length:
            raise EOFError("%s became shorter" % self.files[file]["path"])
        return data

    def piece(self, number: int) -> Optional[Piece]:
        """Return a piece by its number, None if there is none: a source has all pieces."""
        return self.pieces[number] if number < len(self.pieces) else None

    def digests(self, checksum: bool, progress: Progress) -> List[bytes]:
        """Return the hashes of each file, from the cache unless `checksum`. Raises OSError, EOFError.

        EOFError also means that a file was changed while it was read.
        """
        digests: Dict[int, bytes] = {}
        unread: List[int] = []
        before = [self._stat(number) for number in range(len(self.files))]
        for number, file in enumerate(self.files):
            cached = None if checksum else self._cache.get(file["path"], before[number])
            if cached is None or before[number].st_size != file["size"]:
                unread.append(number)
            else:
                digests[number] = cached
        sizes = [(number, self.files[number]["size"]) for number in unread]
        digests.update(hashes.of_files(self.open, sizes, progress))
        for number in unread:
            after, file = self._stat(number), self.files[number]
            if (after.st_mtime_ns, after.st_size) != (file["mtime_ns"], file["size"]):
                raise EOFError("%s was changed while it was read" % file["path"])
            self._cache.put(file["path"], after, digests[number])
        self._cache.save([file["path"] for file in self.files])
        return [digests[number] for number in range(len(self.files))]

    def _stat(self, number: int) -> os.stat_result:
        descriptor = self.open(number)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)
