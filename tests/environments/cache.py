"""The cache that environments are built in: outside the clone, one entry for each exact recipe, built once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

COMPLETE = ".complete"
UNUSED_DAYS = 14


def root() -> Path:
    """`$FSD_CACHE`, else `~/.cache/flagscale-deploy`."""
    return Path(os.environ.get("FSD_CACHE") or "~/.cache/flagscale-deploy").expanduser().resolve()


def recipe(files: Iterable[Path], *words: str) -> str:
    """Return a name for what is built from these files and words: 12 hex digits that change with any of them."""
    digest = hashlib.sha256()
    for part in (*(path.read_bytes() for path in files), *(word.encode() for word in words)):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:12]


def entry(name: str, build: Callable[[Path], None]) -> Path:
    """Return the finished directory `name` of the cache; `build` fills it if it isn't there.

    One process builds while others wait. What an interrupted build left is thrown away: only the marker that is written
    last makes an entry. A new entry drives out those of its kind that nobody has asked for in `UNUSED_DAYS`.
    """
    path = root() / name
    if not (path / COMPLETE).exists():
        root().mkdir(parents=True, exist_ok=True)
        with _locked(name):
            if not (path / COMPLETE).exists():
                shutil.rmtree(path, ignore_errors=True)
                path.mkdir()
                began = time.monotonic()
                build(path)
                (path / COMPLETE).touch()
                say(f"{path}: built in {time.monotonic() - began:.0f} s")
        _drop_unused(name.rpartition("-")[0])
    os.utime(path / COMPLETE)
    return path


def say(line: str) -> None:
    """Progress goes to stderr, results to stdout."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _drop_unused(kind: str) -> None:
    for marker in root().glob(f"{kind}-*/{COMPLETE}"):
        if time.time() - marker.stat().st_mtime > UNUSED_DAYS * 86400:
            with _locked(marker.parent.name):
                say(f"{marker.parent}: not used for {UNUSED_DAYS} days; removed")
                marker.unlink()  # first, since what is half gone must not pass for whole
                shutil.rmtree(marker.parent)


@contextmanager
def _locked(name: str) -> Iterator[None]:
    path = root() / f"{name}.lock"
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{path}: another build is under way; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
