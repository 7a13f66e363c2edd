"""Notes on how a connection is made, for `-v`: who reads the configuration, which keys are passed over."""

from __future__ import annotations

import logging
from collections.abc import Callable

NOTES = logging.getLogger("flagscale_deploy.ssh")
NOTES.addHandler(logging.NullHandler())
NOTES.propagate = False


def show_notes(show: Callable[[str], None]) -> None:
    """Pass later notes to `show` alone."""
    NOTES.handlers[:] = [_Handler(show)]
    NOTES.setLevel(logging.INFO)


class _Handler(logging.Handler):
    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        """Show a note."""
        self._show(record.getMessage())
