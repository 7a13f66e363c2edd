"""Tell what becomes of restarts: in `history.jsonl`, and to the user's command (`deploy.restart.notify`).

The command is `scripts/notify.sh`: no list of processes shows it. It runs in a process of its own (`python3
STATE/supervisor notify OPTIONS`, the event on standard input), so that one that hangs keeps nobody waiting.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Sequence, Set

from flagscale_deploy.remote.deployment import history, state
from flagscale_deploy.remote.supervisor import server_log
from flagscale_deploy.remote.supervisor.ends import describe_exit
from flagscale_deploy.remote.system import proc, subprocesses

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.program import Target
    from flagscale_deploy.remote.messages.status import RestartEventKind

SECONDS = 10.0
SCRIPT = "notify.sh"
LONGEST = 2000
"""Characters of a reason."""
LARGEST = 64 << 10


def command(words: Sequence[str]) -> None:
    """Run the user's command with the event on standard input; write to the log what went wrong."""
    parser = argparse.ArgumentParser(prog="notify", allow_abbrev=False)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--name", required=True)
    options = parser.parse_args(list(words))
    event = sys.stdin.buffer.read(LARGEST)
    problem = run(options.state / "scripts" / SCRIPT, event)
    if problem:
        server_log.write(options.name, "deploy.restart.notify %s" % problem)


def run(script: Path, event: bytes) -> str:
    """Run the command, and end its process group after SECONDS; return what went wrong, or ""."""
    try:
        ended = subprocesses.run_bytes(["bash", str(script)], SECONDS, stdin=event, cwd=os.path.expanduser("~"))
    except OSError as error:
        return "cannot be run: %s" % error.strerror
    if ended.code is None:
        return "did not end within %g s, and was killed" % SECONDS
    if ended.code == 0:
        return ""
    complaint = ended.stderr.decode("utf-8", "replace").strip().splitlines()
    return describe_exit(ended.code) + (": %s" % complaint[-1][:LONGEST] if complaint else "")


class Events:
    """What becomes of the restarts of one server. `notifying` are the processes that tell the user's command.

    Of a group of ranks, only its leader notifies, and who waits for a leader that is lost.
    """

    def __init__(self, options: argparse.Namespace, *, leads: bool) -> None:
        self._options, self._leads = options, leads
        self.notifying: Set[proc.Identity] = set()

    def are_told(self) -> bool:
        """Return whether the user's command runs just now."""
        return any(proc.lives(*identity) for identity in self.notifying)

    def tell(self, event: RestartEventKind, reason: str, attempt: int, evidence: str = "") -> None:
        """Note an event, and begin to tell it; neither a full disk nor a command that hangs is waited for."""
        options = self._options
        target: Target = {"deployment": state.name_of(options.state.parent), "host": state.name_of(options.state)}
        content = history.event_of(
            target, event, server=options.name, reason=reason[:LONGEST], attempt=attempt, max=options.max,
            evidence=evidence,
        )  # fmt: skip
        with contextlib.suppress(OSError):
            history.append(options.state, content)
        if options.notify and (self._leads or event == "waiting"):
            with contextlib.suppress(OSError):
                self._notify(b"%s\n" % json.dumps(content).encode())

    def _notify(self, content: bytes) -> None:
        with os.fdopen(os.memfd_create("event"), "w+b") as file:
            file.write(content)
            file.seek(0)
            options = self._options
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, str(options.state / "supervisor"), "notify",
                 "--state=%s" % options.state, "--name=%s" % options.name],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, file.fileno(), 0)],
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )  # fmt: skip
        self.notifying = {identity for identity in self.notifying if proc.lives(*identity)}
        self.notifying.add((pid, proc.start_ticks(pid) or 0))
