"""Says the lines of a deployment's log files, and new ones as they are written.

main({deployment, host, tail: None | lines, follow: bool, kinds: None | [kind]}) answers {"file": name, "lines":
[text]}: the last `tail` lines of each file (all of it if None), then, if `follow`, what is added, until standard input
ends or nobody reads. Names and kinds are those of `logfiles`; scripts as they were sent are no logs and are left out.
"""

from __future__ import annotations

import os
import resource
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

from flagscale_deploy.remote import logfiles
from flagscale_deploy.remote.lines import Cutter, start_of_last
from flagscale_deploy.remote.wire import lifeline_lost, say

POLL_SECONDS = 0.15
LIST_EVERY = 4
"""New files are looked for every fourth time: a Ray session has hundreds, in a tree."""
READ = 256 << 10
Key = Tuple[int, int]


class Tail:
    """A file, followed by itself and not by its name: what is written to it after it was rotated away is its own."""

    def __init__(self, name: str, descriptor: int, offset: int) -> None:
        self.name = name
        self._descriptor, self._offset = descriptor, offset
        self._cutter = Cutter()

    def new(self) -> Iterator[List[str]]:
        """The lines that were added since the last time. A file that has become shorter is read from its beginning."""
        if os.fstat(self._descriptor).st_size < self._offset:
            self._offset, self._cutter = 0, Cutter()
        while True:
            data = os.pread(self._descriptor, READ, self._offset)
            self._offset += len(data)
            lines = self._cutter.feed(data)
            if lines:
                yield lines
            if not data:
                return

    def rest(self) -> List[str]:
        """The last line, if it has no end."""
        return self._cutter.rest()

    @property
    def removed(self) -> bool:
        """Whether the file has no name any more."""
        return os.fstat(self._descriptor).st_nlink == 0

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


class Following:
    """All files that are followed. They are kept open: an inode number can't be given to another file meanwhile."""

    def __init__(self, deployment: str, host: str, kinds: Optional[Set[str]]) -> None:
        self._deployment, self._host, self._kinds = deployment, host, kinds
        self._tails: Dict[Key, Tail] = {}

    def find(self, tail: Optional[int]) -> None:
        """Begin to follow what is not followed yet, with its last `tail` lines."""
        for file in logfiles.listing(self._deployment, self._host):
            if file.name.startswith("scripts/") or (self._kinds is not None and file.kind not in self._kinds):
                continue
            try:
                self._open(file, tail)
            except OSError:  # rotated away, or no more files may be open: it is tried again
                continue

    def say_new(self) -> None:
        """Say what is new in each file; of files that are gone, the last of it."""
        for key, tail in list(self._tails.items()):
            removed = tail.removed
            for lines in tail.new():
                say(file=tail.name, lines=lines)
            if removed:
                self._say_rest(tail)
                self._tails.pop(key).close()

    def say_rest(self) -> None:
        """Say the last line of each file, where it has no end."""
        for tail in self._tails.values():
            self._say_rest(tail)

    def _say_rest(self, tail: Tail) -> None:
        rest = tail.rest()
        if rest:
            say(file=tail.name, lines=rest)

    def _open(self, file: logfiles.LogFile, tail: Optional[int]) -> None:
        found = os.lstat(file.path)
        if (found.st_dev, found.st_ino) in self._tails:
            return
        descriptor = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW)
        opened = os.fstat(descriptor)
        offset = 0 if tail is None else start_of_last(descriptor, tail)
        self._tails[(opened.st_dev, opened.st_ino)] = Tail(file.name, descriptor, offset)


def main(args: Dict[str, Any]) -> None:
    """Say the lines; see the module."""
    _allow_many_files()
    kinds = args.get("kinds")
    following = Following(args["deployment"], args["host"], None if kinds is None else set(kinds))
    following.find(args.get("tail"))
    following.say_new()
    if not args.get("follow"):
        following.say_rest()
        return
    turn = 0
    while not lifeline_lost(POLL_SECONDS):
        turn += 1
        if turn % LIST_EVERY == 0:
            following.find(None)
        following.say_new()


def _allow_many_files() -> None:
    """A large Ray session has more log files than the usual 1024 descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
