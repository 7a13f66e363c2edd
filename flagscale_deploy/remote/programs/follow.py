"""Send the lines of a deployment's log files, and new ones as they are written.

Scripts as they were sent and what restarts leave are no logs and are left out, and so are files that rotation
compressed. What is new when it goes on where an earlier one ended is sent from its beginning.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Set

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.logs import logfiles
from flagscale_deploy.remote.logs.lines import start_of_last
from flagscale_deploy.remote.logs.open_files import Key, allow_many_files, open_log
from flagscale_deploy.remote.logs.tail import Held, Mark, Place, Tail
from flagscale_deploy.remote.system import clock
from flagscale_deploy.remote.wire import input_ended

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.logs import FollowArguments, FollowReply

send: Callable[[FollowReply], None] = wire.send

POLL_SECONDS = 0.15
LIST_EVERY = 4
"""New files are looked for every fourth time: a Ray session has hundreds, in a tree."""
ALIVE_SECONDS = 30.0
"""A sign of life is sent so often: what nobody acknowledges ends a lost connection, and this program."""
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4")
LEFT_KEPT = 256


class Following:
    """The files that are followed. They are kept open: an inode number can't be given to another file meanwhile."""

    def __init__(self, args: FollowArguments) -> None:
        kinds = args.get("kinds")
        self._deployment, self._host = args["deployment"], args["host"]
        self._kinds: Optional[Set[str]] = None if kinds is None else set(kinds)
        within = args.get("within")
        self._since = args.get("since") if within is None else time.time() - within  # by this host's own clock
        self._tails: Dict[Key, Tail] = {}
        self._held: Dict[Key, Held] = {}
        self._left: List[Place] = [Place.parse(place) for place in args.get("left") or ()]
        places = [Place.parse(place) for place in args.get("places") or ()]
        self._places: Dict[Key, Place] = {place.mark.key: place for place in places}
        self._new = bool(places)
        self._this_run = args.get("this_run", False)
        self._grep = [text.lower() for text in args.get("grep") or ()]

    def find(self, tail: Optional[int]) -> None:
        """Begin to follow what is not followed yet: where it was left, or with its last `tail` lines.

        Not so what comes later: that is new, if it is no copy that rotation makes of what is followed.
        """
        is_its = logfiles.this_run(self._deployment, self._host) if self._this_run else None
        for file in logfiles.listing(self._deployment, self._host):
            if is_its is not None and not is_its(file):
                continue
            if file.name.startswith(logfiles.BESIDE) or (self._kinds is not None and file.kind not in self._kinds):
                continue
            if file.name.endswith(COMPRESSED) or (self._since is not None and file.mtime < self._since):
                continue
            try:
                self._open(file, tail)
            except OSError:  # rotated away, or no more files may be open: it is tried again
                continue
        self._left = (self._left + list(self._places.values()))[-LEFT_KEPT:]  # those of files that are gone
        self._places, self._new = {}, True

    def send_new(self) -> None:
        """Send what is new in each file; of files that are gone, the last of it."""
        for key, tail in list(self._tails.items()):
            removed = tail.removed
            for lines in tail.new():
                send({"file": tail.name, "lines": self._wanted(lines), "at": tail.mark.message()})
            if tail.truncated is not None:
                self._leave(tail.name, tail.truncated)
                tail.truncated = None
            if removed:
                self._leave(tail.name, tail.mark)
                self._say_rest(tail)
                self._tails.pop(key).close()
        for key, held in list(self._held.items()):
            sources = [source for source in self._tails.values() if logfiles.is_rotation(held.name, source.name)]
            offset = held.judged(
                sources, [place for place in self._left if logfiles.is_rotation(held.name, place.name)]
            )
            if offset is not None:
                self._follow(key, self._held.pop(key).tail(offset))

    def send_rest(self) -> None:
        """Send the last line of each file, where it has no end."""
        for tail in self._tails.values():
            self._say_rest(tail)

    def _say_rest(self, tail: Tail) -> None:
        rest = self._wanted(tail.rest())
        if rest:
            send({"file": tail.name, "lines": rest})

    def _wanted(self, lines: List[str]) -> List[str]:
        if not self._grep:
            return lines
        return [line for line in lines if any(text in line.lower() for text in self._grep)]

    def _leave(self, name: str, mark: Mark) -> None:
        self._left = [*self._left, Place(name, mark)][-LEFT_KEPT:]

    def _open(self, file: logfiles.LogFile, tail: Optional[int]) -> None:
        status = os.lstat(file.path)
        if (status.st_dev, status.st_ino) in self._tails or (status.st_dev, status.st_ino) in self._held:
            return
        descriptor = open_log(file.path)
        opened = os.fstat(descriptor)
        key = (opened.st_dev, opened.st_ino)
        left = self._places.pop(key, None)
        if left is not None and left.mark.is_in(descriptor):
            self._follow(key, Tail(left.name, descriptor, left.mark.offset, left.mark.skipping))
        elif left is not None:
            self._leave(left.name, left.mark)
            self._follow(key, Tail(left.name, descriptor, 0))
        elif self._new and self._may_be_a_copy(file.name):
            self._held[key] = Held(file.name, descriptor)
        else:
            at = 0 if tail is None or self._new else start_of_last(descriptor, tail)
            self._follow(key, Tail(file.name, descriptor, at))

    def _may_be_a_copy(self, name: str) -> bool:
        """Return whether rotation may have made it of what is followed, or was."""
        names = [tail.name for tail in self._tails.values()]
        names += [left.name for left in (*self._left, *self._places.values())]
        return any(logfiles.is_rotation(name, source) for source in names)

    def _follow(self, key: Key, tail: Tail) -> None:
        self._tails[key] = tail
        send({"file": tail.name, "lines": [], "at": tail.mark.message()})


def main(args: FollowArguments) -> None:
    """Send the lines, until standard input ends or nobody reads."""
    allow_many_files()
    if args.get("clock"):
        now = clock.look()
        send({"clock": now["clock"], "utc_offset": now["utc_offset"]})
    following = Following(args)
    following.find(args.get("tail"))
    following.send_new()
    if not args.get("follow"):
        following.send_rest()
        return
    turn, alive_at = 0, time.monotonic()
    while not input_ended(POLL_SECONDS):
        turn += 1
        if time.monotonic() > alive_at + ALIVE_SECONDS:
            alive_at = time.monotonic()
            send({"alive": True})
        if turn % LIST_EVERY == 0:
            following.find(None)
        following.send_new()
