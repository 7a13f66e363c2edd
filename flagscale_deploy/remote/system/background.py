"""Run work in a daemon thread that never blocks the end of the interpreter, not even where it hangs in the kernel."""

from __future__ import annotations

import threading
from typing import Any, Callable, Generic, List, Optional, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Work in a daemon thread of its own, begun at once."""

    def __init__(self, work: Callable[..., T], *args: Any) -> None:
        self._results: List[T] = []
        self._failed: Optional[Exception] = None
        self._thread = threading.Thread(target=self._run, args=(work, args), daemon=True)
        self._thread.start()

    def result(self, seconds: Optional[float] = None) -> T:
        """Return what the work returns, or raise what it raises; TimeoutError if neither is known within `seconds`."""
        self._thread.join(seconds)
        if self._failed is not None:
            raise self._failed
        if not self._results:
            raise TimeoutError
        return self._results[0]

    def _run(self, work: Callable[..., T], args: Any) -> None:
        try:
            self._results.append(work(*args))
        except Exception as failed:  # noqa: BLE001 (it belongs to whoever waits for the result)
            self._failed = failed
