"""Keep the state of restarts of a run's servers: `restart/<run id>/` in the state directory.

- `<script>.ready`: the permit to restart, created when a server was ready once (`programs/watch.py`);
- `<script>.json`: what its supervisor reports (`supervisor/supervise.py`), read by `programs/inspect.py`;
- `<script>.stop`: this script is not started again, until its group is (`programs/change_record.py`);
- `stop`: nothing of this run is ever started again.

`stop` deletes the permits and writes the stop marker before it signals any process. A supervisor looks before each
start, so a directory that was removed means no as well. A run's files hold for no other run.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, Optional, cast

from flagscale_deploy.remote.deployment import state
from flagscale_deploy.remote.system import files, json_files

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.status import RestartState

NAME = "restart"
PERMIT, STOP, STOPPED = ".ready", "stop", ".stop"

_OPTIONAL, _NUMBER = (int, type(None)), (int, float, type(None))
_SHAPE = {
    "state": str, "restarts": int, "in_a_row": int, "max": int, "last_restart": _NUMBER, "last_exit": str,
    "healthy": bool, "why": str, "pid": int, "start_ticks": _OPTIONAL, "boot_id": str,
    "generation": int, "evidence": str, "hosts": [str],
}  # fmt: skip


class Files:
    """Those of one server of a run. `directory` is the state directory of the deployment on this host."""

    def __init__(self, directory: Path, run_id: str, script: str) -> None:
        self._run = directory / NAME / state.file_name(run_id)
        self._stem = Path(script).stem
        self._said = self._run / (self._stem + ".json")

    def permit(self) -> None:
        """Permit restarts from now on: the server was ready."""
        if not self.forbidden:
            files.make_private_directory(self._run)
            (self._run / (self._stem + PERMIT)).touch(0o600)

    @property
    def forbidden(self) -> bool:
        """Return whether this run was stopped, or this server of it."""
        return (self._run / STOP).exists() or (self._run / (self._stem + STOPPED)).exists()

    def forbid(self) -> None:
        """Forbid to start this server, whose permit goes first. Raises OSError."""
        files.make_private_directory(self._run)
        with contextlib.suppress(FileNotFoundError):
            (self._run / (self._stem + PERMIT)).unlink()
        (self._run / (self._stem + STOPPED)).touch(0o600)

    def forget(self) -> None:
        """Forget what was reported of this server, which is gone."""
        with contextlib.suppress(FileNotFoundError):
            self._said.unlink()

    def begin_anew(self) -> None:
        """Forget also what was permitted and forbidden: the server is to be started."""
        self.forget()
        for ending in (PERMIT, STOPPED):
            with contextlib.suppress(FileNotFoundError):
                (self._run / (self._stem + ending)).unlink()

    @property
    def permitted(self) -> bool:
        """Return whether the server may be started again now."""
        return (self._run / (self._stem + PERMIT)).exists() and not self.forbidden

    def write(self, content: RestartState) -> None:
        """Write the state, whole or not at all. Raises OSError."""
        files.make_private_directory(self._run)
        files.write_atomically(self._said, json.dumps(content))

    def read(self) -> Optional[RestartState]:
        """Return the state; None where no supervisor has written one, or the file is broken."""
        try:
            content = json_files.read_object(str(self._said))
        except (OSError, ValueError):
            return None
        return None if json_files.mismatch(content, _SHAPE) else cast("RestartState", content)


def is_forbidden(deployment: str, host: str, run_id: str, script: str = "") -> bool:
    """Return whether nothing of a run is to be started again, or not this script."""
    return Files(state.directory(deployment, host), run_id, script).forbidden


def of(deployment: str, host: str, run_id: str, script: str) -> Files:
    """Return the files of a server, by its deployment."""
    return Files(state.directory(deployment, host), run_id, script)


def forbid(deployment: str, host: str, run_ids: Iterable[str]) -> None:
    """Forbid every restart of these runs' servers here.

    The permits go first: that works on a full disk too.
    """
    directory = state.directory(deployment, host)
    if not directory.is_dir():
        return
    for run_id in run_ids:
        with contextlib.suppress(ValueError, OSError):
            run = directory / NAME / state.file_name(run_id)
            for permit in run.glob("*" + PERMIT):
                permit.unlink()
            files.make_private_directory(run)
            (run / STOP).touch(0o600)
