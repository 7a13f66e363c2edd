"""Send a deployment's log files, each from where the operator's copy of it ends.

Files are held open from the beginning, so that rotation takes none away (`logs/open_files.py`). A file that grows is
sent to where it ended when its turn came; one that is truncated meanwhile comes again, after the copy that was made of
it.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Set, Tuple

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.logs import logfiles
from flagscale_deploy.remote.logs.compression import Compressor
from flagscale_deploy.remote.logs.open_files import Pinned, opened, pin
from flagscale_deploy.remote.logs.sparse import digest, pieces
from flagscale_deploy.remote.system import clock

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.logs import ArchiveArguments, ArchiveReply

send: Callable[[ArchiveReply], None] = wire.send

Have = Dict[str, Tuple[int, str]]


def main(args: ArchiveArguments) -> None:
    """Send them."""
    within = args.get("within")
    since = args.get("since") if within is None else time.time() - within  # by this host's own clock
    sending = Sending(args.get("have") or {}, since, args.get("max_size"))
    files = pin(args["deployment"], args["host"])
    now = clock.look()
    send({"archive": 2, "clock": now["clock"], "utc_offset": now["utc_offset"]})
    for file in files:
        sending.send(file)
    if sending.truncated:
        sending.send_again(pin(args["deployment"], args["host"]), {file.name for file in files})
    send({"done": True, "older": sending.older})


class Sending:
    """What is sent, and what happened on the way."""

    def __init__(self, have: Have, since: Optional[float], max_size: Optional[int]) -> None:
        self._have, self._since, self._max_size = have, since, max_size
        self._compressor = Compressor()
        self.older = 0
        self.truncated: List[Pinned] = []

    def send(self, file: Pinned, again: bool = False) -> None:
        """Send a file, or report why it does not come."""
        why = file.why
        if not why:
            try:
                descriptor = opened(file)
            except OSError as error:
                why = f"it could not be opened: {error.strerror}"
        if why:
            send({"problem": why, **_named(file)})
            return
        try:
            if not self._send(file, descriptor, again):
                self.truncated.append(file)
        except OSError as error:
            send({"end": True, "why": f"it could not be read: {error.strerror}"})
        if file.descriptor is None:
            os.close(descriptor)

    def send_again(self, now: List[Pinned], sent: Set[str]) -> None:
        """Send what was truncated: copies that were made of it before, then the files themselves as they are now."""
        truncated, self.truncated = self.truncated, []
        for file in now:
            if file.name not in sent and any(logfiles.is_rotation(file.name, other.name) for other in truncated):
                self.send(file)
        for file in truncated:
            self.send(file, again=True)

    def _send(self, file: Pinned, descriptor: int, again: bool) -> bool:
        """Send a file; return whether its end came as it was when it began."""
        status = os.fstat(descriptor)
        if self._since is not None and status.st_mtime < self._since:
            self.older += 1
            return True
        if status.st_size < file.size and not again:
            return False
        size, cut = status.st_size, 0
        at = 0 if again else self._offset(file, descriptor, size)
        if self._max_size is not None and size > self._max_size:
            at, cut = 0, size - self._max_size
        begun: ArchiveReply = {"size": size, "at": at, "mtime": status.st_mtime, **_named(file)}
        if again:
            begun["again"] = True
        send(begun)
        head = (size - cut) // 2 if cut else size
        whole = _send_range(descriptor, at, head, self._compressor)
        if cut and whole:
            send({"cut": cut})
            whole = _send_range(descriptor, head + cut, size, self._compressor)
        send({"end": True, "why": "" if whole else "it was truncated while it was read"})
        return whole

    def _offset(self, file: Pinned, descriptor: int, size: int) -> int:
        """Return how much of it the operator has."""
        copy = self._have.get(os.fsencode(file.name).hex())
        if copy is None or not 0 < copy[0] <= size or digest(descriptor, copy[0]) != copy[1]:
            return 0
        return copy[0]


def _send_range(descriptor: int, start: int, end: int, compressor: Compressor) -> bool:
    """Send a part of a file; return whether all of it was there."""
    at = start
    for length, content in pieces(descriptor, start, end):
        at += length
        if content is None:
            send({"zeros": length})
        else:
            _send_piece(content, compressor)
    return at == end


def _send_piece(content: bytes, compressor: Compressor) -> None:
    out, packed = sys.stdout.buffer, compressor.compress(content)
    began = time.monotonic()
    if packed is None:
        send({"data": len(content)})
    else:
        send({"data": len(content), "packed": len(packed.content), "by": packed.by})
    out.write(content if packed is None else packed.content)
    out.flush()
    if packed is None:
        compressor.note_plain(len(content), time.monotonic() - began)


def _named(file: Pinned) -> ArchiveReply:
    name = os.fsencode(file.name)
    try:
        return {"file": name.decode()}
    except UnicodeDecodeError:
        return {"file": name.decode(errors="backslashreplace"), "bytes": name.hex()}
