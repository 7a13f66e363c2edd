"""Send what became of a deployment on this host, by its history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import history, state

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.history import HistoryReply
    from flagscale_deploy.remote.messages.program import Target

send: Callable[[HistoryReply], None] = wire.send

AT_ONCE = 100
"""Events of a message: 64 KiB each at most (`history.LONGEST`), and a hundredth of that mostly."""
MOST_CHARACTERS = 1 << 20


def main(args: Target) -> None:
    """Send all events that can be read, and at least one message."""
    events = history.read(state.directory(args["deployment"], args["host"]))
    while True:
        number = AT_ONCE
        while number > 1 and len(repr(events[:number])) > MOST_CHARACTERS:
            number //= 2
        send({"events": events[:number]})
        events = events[number:]
        if not events:
            return
