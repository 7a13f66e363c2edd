"""Standard output and standard error of a command, which may take no more at any time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import IO, Any, NoReturn, cast

from flagscale_deploy.errors import DeployError


class _Stream:
    """A standard stream that reports what cannot be written: a full disk, a reader or a terminal that has gone."""

    def __init__(self, stream: IO[str] | None, lost: Callable[[Exception], None]) -> None:
        # None: it was closed when Python started (`2>&-`)
        self._stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (as long as the process)
        self._lost = lost

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except (OSError, ValueError) as error:
            discard(self._stream)
            self._lost(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            discard(self._stream)
            self._lost(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def discard(stream: IO[str]) -> None:
    """Lead a stream that takes nothing any more to nowhere: what it holds back would fail again at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _result_lost(error: Exception) -> NoReturn:
    """Raise what ends a command whose result cannot be written; BrokenPipeError where its reader has gone."""
    if isinstance(error, BrokenPipeError):
        raise error
    why = error.strerror if isinstance(error, OSError) else str(error)
    raise DeployError(f"the result cannot be written to standard output: {why}") from error


def _progress_lost(_error: Exception) -> None:
    """Go on: no act on hosts ends because nobody can see how it goes."""


def for_results(stream: IO[str] | None) -> IO[str]:
    """Return standard output for a command's result. Raises DeployError, BrokenPipeError where it takes nothing."""
    return cast(IO[str], _Stream(stream, _result_lost))


def for_progress(stream: IO[str] | None) -> IO[str]:
    """Return standard error for progress, which breaks nothing where it takes nothing any more."""
    return cast(IO[str], _Stream(stream, _progress_lost))
