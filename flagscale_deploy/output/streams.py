"""Standard output and standard error of a command, which may take no more at any time."""

from __future__ import annotations

import contextlib
import os
import select
import stat
import threading
from collections import deque
from collections.abc import Callable
from typing import IO, Any, NoReturn, cast

from flagscale_deploy.errors import DeployError
from flagscale_deploy.output.ci import Breaker, is_ci

MOST_WAITING = 1 << 20
"""Characters of progress that wait for a reader; more are left out."""
SETTLE_SECONDS = 2.0
"""How long a result, and the end of a command, wait for them."""


class _Stream:
    """A standard stream that reports what cannot be written: a full disk, a reader or a terminal that has gone."""

    def __init__(self, stream: IO[str] | None, lost: Callable[[Exception], None]) -> None:
        # None: it was closed when Python started (`2>&-`)
        self._stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (as long as the process)
        self._lost = lost
        self._breaker = Breaker() if is_ci() else None

    def write(self, text: str) -> int:
        try:
            self._stream.write(self._safe(text))
        except (OSError, ValueError) as error:
            discard(self._stream)
            self._lost(error)
        return len(text)

    def _safe(self, text: str) -> str:
        return self._breaker.broken(text) if self._breaker else text

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            discard(self._stream)
            self._lost(error)

    def settle(self) -> None:
        """Wait a little until all is written."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Waiting(_Stream):
    """A stream that may take nothing for a while: Ctrl-S, a pager. Nobody who writes to it waits for that.

    A thread writes to the descriptor itself: at its end, Python must not wait for a lock of the stream.
    """

    def __init__(self, stream: IO[str], lost: Callable[[Exception], None]) -> None:
        super().__init__(stream, lost)
        self._texts: deque[str] = deque()
        self._size, self._busy, self._patience = 0, False, SETTLE_SECONDS
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._has_thread = True

    def write(self, text: str) -> int:
        text = self._safe(text)
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="progress", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # there is none to be had
                    self._has_thread = False
            if self._has_thread and self._size < MOST_WAITING:
                self._texts.append(text)
                self._size += len(text)
                self._changed.notify_all()
        if not self._has_thread:
            self._put(self._encoded(text))
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread writes as soon as it can."""

    def settle(self) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: not (self._texts or self._busy), self._patience):
                self._patience = 0.0  # until it takes something again

    def _work(self) -> None:
        while True:
            with self._changed:
                self._busy, self._patience = False, SETTLE_SECONDS
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._texts)
                text, self._busy = "".join(self._texts), True
                self._texts.clear()
                self._size = 0
            self._put(self._encoded(text))

    def _encoded(self, text: str) -> bytes:
        return text.encode(getattr(self._stream, "encoding", None) or "utf-8", "backslashreplace")

    def _put(self, data: bytes) -> None:
        try:
            while data:
                with contextlib.suppress(BlockingIOError):  # whoever shares it may have made it so
                    data = data[os.write(self._stream.fileno(), data) :]
                    continue
                select.select([], [self._stream], [])
        except (OSError, ValueError) as error:
            discard(self._stream)
            self._lost(error)


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


class _Results(_Stream):
    """Standard output, whose text comes after the progress before it."""

    def __init__(self, stream: IO[str] | None, settle: Callable[[], None]) -> None:
        super().__init__(stream, _result_lost)
        self._settle = settle

    def write(self, text: str) -> int:
        self._settle()
        return super().write(text)


def for_results(stream: IO[str] | None, settle: Callable[[], None] = lambda: None) -> IO[str]:
    """Return standard output for a command's result, which comes after `settle`.

    Its writes raise DeployError, and BrokenPipeError, where it takes nothing.
    """
    return cast(IO[str], _Results(stream, settle))


def for_progress(stream: IO[str] | None) -> _Stream:
    """Return standard error for progress, which neither breaks nor delays anything where it takes nothing any more."""
    kind = _Waiting if stream is not None and _may_wait(stream) else _Stream
    return kind(cast(IO[str], stream), _progress_lost)


def _may_wait(stream: IO[str]) -> bool:
    """Return whether a stream is a terminal, a pipe or a socket."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
        return stream.isatty() or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
    except (OSError, ValueError):  # it is none of the system's, or closed
        return False
