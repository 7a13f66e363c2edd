"""Read the files that a user names: regular files of a bounded size, and pipes of the shell until a deadline."""

from __future__ import annotations

import os
import re
import select
import stat
from pathlib import Path

from flagscale_deploy.errors import InputError
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.support.learn_secrets import learn_text
from flagscale_deploy.support.units import MIB, format_size

MOST_BYTES = 4 * MIB
"""An inventory of 10,000 hosts with variables has 1 MiB."""
PIPE_SECONDS = 60.0
"""How long the program behind `<(…)` or `… |` may take; it may ask for a password."""

_PIPES = re.compile(r"/dev/stdin|/dev/fd/\d{1,9}|/proc/self/fd/\d{1,9}")
_KINDS = (
    (stat.S_ISDIR, "is a folder", "name a file in it"),
    (stat.S_ISFIFO, "is a named pipe", "write its content to a file, or use <(COMMAND)"),
    (stat.S_ISSOCK, "is a socket", "name a file"),
    (stat.S_ISCHR, "is a device", "name a file"),
    (stat.S_ISBLK, "is a device", "name a file"),
)
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_text(path: str | Path, most: int = MOST_BYTES, *, encoding: str = "utf-8-sig") -> str:
    """Return the text of a file. Raises InputError where it is no such text, or no file to read as a whole."""
    content = read_bytes(path, most)
    if content.startswith(_BYTE_ORDER_MARKS):
        raise InputError.at(str(path), "is text in UTF-16", "save it as text in UTF-8")
    if b"\0" in content:
        raise InputError.at(
            _place(path, content[: content.index(b"\0")]), "holds a NUL byte", "save it as text in UTF-8"
        )
    try:
        text = content.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
        learn_text(text)
        return text
    except UnicodeDecodeError as error:
        name = "ASCII" if encoding == "ascii" else "UTF-8"
        problem = f"is not text in {name}: {error.reason} at byte {error.start}"
        raise InputError.at(_place(path, content[: error.start]), problem, f"save it as text in {name}") from error


def _place(path: str | Path, before: bytes) -> str:
    """Return file, line and column of what follows some bytes."""
    line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
    return f"{path}:{line}:{column}"


def read_bytes(path: str | Path, most: int = MOST_BYTES, *, pipes: bool = True) -> bytes:
    """Return the bytes of a regular file; with `pipes` also of one that the shell names (`<(…)`, `/dev/stdin`).

    /dev/null has none.
    Raises InputError for a file that is not there, that is larger than `most` bytes, and of any other kind.
    """
    try:
        if os.path.samestat(os.stat(path), os.stat(os.devnull)):
            return b""
        _refuse_other_kinds(path, os.stat(path), pipes)  # before it is opened: opening some devices does something
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            _refuse_other_kinds(path, status, pipes)
            _refuse_larger(path, status.st_size, most)
            content = _read(path, descriptor, most, stat.S_ISFIFO(status.st_mode))
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        remedy = "correct the path: a relative one starts where you are"
        raise InputError.at(_shown(path), "does not exist", remedy) from error
    except OSError as error:
        raise InputError.at(_shown(path), f"cannot be read: {error.strerror}", "make it readable for you") from error
    except ValueError as error:  # a NUL byte or half a character in its name
        raise InputError.at(_shown(path), "is not the name of a file", "correct the path") from error
    _refuse_larger(path, len(content), most)
    return content


def _shown(path: str | Path) -> str:
    return str(path).encode(errors="replace").decode()


def _refuse_other_kinds(path: str | Path, status: os.stat_result, pipes: bool) -> None:
    if pipes and stat.S_ISFIFO(status.st_mode) and _PIPES.fullmatch(str(path)):
        return
    for is_kind, problem, remedy in _KINDS:
        if is_kind(status.st_mode):
            raise InputError.at(str(path), problem, remedy)


def _refuse_larger(path: str | Path, size: int, most: int) -> None:
    if size > most:
        raise InputError.at(str(path), f"is larger than {format_size(most)}", "name a smaller file")


def _read(path: str | Path, descriptor: int, most: int, pipe: bool) -> bytes:
    """Return one byte more than `most` at most. A file of /proc tells no size."""
    deadline = Deadline(PIPE_SECONDS)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    parts: list[bytes] = []
    left = most + 1
    while left > 0:
        if pipe and not poll.poll(deadline.remaining * 1000):
            raise InputError.at(str(path), f"did not end within {PIPE_SECONDS:g} s", "write it to a file first")
        part = os.read(descriptor, min(left, MIB))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
