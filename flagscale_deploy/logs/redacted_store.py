"""The local folder for a host's logs that others will read: no secret is in it at any time.

What comes is written to a file without a name, which goes with the command, however that ends. Once it is whole, it is
copied to its name with its secrets hidden.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from flagscale_deploy.logs.redact import MOST_ZEROS, write_redacted
from flagscale_deploy.logs.store import FILE, IncomingFile, RefusedError, Store, display_name, status_of
from flagscale_deploy.secrets import Redactor
from flagscale_deploy.support.deadline import Deadline


class RedactedStore(Store):
    """The folder of one host. What is not copied by the deadline is left out."""

    def __init__(self, folder: Path, redactor: Redactor, deadline: Deadline) -> None:
        super().__init__(folder)
        self._redactor, self._deadline, self._zeros = redactor, deadline, [MOST_ZEROS]

    def have(self) -> dict[str, tuple[int, str]]:
        """Return nothing: what is here differs from what is on the host."""
        return {}

    def begin(self, name: bytes, at: int, size: int, *, again: bool = False) -> IncomingFile:
        """Open a file as `Store` does. Raises RefusedError, also for a name that holds a secret."""
        if self._redactor.redact(display_name(name)) != display_name(name):
            raise RefusedError("its name holds a secret")
        return super().begin(name, at, size, again=again)

    def publish(self, name: bytes, descriptor: int) -> None:
        """Copy a file that was received to its name. Raises RefusedError, OSError."""
        if self._deadline.expired:
            raise RefusedError("looking for secrets in it would take too long")
        *folders, last = name.split(b"/")
        parent = self._folder(folders)
        fresh = b".%s.new" % os.urandom(8).hex().encode()
        try:
            written = os.open(fresh, FILE | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent)
            try:
                with os.fdopen(written, "wb") as file:
                    write_redacted(descriptor, file, self._redactor, self._zeros)
                if status_of(last, parent) is not None:
                    self._keep(name, last, parent)
                os.rename(fresh, last, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                os.unlink(fresh, dir_fd=parent)
                raise
        finally:
            os.close(parent)

    def _open(self, _name: bytes, last: bytes, parent: int, at: int, _again: bool) -> int:
        status = status_of(last, parent)
        if status is not None and not stat.S_ISREG(status.st_mode):
            raise RefusedError("something that is not a plain file has its name")
        if at:
            raise RefusedError("the host continues a file that is not here")
        hidden = f".{os.urandom(8).hex()}.new"
        descriptor = os.open(hidden, FILE | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._top)
        os.unlink(hidden, dir_fd=self._top)
        return descriptor
