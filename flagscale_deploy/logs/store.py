"""The local folder for a host's logs. Whatever names the host sends, nothing outside the folder is touched.

Every part of a name is opened relative to its parent folder, and no link is followed. A host cannot send links, but
one may be there already, and in a folder in /tmp anything that another user has put there: only files of ours are read
or continued.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from flagscale_deploy.remote.logs.sparse import digest
from flagscale_deploy.remote.system.files import make_private_directory, write_atomically
from flagscale_deploy.remote.system.json_files import parse
from flagscale_deploy.support.deadline import Deadline

CUT_FILES = b".cut.json"
"""Lists the files that lack their middle (`max_size`), and after which byte: collecting cannot continue them."""
CUT_BYTES = 64 << 20
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
COMPARED_BYTES = 4096
COMPARE_SECONDS = 5.0
"""How long kept files are compared with those beside them; what is not compared by then stays."""
LONGEST_NAME, DEEPEST = 4096, 64
_KEPT = re.compile(rb"\.kept-\d+$")


class RefusedError(Exception):
    """Raised for a file that cannot be stored here; `str()` says why."""


class Store:
    """The folder of one host. Folders have mode 0700, files 0600. Raises OSError where the disk fails."""

    def __init__(self, folder: Path) -> None:
        make_private_directory(folder)
        self._top = os.open(folder, FOLDER)
        self._owner = self._look_whose()
        self._cut: dict[str, int] = self._read_cut()
        self._kept: dict[bytes, bytes] = {}
        self._made = 0

    def __enter__(self) -> Store:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        os.close(self._top)

    def have(self) -> dict[str, tuple[int, str]]:
        """Return size and digest of every file that may be the beginning of one on the host, by its name in hex."""
        sizes = {}
        for folder, _, files, parent in os.fwalk(b".", dir_fd=self._top):
            for file in files:
                name = os.path.normpath(os.path.join(folder, file))
                if name.hex() in self._cut or name == CUT_FILES or _KEPT.search(file):
                    continue
                with contextlib.suppress(OSError), self._reading(file, parent) as (descriptor, size):
                    if size:
                        sizes[name.hex()] = size, digest(descriptor, size) or ""
        return sizes

    def begin(self, name: bytes, at: int, size: int, *, again: bool = False) -> IncomingFile:
        """Open a file of `size` bytes to write behind its first `at` bytes, which are here already.

        A different file of this name is kept under another name. Raises RefusedError.
        """
        parts = name.split(b"/")
        if b"\0" in name or any(part in (b"", b".", b"..") for part in parts) or name == CUT_FILES:
            raise RefusedError("its name is not that of a file below the folder")
        if len(name) > LONGEST_NAME or len(parts) > DEEPEST:
            raise RefusedError("its name is too long")
        parent = self._folder(parts[:-1])
        try:
            return IncomingFile(self, name, self._open(name, parts[-1], parent, at, again), at, size)
        except OSError as error:
            raise as_refusal(error) from error
        finally:
            os.close(parent)

    def publish(self, name: bytes, descriptor: int) -> None:
        """Take note that a file was received."""

    def take_made(self) -> int:
        """Return how many folders were made since this was called last."""
        made, self._made = self._made, 0
        return made

    def mark_cut(self, name: bytes, head: int) -> None:
        """Record that a file lacks what follows its first `head` bytes."""
        self._cut[name.hex()] = head
        self._write_cut()

    def forget_kept(self) -> list[tuple[str, str]]:
        """Remove kept files that are, byte for byte, the beginning of a file beside them (a rotated log).

        Returns the others that were kept since this store was opened: (name, the name it has now).
        """
        deadline = Deadline(COMPARE_SECONDS)
        for folder, _, files, parent in os.fwalk(b".", dir_fd=self._top):
            for file in files:
                name = os.path.normpath(os.path.join(folder, file)).hex()
                if _KEPT.search(file) and self._is_in_another_file(file, files, parent, self._cut.get(name), deadline):
                    os.unlink(file, dir_fd=parent)
                    if self._cut.pop(name, None) is not None:
                        self._write_cut()
        return [(display_name(name), display_name(kept)) for kept, name in self._kept.items() if self._contains(kept)]

    def _open(self, name: bytes, last: bytes, parent: int, at: int, again: bool) -> int:
        """Return a descriptor to write to."""
        status = status_of(last, parent)
        if status is not None and not stat.S_ISREG(status.st_mode):
            raise RefusedError("something that is not a plain file has its name")
        if status is not None and status.st_size == at and not again and self._is_ours(status):
            descriptor = os.open(last, FILE, dir_fd=parent)
            if self._is_ours(os.fstat(descriptor)):
                os.fchmod(descriptor, 0o600)
                return descriptor
            os.close(descriptor)
        if at:
            raise RefusedError("the host continues a file that is not here")
        if status is not None:
            self._keep(name, last, parent)
        return os.open(last, FILE | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent)

    def _keep(self, name: bytes, last: bytes, parent: int) -> None:
        number = 1
        while status_of(last + b".kept-%d" % number, parent) is not None:
            number += 1
        kept = name + b".kept-%d" % number
        os.rename(last, kept.rsplit(b"/", 1)[-1], src_dir_fd=parent, dst_dir_fd=parent)
        self._kept[kept] = name
        if (cut := self._cut.pop(name.hex(), None)) is not None:
            self._cut[kept.hex()] = cut
            self._write_cut()

    def _contains(self, name: bytes) -> bool:
        parent = self._folder(name.split(b"/")[:-1])
        try:
            return status_of(name.rsplit(b"/", 1)[-1], parent) is not None
        finally:
            os.close(parent)

    def _folder(self, parts: list[bytes]) -> int:
        """Return a descriptor of the folder with these parts below ours; create it if it is missing."""
        at = os.dup(self._top)
        for part in parts:
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=at)
                    self._made += 1
                below = os.open(part, FOLDER, dir_fd=at)
            except OSError as error:
                raise as_refusal(error) from error
            finally:
                os.close(at)
            at = below
        return at

    def _read_cut(self) -> dict[str, int]:
        with (
            contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError),
            self._reading(CUT_FILES, self._top) as (descriptor, size),
        ):
            content: Any = parse(os.pread(descriptor, min(size, CUT_BYTES), 0))
            return {str(name): int(head) for name, head in content["cut"].items()}
        return {}

    def _write_cut(self) -> None:
        write_atomically(Path(CUT_FILES.decode()), json.dumps({"cut": self._cut}), dir_fd=self._top)

    def _look_whose(self) -> int:
        """Return the user that our new files here belong to; NFS makes it another than we are."""
        name = f".{os.urandom(8).hex()}.new"
        try:
            descriptor = os.open(name, FILE | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._top)
            os.unlink(name, dir_fd=self._top)
            owner = os.fstat(descriptor).st_uid
        except OSError:
            os.close(self._top)
            raise
        os.close(descriptor)
        return owner

    def _is_ours(self, status: os.stat_result) -> bool:
        """Return whether a file is one that was collected: regular, of our own, and under no other name (hard link)."""
        return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == self._owner

    @contextlib.contextmanager
    def _reading(self, file: bytes, parent: int) -> Iterator[tuple[int, int]]:
        """Open a collected file; yield its descriptor and size. Raises OSError, for anything else too."""
        descriptor = os.open(file, FILE & ~os.O_RDWR, dir_fd=parent)
        try:
            status = os.fstat(descriptor)
            if not self._is_ours(status):
                raise FileNotFoundError(errno.ENOENT, "not a collected file")
            yield descriptor, status.st_size
        finally:
            os.close(descriptor)

    def _is_in_another_file(
        self, kept: bytes, files: list[bytes], parent: int, head: int | None, deadline: Deadline
    ) -> bool:
        """Return whether another file of the folder begins with its content (its first `head` bytes if it was cut).

        False past the deadline.
        """
        with contextlib.suppress(OSError), self._reading(kept, parent) as (descriptor, size):
            first = os.pread(descriptor, COMPARED_BYTES if head is None else min(head, COMPARED_BYTES), 0)
            for other in files:
                if deadline.expired:
                    return False
                if other == kept:
                    continue
                with contextlib.suppress(OSError), self._reading(other, parent) as (other_descriptor, other_size):
                    same = os.pread(other_descriptor, len(first), 0) == first
                    whole = head is None and other_size >= size
                    if same and (
                        head is not None or (whole and digest(other_descriptor, size) == digest(descriptor, size))
                    ):
                        return True
        return False


class IncomingFile:
    """A file that is being received."""

    def __init__(self, store: Store, name: bytes, descriptor: int, at: int, size: int) -> None:
        self._store, self.name, self._descriptor, self._at, self._size = store, name, descriptor, at, size
        self._room = size - at
        self.cut_bytes = 0

    def write(self, data: bytes) -> None:
        """Write the next bytes. Raises OSError; what was written stays."""
        self._take(len(data))
        view = memoryview(data)
        while view:
            count = os.pwrite(self._descriptor, view, self._at)
            self._at += count
            view = view[count:]

    def zeros(self, count: int) -> None:
        """Skip the next bytes, which are zeros: a hole."""
        self._take(count)
        self._at += count

    def cut(self, count: int) -> None:
        """Write a line in place of the next bytes, which are left out."""
        self._take(count)
        self._store.mark_cut(self.name, self._at)
        self.cut_bytes += count
        marker = b"\n[flagscale-deploy: %d bytes cut]\n" % count
        self._room += len(marker)
        self.write(marker)

    def finish(self) -> int:
        """Truncate the file to what was received, and return its size. Raises RefusedError, OSError."""
        os.ftruncate(self._descriptor, self._at)
        self._store.publish(self.name, self._descriptor)
        return self._at

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _take(self, count: int) -> None:
        if count > self._room:
            raise RefusedError("it is longer than announced")
        self._room -= count


def display_name(name: bytes) -> str:
    """Return a file's name as text; bytes that are no UTF-8 are escaped."""
    return name.decode(errors="backslashreplace")


def as_refusal(error: OSError) -> RefusedError | OSError:
    """Return a RefusedError for an error that concerns one file only; others concern the disk and stay as they are."""
    if error.errno in (errno.ENAMETOOLONG, errno.EFBIG, errno.EINVAL, errno.EILSEQ):
        return RefusedError(f"it cannot be stored here: {error.strerror}")
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST, errno.ENXIO, errno.ENOENT):
        return RefusedError("something else has its name, or the name of its folder")
    return error


def status_of(last: bytes, parent: int) -> os.stat_result | None:
    """Return the status of a name in a folder, None where there is nothing."""
    try:
        return os.stat(last, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
