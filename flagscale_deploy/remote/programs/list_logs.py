"""List the log files of a deployment on this host (`logs/logfiles.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, List

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.logs.logfiles import listing

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.logs import ListedLog, ListLogsReply
    from flagscale_deploy.remote.messages.program import Target

send: Callable[[ListLogsReply], None] = wire.send


def main(args: Target) -> None:
    """Send the list."""
    files: List[ListedLog] = [
        {"path": file.path, "name": file.name, "kind": file.kind, "size": file.size, "mtime": file.mtime}
        for file in listing(args["deployment"], args["host"])
    ]
    send({"files": files})
