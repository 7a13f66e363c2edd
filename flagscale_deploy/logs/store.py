"""A folder of this disk that a host's logs come into, whatever names the host sends: nothing outside it is touched.

Every part of a name is opened from the folder above it, and no link is followed: neither one that a host could have
sent, which there is no way to, nor one that lies there already.
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

CUT_FILES = b".cut.json"
"""Which files here lack their middle (`max_size`), and behind which byte: they are no beginnings of the host's."""
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
LOOKED_AT = 4096
LONGEST_NAME, DEEPEST = 4096, 64
_KEPT = re.compile(rb"\.kept-\d+$")


class RefusedError(Exception):
    """A file that cannot be had here; `str()` says why."""


class Store:
    """The folder of one host. Folders are made 0700, files 0600. Raises OSError where the disk fails."""

    def __init__(self, folder: Path) -> None:
        for path in (*reversed(folder.parents), folder):
            if not path.exists():
                path.mkdir(mode=0o700, exist_ok=True)
        self._top = os.open(folder, FOLDER)
        self._cut: dict[str, int] = self._read_cut()
        self._kept: dict[bytes, bytes] = {}

    def __enter__(self) -> Store:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        os.close(self._top)

    def have(self) -> dict[str, tuple[int, str]]:
        """Size and digest of every file that may be the beginning of one on the host, by its name in hex."""
        found = {}
        for folder, _, files, above in os.fwalk(b".", dir_fd=self._top):
            for file in files:
                name = os.path.normpath(os.path.join(folder, file))
                if name.hex() in self._cut or name == CUT_FILES or _KEPT.search(file):
                    continue
                with contextlib.suppress(OSError), _reading(file, above) as (descriptor, size):
                    if size:
                        found[name.hex()] = size, digest(descriptor, size) or ""
        return found

    def begin(self, name: bytes, at: int, size: int, *, again: bool = False) -> Member:
        """Begin to write a file of `size` bytes behind its first `at`, which are here.

        What else lies here under its name is kept under another. Raises RefusedError.
        """
        parts = name.split(b"/")
        if b"\0" in name or any(part in (b"", b".", b"..") for part in parts) or name == CUT_FILES:
            raise RefusedError("not a plain file below the folder")
        if len(name) > LONGEST_NAME or len(parts) > DEEPEST:
            raise RefusedError("its name is too long")
        above = self._folder(parts[:-1])
        try:
            return Member(self, name, self._open(name, parts[-1], above, at, again), at, size)
        except OSError as error:
            raise refused(error) from error
        finally:
            os.close(above)

    def is_cut(self, name: bytes, head: int) -> None:
        """A file is going to lack what is behind its first `head` bytes."""
        self._cut[name.hex()] = head
        self._write_cut()

    def forget_kept(self) -> list[tuple[str, str]]:
        """Remove what was kept under another name and is, byte for byte, the beginning of a file beside it: that was
        rotated. Returns what has been kept since this store was opened, and stays: (name, the name it has now)."""
        for folder, _, files, above in os.fwalk(b".", dir_fd=self._top):
            for file in files:
                name = os.path.normpath(os.path.join(folder, file)).hex()
                if _KEPT.search(file) and _is_there_twice(file, files, above, self._cut.get(name)):
                    os.unlink(file, dir_fd=above)
                    if self._cut.pop(name, None) is not None:
                        self._write_cut()
        stay = [(name, kept) for kept, name in self._kept.items() if self._holds(kept)]
        return [(shown(name), shown(kept)) for name, kept in stay]

    def _open(self, name: bytes, last: bytes, above: int, at: int, again: bool) -> int:
        """A descriptor to write to."""
        found = _found(last, above)
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise RefusedError("something that is no file lies where it belongs")
        if found is not None and found.st_nlink == 1 and found.st_size == at and not again:
            descriptor = os.open(last, FILE, dir_fd=above)
            os.fchmod(descriptor, 0o600)
            return descriptor
        if at:
            raise RefusedError("the host goes on where nothing of it is here")
        if found is not None:
            self._keep(name, last, above)
        return os.open(last, FILE | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=above)

    def _keep(self, name: bytes, last: bytes, above: int) -> None:
        number = 1
        while _found(last + b".kept-%d" % number, above) is not None:
            number += 1
        kept = name + b".kept-%d" % number
        os.rename(last, kept.rsplit(b"/", 1)[-1], src_dir_fd=above, dst_dir_fd=above)
        self._kept[kept] = name
        if (cut := self._cut.pop(name.hex(), None)) is not None:
            self._cut[kept.hex()] = cut
            self._write_cut()

    def _holds(self, name: bytes) -> bool:
        above = self._folder(name.split(b"/")[:-1])
        try:
            return _found(name.rsplit(b"/", 1)[-1], above) is not None
        finally:
            os.close(above)

    def _folder(self, parts: list[bytes]) -> int:
        """A descriptor of the folder with these parts below ours, which is made if it is not there."""
        at = os.dup(self._top)
        for part in parts:
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=at)
                below = os.open(part, FOLDER, dir_fd=at)
            except OSError as error:
                raise refused(error) from error
            finally:
                os.close(at)
            at = below
        return at

    def _read_cut(self) -> dict[str, int]:
        with contextlib.suppress(OSError, ValueError), _reading(CUT_FILES, self._top) as (descriptor, size):
            found: Any = json.loads(os.pread(descriptor, size, 0))
            return {str(name): int(head) for name, head in found["cut"].items()}
        return {}

    def _write_cut(self) -> None:
        fresh = CUT_FILES + b".new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(fresh, flags, 0o600, dir_fd=self._top), "w") as file:
            json.dump({"cut": self._cut}, file)
        os.rename(fresh, CUT_FILES, src_dir_fd=self._top, dst_dir_fd=self._top)


class Member:
    """A file that comes."""

    def __init__(self, store: Store, name: bytes, descriptor: int, at: int, size: int) -> None:
        self._store, self.name, self._descriptor, self._at, self._size = store, name, descriptor, at, size
        self._room = size - at
        self.cut_bytes = 0

    def write(self, data: bytes) -> None:
        """The next bytes. Raises OSError; what was written stays."""
        self._take(len(data))
        view = memoryview(data)
        while view:
            count = os.pwrite(self._descriptor, view, self._at)
            self._at += count
            view = view[count:]

    def zeros(self, count: int) -> None:
        """The next bytes are zeros: a hole."""
        self._take(count)
        self._at += count

    def cut(self, count: int) -> None:
        """The next bytes do not come; a line says so."""
        self._take(count)
        self._store.is_cut(self.name, self._at)
        self.cut_bytes += count
        told = b"\n[flagscale-deploy: %d bytes cut]\n" % count
        self._room += len(told)
        self.write(told)

    def finish(self) -> int:
        """Its size, as it is here now."""
        os.ftruncate(self._descriptor, self._at)
        return self._at

    def close(self) -> None:
        os.close(self._descriptor)

    def _take(self, count: int) -> None:
        if count > self._room:
            raise RefusedError("it is longer than it was said to be")
        self._room -= count


def shown(name: bytes) -> str:
    """A file's name as text; two names never look the same unless one of them is meant to."""
    return name.decode(errors="backslashreplace")


def refused(error: OSError) -> RefusedError | OSError:
    """An error that is about this one file, as such; others are about the disk."""
    if error.errno in (errno.ENAMETOOLONG, errno.EFBIG, errno.EINVAL, errno.EILSEQ):
        return RefusedError(f"it cannot be a file here: {error.strerror}")
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST, errno.ENXIO, errno.ENOENT):
        return RefusedError("something else lies where it belongs, or on the way there")
    return error


@contextlib.contextmanager
def _reading(file: bytes, above: int) -> Iterator[tuple[int, int]]:
    """A regular file that has this one name only, and its size. Raises OSError."""
    descriptor = os.open(file, FILE & ~os.O_RDWR, dir_fd=above)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise FileNotFoundError(errno.ENOENT, "not a file of ours")
        yield descriptor, found.st_size
    finally:
        os.close(descriptor)


def _found(last: bytes, above: int) -> os.stat_result | None:
    try:
        return os.stat(last, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_there_twice(kept: bytes, files: list[bytes], above: int, head: int | None) -> bool:
    """Whether a file beside it begins with all that it holds; with its first bytes, where what follows was cut."""
    with contextlib.suppress(OSError), _reading(kept, above) as (descriptor, size):
        first = os.pread(descriptor, LOOKED_AT if head is None else min(head, LOOKED_AT), 0)
        for other in files:
            if other == kept:
                continue
            with contextlib.suppress(OSError), _reading(other, above) as (beside, room):
                same = os.pread(beside, len(first), 0) == first
                if same and (head is not None or (room >= size and digest(beside, size) == digest(descriptor, size))):
                    return True
    return False
