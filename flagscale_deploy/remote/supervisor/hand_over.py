"""Run a server's script anew in the place of its supervisor: the same process, session and place in the record.

The supervisor that the script becomes goes on with the state file of the one before, so that restarts are counted on.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from flagscale_deploy.remote.deployment import record

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.status import RestartState
    from flagscale_deploy.remote.supervisor.notify import Events
    from flagscale_deploy.remote.supervisor.signals import Signals

POLL_SECONDS = 0.1


def goes_on(before: RestartState) -> bool:
    """Return whether a restart is under way that another supervisor has begun in this very boot."""
    return before.get("state") == "restarting" and before.get("boot_id") == record.boot_id()


def kept(before: RestartState) -> RestartState:
    """Return of the state of a restart that is under way what a server that was started anew would not have."""
    return {"in_a_row": before.get("in_a_row", 0), "last_exit": before.get("last_exit", "")}


def run_instead(
    script: Path, signals: Signals, events: Events, may_run: Callable[[], bool], log: Callable[[str], None]
) -> None:
    """Run a script in the place of this process; return where it may not be, or cannot be.

    A command of the user's that tells an event is waited for, 10 s at most: the next supervisor would end it with the
    server's remains.
    Descriptors other than 0, 1 and 2 are closed by that (PEP 446). Children stay children, and so do orphans that are
    adopted later (prctl(2), PR_SET_CHILD_SUBREAPER). A signal that came before is noted by `may_run`; one that comes
    later ends this process, which has no server just now.
    """
    while may_run() and events.are_told():
        signals.wait(POLL_SECONDS)
    signals.let_go()
    if may_run():
        try:
            os.execvp("bash", ["bash", str(script)])
        except OSError as error:
            log("%s cannot be run: %s" % (script.name, error.strerror))
    signals.take()
