"""Follow the links of a tree without its files: find those that lead out of it."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Dict, Iterator, List, Optional, Sequence, Tuple

from flagscale_deploy.remote.push.tree import from_wire

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.push import TreeEntry

MOST_FOLLOWED = 40
"""Linux follows no more links in one path (path_resolution(7))."""
End = Optional[Tuple[bytes, int]]
"""Where a link leads, and how many links were followed; None if it leads out of the tree."""


def leading_out(entries: Sequence[TreeEntry]) -> List[str]:
    """Return the paths of the links that lead out of a tree, by themselves or through other links of it.

    A circle of links counts as leading out, as do more than 40 links in a row and `..` behind anything but a directory
    of the tree: where that leads depends on what else is on the host.
    """
    follower = _Follower(entries)
    return [
        entry["path"] for entry in entries if entry["kind"] == "link" and follower.end(from_wire(entry["path"])) is None
    ]


class _Follower:
    """Where the links of one tree lead. Each is followed once."""

    def __init__(self, entries: Sequence[TreeEntry]) -> None:
        self._targets: Dict[bytes, bytes] = {}
        self._directories = {b""}
        for entry in entries:
            if entry["kind"] == "link":
                self._targets[from_wire(entry["path"])] = from_wire(entry["target"])
            elif entry["kind"] == "dir":
                self._directories.add(from_wire(entry["path"]))
        self._ends: Dict[bytes, End] = {}

    def end(self, link: bytes) -> End:
        """Return where a link leads."""
        waiting: OrderedDict[bytes, Iterator[bytes]] = OrderedDict()
        if link not in self._ends:
            waiting[link] = self._follow(link)
        while waiting:
            last = next(reversed(waiting))
            needed = next(waiting[last], None)
            if needed is None:
                del waiting[last]
            elif needed not in waiting:  # else a circle
                waiting[needed] = self._follow(needed)
                if len(waiting) > MOST_FOLLOWED:
                    self._ends[waiting.popitem(last=False)[0]] = None
        return self._ends[link]

    def _follow(self, link: bytes) -> Iterator[bytes]:
        """Note where a link leads; yield each link on the way of which that is not known yet."""
        target, at, followed = self._targets[link], link.rpartition(b"/")[0], 1
        out = target.startswith(b"/")
        for part in target.split(b"/"):
            if out:
                break
            if part in (b"", b"."):
                continue
            if part == b"..":
                out = not at or at not in self._directories
                at = at.rpartition(b"/")[0]
                continue
            at = at + b"/" + part if at else part
            if at in self._targets:
                if at not in self._ends:
                    yield at
                end = self._ends.get(at)
                out = end is None
                if end is not None:
                    at, followed = end[0], followed + end[1]
        self._ends[link] = None if out or followed > MOST_FOLLOWED else (at, followed)
