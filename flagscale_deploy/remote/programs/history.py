"""Send what became of a deployment on this host, by its history; or what is kept of one of its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import history, kept, state

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.history import HistoryArguments, HistoryReply

send: Callable[[HistoryReply], None] = wire.send

AT_ONCE = 16
"""Events of a message, which are 64 KiB each at most (`history.LONGEST`)."""


def main(args: HistoryArguments) -> None:
    """Send all events that can be read, in at least one message; or one run. Raises OSError where that is not kept."""
    directory = state.directory(args["deployment"], args["host"])
    if args.get("run_id"):
        send({"events": [], "run": kept.read(directory, args["run_id"])})
        return
    events = history.read(directory)
    pieces = [events[first : first + AT_ONCE] for first in range(0, len(events), AT_ONCE)]
    for piece in pieces[:-1]:
        send({"events": piece})
    send({"events": pieces[-1] if pieces else [], "kept": kept.digests(directory)})
