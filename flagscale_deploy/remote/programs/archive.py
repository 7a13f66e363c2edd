"""Sends a deployment's log files, from where the operator's copies of them end.

main({deployment, host, have: {name in hex: [bytes, digest]}, since: None | Unix seconds, within: None | seconds,
max_size: None | bytes}) says {"archive": 2} with this host's clock (`clock.look`), and of every file, one after the
other:

- {"file": name, "size": bytes, "at": offset, "mtime": Unix seconds}: it begins. `at` is what the operator has of it
  already, as `have` told: its digest (`extents.digest`) is that of the file's own beginning. A name that is no UTF-8
  comes in hex, too, as `bytes`. `again`: it comes a second time, from its beginning, because it was truncated.
- {"data": n} and then n bytes, or {"data": n, "packed": m, "by": "zstd" | "zlib"} and then m bytes, of which that makes
  n, at most 1 MiB; {"zeros": n}; {"cut": n} where n bytes are left out: a file of more than `max_size` bytes comes with
  that many, half of them its first, half its last.
- {"end": true, "why": text}: what of it did not come, "" where all did.

{"problem": text, "name": name} is a file that does not come at all. The last message is {"done": true, "older":
number}: how many files were left out, because nobody wrote to them since. A file that grows is sent to where it ended
when its turn came. Files are held open from the beginning, so that rotation takes none away (`snapshot`); one that is
truncated meanwhile comes again, after the copy that was made of it.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Dict, List, Optional, Set, Tuple

from flagscale_deploy.remote.logs import logfiles
from flagscale_deploy.remote.logs.compression import Squeeze
from flagscale_deploy.remote.logs.open_files import Pinned, opened, pin
from flagscale_deploy.remote.logs.sparse import digest, pieces
from flagscale_deploy.remote.system import clock
from flagscale_deploy.remote.wire import say

Have = Dict[str, Tuple[int, str]]


def main(args: Dict[str, Any]) -> None:
    """Send them; see the module."""
    since = args.get("since")
    if args.get("within") is not None:  # by this host's own clock
        since = time.time() - args["within"]
    sending = Sending(args.get("have") or {}, since, args.get("max_size"))
    files = pin(args["deployment"], args["host"])
    say(archive=2, **clock.look())
    for file in files:
        sending.send(file)
    if sending.truncated:
        sending.send_again(pin(args["deployment"], args["host"]), {file.name for file in files})
    say(done=True, older=sending.older)


class Sending:
    """What is sent, and what happened on the way."""

    def __init__(self, have: Have, since: Optional[float], max_size: Optional[int]) -> None:
        self._have, self._since, self._max_size = have, since, max_size
        self._squeeze = Squeeze()
        self.older = 0
        self.truncated: List[Pinned] = []

    def send(self, file: Pinned, again: bool = False) -> None:
        """Send a file, or say why it does not come."""
        why = file.why
        if not why:
            try:
                descriptor = opened(file)
            except OSError as error:
                why = f"it could not be opened: {error.strerror}"
        if why:
            say(problem=why, **_named(file))
            return
        try:
            if not self._send(file, descriptor, again):
                self.truncated.append(file)
        except OSError as error:
            say(end=True, why=f"it could not be read: {error.strerror}")
        if file.descriptor is None:
            os.close(descriptor)

    def send_again(self, now: List[Pinned], sent: Set[str]) -> None:
        """Of what was truncated: copies that were made of it before, then the files themselves as they are now."""
        truncated, self.truncated = self.truncated, []
        for file in now:
            if file.name not in sent and any(logfiles.is_rotation(file.name, each.name) for each in truncated):
                self.send(file)
        for file in truncated:
            self.send(file, again=True)

    def _send(self, file: Pinned, descriptor: int, again: bool) -> bool:
        """Whether it came to the end that it had when it began."""
        found = os.fstat(descriptor)
        if self._since is not None and found.st_mtime < self._since:
            self.older += 1
            return True
        if found.st_size < file.size and not again:
            return False
        size, cut = found.st_size, 0
        at = 0 if again else self._offset(file, descriptor, size)
        if self._max_size is not None and size > self._max_size:
            at, cut = 0, size - self._max_size
        say(size=size, at=at, mtime=found.st_mtime, **_named(file), **({"again": True} if again else {}))
        head = (size - cut) // 2 if cut else size
        whole = _send_range(descriptor, at, head, self._squeeze)
        if cut and whole:
            say(cut=cut)
            whole = _send_range(descriptor, head + cut, size, self._squeeze)
        say(end=True, why="" if whole else "it was truncated while it was read")
        return whole

    def _offset(self, file: Pinned, descriptor: int, size: int) -> int:
        """How much of it the operator has."""
        known = self._have.get(os.fsencode(file.name).hex())
        if known is None or not 0 < known[0] <= size or digest(descriptor, known[0]) != known[1]:
            return 0
        return known[0]


def _send_range(descriptor: int, start: int, end: int, squeeze: Squeeze) -> bool:
    """Whether all of it was there."""
    at = start
    for length, content in pieces(descriptor, start, end):
        at += length
        if content is None:
            say(zeros=length)
        else:
            _send_piece(content, squeeze)
    return at == end


def _send_piece(content: bytes, squeeze: Squeeze) -> None:
    out, packed = sys.stdout.buffer, squeeze.packed(content)
    began = time.monotonic()
    say(data=len(content), **({} if packed is None else {"packed": len(packed.content), "by": packed.by}))
    out.write(content if packed is None else packed.content)
    out.flush()
    if packed is None:
        squeeze.wrote(len(content), time.monotonic() - began)


def _named(file: Pinned) -> Dict[str, str]:
    name = os.fsencode(file.name)
    try:
        return {"file": name.decode()}
    except UnicodeDecodeError:
        return {"file": name.decode(errors="backslashreplace"), "bytes": name.hex()}
