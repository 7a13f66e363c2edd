"""Holds the deployment's lock on its head for as long as the operator is heard.

main({deployment, host, wait, beat, lease, holder: {who, what, since}}), times in seconds, answers {"locked": true} and
stays; or, when somebody else holds it after `wait`, {"locked": false, "holder": {...}, "silent": seconds | None}; or
{"locked": false, "problem": text} where no lock can be had there at all.

While it holds the lock it says {"beat": n} every `beat` seconds, and the operator answers each with a line. The kernel
lets go of the lock when this process ends, however it ends. It ends with its standard input, and by itself when no
answer came for `lease` seconds: after the operator's power loss sshd can keep a dead connection for hours. `unlock`
ends it with SIGTERM: then it says {"displaced": {who, since}} first, so that its operator's command does not go on.
"""

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import time
from pathlib import Path
from typing import Any, Dict, Optional

from flagscale_deploy.remote import proc, record, state
from flagscale_deploy.remote.wire import lifeline_lost, say

POLL_SECONDS = 0.1
HELD = (errno.EWOULDBLOCK, errno.EACCES)


class UnusableError(Exception):
    """Where no lock can be had at all."""


def main(args: Dict[str, Any]) -> None:
    directory = state.directory(args["deployment"], args["host"])
    path = directory / "lock"
    end = time.monotonic() + args["wait"]
    while True:
        try:
            descriptor = take(path)
        except UnusableError as error:
            say(locked=False, problem=str(error))
            return
        if descriptor is not None:
            break
        if time.monotonic() >= end:
            found = holder(path)
            say(locked=False, holder=found, silent=silent_for(found))
            return
        if lifeline_lost(POLL_SECONDS):
            return
    try:
        with contextlib.suppress(BrokenPipeError):
            keep(descriptor, {**args["holder"], **identity()}, directory, args["beat"], args["lease"])
    finally:
        leave(directory, descriptor)


def identity() -> Dict[str, Any]:
    """Who holds a lock, as the kernel of this host knows it, and where the command comes from."""
    me = proc.find(os.getpid())
    return {
        "from": os.environ.get("SSH_CLIENT", "").partition(" ")[0],
        "pid": os.getpid(),
        "start_ticks": me.start_ticks if me else None,
        "boot_id": record.boot_id(),
    }


def keep(descriptor: int, known: Dict[str, Any], directory: Path, beat: float, lease: float) -> None:
    """Hold the lock until the operator lets go, is gone, or is displaced."""
    unlocked = _sigterm()
    said = heard = time.monotonic()
    write(descriptor, known)
    say(locked=True)
    count = 0
    while time.monotonic() - heard < lease:
        ready, _, _ = select.select([0, unlocked], [], [], max(0.0, said + beat - time.monotonic()))
        if unlocked in ready:
            say(displaced=displacer(directory))
            return
        if ready:
            if os.read(0, 65536) == b"":
                return
            heard = time.monotonic()
            write(descriptor, known)
        if time.monotonic() >= said + beat:
            said, count = time.monotonic(), count + 1
            say(beat=count)
    say(displaced={"silent": lease})


def write(descriptor: int, known: Dict[str, Any]) -> None:
    """Say in the lock file who holds it, and that he was heard just now, by the clock that nobody sets."""
    # The time has a fixed width: who reads while it is written anew reads one of the two.
    text = json.dumps({**known, "heard": "%015.3f" % time.monotonic()}).encode()
    os.pwrite(descriptor, text, 0)
    os.ftruncate(descriptor, len(text))


def take(path: Path) -> Optional[int]:
    """A descriptor that holds the lock, or None where somebody has it. A file that was removed meanwhile locks nothing.

    Raises UnusableError where no file can be made or locked there.
    """
    try:
        state.make(path.parent)
        descriptor = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UnusableError("%s: %s" % (error.filename or path, error.strerror)) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(str(path))):
            return descriptor
    except FileNotFoundError:
        pass  # its holder has just removed it
    except OSError as error:
        if error.errno not in HELD:
            os.close(descriptor)
            kind = filesystem(path)
            raise UnusableError("%s, on %s, cannot be locked: %s" % (path, kind, error.strerror)) from None
    os.close(descriptor)
    return None


def leave(directory: Path, descriptor: int) -> None:
    """Let go of the lock. Where nothing was recorded under it, nothing of it stays."""
    ours = _is_at(descriptor, directory / "lock")
    os.ftruncate(descriptor, 0)
    if ours and not (directory / "record.json").exists():
        with contextlib.suppress(OSError):
            os.unlink(str(directory / "lock"))
            for each in (directory, directory.parent, directory.parent.parent):
                os.rmdir(str(each))
    os.close(descriptor)


def holder(path: Path) -> Dict[str, Any]:
    """Who wrote the lock file; empty while they have not yet."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def displacer(directory: Path) -> Dict[str, Any]:
    """Who has ended this with `unlock`, as he left it beside the lock; empty where somebody just sent SIGTERM."""
    path = directory / "unlocked.json"
    found = holder(path)
    with contextlib.suppress(OSError):
        os.unlink(str(path))
    return found


def silent_for(found: Dict[str, Any]) -> Optional[float]:
    """For how many seconds the holder's operator has not been heard; None where the file does not say."""
    try:
        return max(0.0, time.monotonic() - float(found["heard"])) if found["boot_id"] == record.boot_id() else None
    except (KeyError, TypeError, ValueError):
        return None


def filesystem(path: Path) -> str:
    """The type of the file system that a path lies on, "" where it cannot be told."""
    try:
        real = os.path.realpath(str(path))
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return ""
    found = ("", "")
    for words in mounts:
        point = words[4].encode().decode("unicode_escape")
        if (real + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(found[0]):
            found = (point, words[words.index("-") + 1])
    return found[1]


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(str(path)))
    except OSError:
        return False


def _sigterm() -> int:
    """A descriptor that can be read once SIGTERM has come."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    signal.signal(signal.SIGTERM, lambda _number, _frame: os.write(writing, b"x") and None)
    return reading
