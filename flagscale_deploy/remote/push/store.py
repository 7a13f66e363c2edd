"""Store a tree on this host: find what is there, write the rest, and name files once they are complete.

A file is written below DEST/.flagscale-push, and gets its name when the hashes of all its blocks are right. An
interrupted push leaves there what it has written: the next push hashes it, and fetches only what is missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import threading
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence, Set, Tuple

from flagscale_deploy.remote.push import hashes
from flagscale_deploy.remote.push.hashes import SIZE, HashCache, Progress
from flagscale_deploy.remote.push.place import (
    make_directories,
    make_directory,
    open_below,
    open_private,
    open_root,
    parent_of,
    part_of_another_user,
)
from flagscale_deploy.remote.push.shape import difference, has_mode, is_blocked, look_at, put_link, set_mode
from flagscale_deploy.remote.push.tree import STAGING, Piece, block_size, blocks, bytes_of, from_wire, pieces
from flagscale_deploy.remote.push.validate import checked_digests

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.push import PushFinish, PushReply, PushTree, TreeEntry


class Store:
    """A tree below `root`, as validated by `checked_tree`."""

    def __init__(self, root: bytes, tree: PushTree, host: str) -> None:
        self.root, self._mode = root, tree["mode"]
        entries = tree["entries"]
        self.files: List[TreeEntry] = [entry for entry in entries if entry["kind"] == "file"]
        self._others = [entry for entry in entries if entry["kind"] != "file"]
        self.pieces = pieces([file["size"] for file in self.files])
        self.have: Set[int] = set()
        self._digests: List[bytes] = []
        self._complete: Set[int] = set()
        """Files that have their names and the right content."""
        self._blocks_left: Dict[int, int] = {}
        alone = self.files[0]["path"] if tree["single"] else ""
        self._cache = HashCache("%s:%s:%s" % (host, os.fsdecode(root), alone))
        self._present: Dict[int, Tuple[os.stat_result, bytes]] = {}
        self._lock = threading.Lock()
        self._root, self._staging = -1, -1
        self._made: List[bytes] = []

    def look(self, checksum: bool, progress: Progress) -> None:
        """Hash the files that are there with the right size, from the cache unless `checksum`."""
        if not os.path.isdir(self.root):
            return
        self._root = open_root(self.root)
        unread: Dict[int, os.stat_result] = {}
        for number, file in enumerate(self.files):
            status = self._stat(number)
            if status is None or not stat.S_ISREG(status.st_mode) or status.st_size != file["size"]:
                continue
            cached = None if checksum else self._cache.get(file["path"], status)
            if cached is None:
                unread[number] = status
            else:
                self._present[number] = status, cached
        sizes = [(number, status.st_size) for number, status in unread.items()]
        for number, digests in hashes.of_files(self._open_named, sizes, progress).items():
            self._present[number] = unread[number], digests
            self._cache.put(self.files[number]["path"], unread[number], digests)
        self._save_cache()

    def compare(self, digests: Sequence[str]) -> PushReply:
        """Return what differs from the tree whose files have these hashes. Raises ValueError for malformed hashes."""
        self._digests = checked_digests(digests, [file["size"] for file in self.files])
        differs: Dict[str, List[str]] = {"missing": [], "different": [], "modes": []}
        for number, file in enumerate(self.files):
            status, present = self._present.get(number, (None, b""))
            if status is not None and present == self._digests[number]:
                self._complete.add(number)
                if not has_mode(status, file["mode"]):
                    differs["modes"].append(file["path"])
            else:
                differs["missing" if self._stat(number) is None else "different"].append(file["path"])
        for entry in self._others:
            kind = difference(self._root, entry)
            if kind:
                differs[kind].append(entry["path"])
        self.have = {number for number, piece in enumerate(self.pieces) if self._has(piece)}
        return {
            "missing": differs["missing"],
            "different": differs["different"],
            "modes": differs["modes"],
            "blocked": [entry["path"] for entry in self.files + self._others if is_blocked(self._root, entry)],
        }

    def prepare(self, progress: Progress) -> None:
        """Hash what an earlier push has left, and make files for what is missing if there is room.

        Raises OSError; BlockingIOError if another push writes there.
        """
        self._made = make_directories(self.root, self._mode)
        if taken := part_of_another_user(os.fsdecode(self.root)):  # since `root_of` has looked
            raise PermissionError("%s is another user's, and everybody may write beside it" % taken)
        if self._root < 0:
            self._root = open_root(self.root)
        self._staging = open_private(self._root, STAGING)
        fcntl.flock(self._staging, fcntl.LOCK_EX | fcntl.LOCK_NB)
        wanted = [number for number in range(len(self.files)) if number not in self._complete]
        names = {self._staged(number) for number in wanted}
        left = set(map(os.fsencode, os.listdir(self._staging)))
        for name in left - names:  # for other content
            os.unlink(name, dir_fd=self._staging)
        there = [number for number in wanted if self._staged(number) in left]
        self._allocate(there)
        self._resume(wanted, there, progress)
        if self.needed() <= self.free():
            self._allocate(wanted)

    def needed(self) -> int:
        """Return the bytes that the missing pieces will take."""
        return sum(bytes_of(piece) for number, piece in enumerate(self.pieces) if number not in self.have)

    def free(self) -> int:
        """Return the bytes that there is room for. Raises OSError."""
        status = os.fstatvfs(self._root)
        return status.f_bavail * status.f_frsize

    def piece(self, number: int) -> Optional[Piece]:
        """Return a piece for other hosts, None if it is not there."""
        return self.pieces[number] if number in self.have else None

    def digest(self, file: int, offset: int) -> bytes:
        """Return the hash that a file's block at this offset must have."""
        return self._part(self._digests[file], file, offset)

    def open_to_read(self, file: int) -> int:
        """Return a descriptor to read a file's blocks. Raises OSError."""
        with self._lock:
            return self._open_named(file) if file in self._complete else self._open_staged(file, os.O_RDONLY)

    def open_to_write(self, file: int) -> int:
        """Return a descriptor to write a file's blocks, -1 if the file is complete already. Raises OSError."""
        with self._lock:
            return -1 if file in self._complete else self._open_staged(file, os.O_WRONLY)

    def mark_received(self, number: int) -> None:
        """Note that a piece is written and right; name the files that it completes. Raises OSError."""
        with self._lock:
            if number in self.have:
                return
            for span in self.pieces[number]:
                if span.file in self._blocks_left:
                    self._blocks_left[span.file] -= 1
                    if not self._blocks_left[span.file]:
                        self._name(span.file)
            self.have.add(number)

    def finish(self) -> PushFinish:
        """Correct directories, links and modes; return the paths that are missing, none in the end."""
        for number, left in self._blocks_left.items():
            if not left and number not in self._complete:  # empty, or completed by an earlier push
                self._name(number)
        for entry in self._others:
            path = from_wire(entry["path"])
            if entry["kind"] == "link":
                put_link(self._root, self._staging, path, from_wire(entry["target"]))
            else:
                make_directory(self._root, path)
        for number, file in enumerate(self.files):
            if number in self._complete:
                set_mode(self._root, from_wire(file["path"]), file["mode"])
        for entry in reversed(self._others):  # content first: its directory may become read-only
            if entry["kind"] == "dir":
                set_mode(self._root, from_wire(entry["path"]), entry["mode"])
        if self.root in self._made:
            os.fchmod(self._root, self._mode)
        missing = [file["path"] for number, file in enumerate(self.files) if number not in self._complete]
        self._save_cache()
        self.leave()
        return {"missing": missing}

    def leave(self) -> None:
        """Remove our empty files and directories; what was received stays."""
        if self._staging < 0:
            return
        for name in os.listdir(self._staging):
            if os.stat(name, dir_fd=self._staging).st_blocks == 0:
                os.unlink(name, dir_fd=self._staging)
        with contextlib.suppress(OSError):
            os.rmdir(STAGING, dir_fd=self._root)
            for directory in reversed(self._made):
                os.rmdir(directory)

    def _allocate(self, numbers: Sequence[int]) -> None:
        """Make staged files, or give them their size; what is not written yet takes no space."""
        for number in numbers:
            descriptor = self._open_staged(number, os.O_RDWR | os.O_CREAT)
            try:
                os.ftruncate(descriptor, self.files[number]["size"])
            finally:
                os.close(descriptor)

    def _resume(self, wanted: Sequence[int], there: Sequence[int], progress: Progress) -> None:
        """Find the blocks that incomplete files have; one that was never written is a hole, and not read."""
        sizes = [(number, self.files[number]["size"]) for number in there]
        written = hashes.of_files(lambda file: self._open_staged(file, os.O_RDONLY), sizes, progress)
        written.update((number, hashes.of_hole(self.files[number]["size"])) for number in set(wanted).difference(there))
        right: Set[Tuple[int, int]] = set()
        for number, digests in written.items():
            spans = blocks(number, self.files[number]["size"])
            offsets = {span.offset for span in spans if self._is_right(digests, number, span.offset)}
            right |= {(number, offset) for offset in offsets}
            self._blocks_left[number] = len(spans) - len(offsets)
        for number, piece in enumerate(self.pieces):
            if all(span.file in self._complete or (span.file, span.offset) in right for span in piece):
                self.have.add(number)
            else:  # all of it is fetched, also the blocks that are there
                for span in piece:
                    if (span.file, span.offset) in right:
                        self._blocks_left[span.file] += 1

    def _is_right(self, digests: bytes, file: int, offset: int) -> bool:
        return self._part(digests, file, offset) == self.digest(file, offset)

    def _part(self, digests: bytes, file: int, offset: int) -> bytes:
        at = offset // block_size(self.files[file]["size"]) * SIZE
        return digests[at : at + SIZE]

    def _has(self, piece: Piece) -> bool:
        return all(span.file in self._complete for span in piece)

    def _stat(self, number: int) -> Optional[os.stat_result]:
        return look_at(self._root, from_wire(self.files[number]["path"]))

    def _open_named(self, number: int) -> int:
        return open_below(self._root, from_wire(self.files[number]["path"]))

    def _staged(self, number: int) -> bytes:
        path = hashlib.sha256(from_wire(self.files[number]["path"])).hexdigest()[:24]
        return ("%s-%s" % (path, hashlib.sha256(self._digests[number]).hexdigest()[:24])).encode()

    def _open_staged(self, number: int, flags: int) -> int:
        return os.open(self._staged(number), flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._staging)

    def _name(self, number: int) -> None:
        """Give a complete file its name, in the place of what had it."""
        file, staged = self.files[number], self._staged(number)
        descriptor = self._open_staged(number, os.O_RDWR)
        try:
            os.fchmod(descriptor, file["mode"])
            os.utime(descriptor, ns=(file["mtime_ns"], file["mtime_ns"]))
        finally:
            os.close(descriptor)
        path = from_wire(file["path"])
        with parent_of(self._root, path, make=True) as (at, name):
            os.rename(staged, name, src_dir_fd=self._staging, dst_dir_fd=at)
        self._complete.add(number)
        status = self._stat(number)
        if status is not None:
            self._cache.put(file["path"], status, self._digests[number])

    def _save_cache(self) -> None:
        """Save hashes with the times that files have now: a new mode counts as a change."""
        for number in self._complete:
            status = self._stat(number)
            if status is not None:
                self._cache.put(self.files[number]["path"], status, self._digests[number])
        self._cache.save([file["path"] for file in self.files])
