"""Notes on how a connection is made, for `-v`, and on what is run on hosts, for `-vv`."""

from __future__ import annotations

import logging
from collections.abc import Callable

NOTES = logging.getLogger("flagscale_deploy.ssh")
NOTES.addHandler(logging.NullHandler())
NOTES.propagate = False


def show_notes(show: Callable[[str], None], *, programs: bool = False) -> None:
    """Pass later notes to `show` alone, with `programs` also those on what is run on hosts."""
    NOTES.handlers[:] = [_Handler(show)]
    NOTES.setLevel(logging.DEBUG if programs else logging.INFO)


class _Handler(logging.Handler):
    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        """Show a note."""
        self._show(record.getMessage())
