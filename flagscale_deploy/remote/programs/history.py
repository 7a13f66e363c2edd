"""Send what became of a deployment on this host, by its history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import history, state

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.history import HistoryReply
    from flagscale_deploy.remote.messages.program import Target

send: Callable[[HistoryReply], None] = wire.send

AT_ONCE = 16
"""Events of a message, which are 64 KiB each at most (`history.LONGEST`)."""


def main(args: Target) -> None:
    """Send all events that can be read, and at least one message."""
    events = history.read(state.directory(args["deployment"], args["host"]))
    for first in range(0, max(1, len(events)), AT_ONCE):
        send({"events": events[first : first + AT_ONCE]})
