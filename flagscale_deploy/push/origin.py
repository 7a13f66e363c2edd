"""Files of this machine, as the source of a push: hashed, and read piece by piece."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from flagscale_deploy.errors import InputError
from flagscale_deploy.push.inbox import CHUNK, Inbox
from flagscale_deploy.push.schedule import SOURCE
from flagscale_deploy.remote.push_hash import silent, to_text
from flagscale_deploy.remote.push_source import Source


class Here:
    """They are sent through SSH, and nobody can call us. The hashes come into the inbox: {"digests"} or {"refused"}."""

    def __init__(self, path: str, inbox: Inbox, *, copy_links: bool, checksum: bool) -> None:
        """Raises InputError where they can't be read."""
        self._inbox, self._checksum = inbox, checksum
        try:
            self._source = Source(path, "", copy_links)
        except OSError as error:
            raise InputError.at(str(error.filename or path), f"cannot be read: {error.strerror}") from error

    @property
    def tree(self) -> Mapping[str, Any]:
        """What there is, as `push_tree.scan` has it."""
        return self._source.tree

    def hash(self) -> None:
        """Begin to hash all files."""
        threading.Thread(target=self._hash, daemon=True).start()

    def read(self, piece: int) -> Iterator[bytes]:
        """The bytes of a piece, in chunks. Raises OSError, EOFError."""
        for span in self._source.pieces[piece]:
            descriptor = self._source.open(span.file)
            try:
                for at in range(0, span.length, CHUNK):
                    wanted = min(CHUNK, span.length - at)
                    data = os.pread(descriptor, wanted, span.offset + at)
                    if len(data) < wanted:
                        raise EOFError(f"{self._source.files[span.file]['path']} became shorter")
                    yield data
            finally:
                os.close(descriptor)

    def _hash(self) -> None:
        try:
            digests = self._source.digests(self._checksum, silent)
        except (OSError, EOFError) as error:
            self._inbox.put((SOURCE, {"refused": str(error)}))
        else:
            self._inbox.put((SOURCE, {"digests": [to_text(each) for each in digests]}))
