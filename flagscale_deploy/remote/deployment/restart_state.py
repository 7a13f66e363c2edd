"""What is known on a host of the restarts of a run's servers: `restart/<run id>/` in the state directory.

- `<script>.ready`: the licence to restart, given when a server was ready once (`watch.py`);
- `<script>.json`: what its supervisor says of it (`supervise.py`), read by `inspect.py`;
- `stop`: nothing of this run is ever started again.

`stop` takes the licences away and leaves its word before it ends anything. A supervisor asks before each start, so a
directory that was removed means no as well. A run's files say nothing of another run.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Dict, Iterable, Optional

from flagscale_deploy.remote.deployment import state
from flagscale_deploy.remote.system import files

NAME = "restart"
LICENCE, WORD = ".ready", "stop"


class Files:
    """Those of one server of a run. `directory` is the state directory of the deployment on this host."""

    def __init__(self, directory: Path, run_id: str, script: str) -> None:
        self._run = directory / NAME / state.file_name(run_id)
        self._stem = Path(script).stem
        self._said = self._run / (self._stem + ".json")

    def permit(self) -> None:
        """The server was ready: from now on it may be restarted."""
        if not self.forbidden:
            files.make_private_directory(self._run)
            (self._run / (self._stem + LICENCE)).touch(0o600)

    @property
    def forbidden(self) -> bool:
        """Whether this run was stopped."""
        return (self._run / WORD).exists()

    @property
    def permitted(self) -> bool:
        """Whether the server may be started again now."""
        return (self._run / (self._stem + LICENCE)).exists() and not self.forbidden

    def write(self, content: Dict[str, Any]) -> None:
        """Say how it stands, whole or not at all. Raises OSError."""
        files.make_private_directory(self._run)
        files.write_atomically(self._said, json.dumps(content))

    def read(self) -> Optional[Dict[str, Any]]:
        """How it stands; None where no supervisor has said anything."""
        try:
            found = json.loads(self._said.read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None


def is_forbidden(deployment: str, host: str, run_id: str) -> bool:
    """Whether nothing of a run is to be started again."""
    return Files(state.directory(deployment, host), run_id, "").forbidden


def of(deployment: str, host: str, run_id: str, script: str) -> Files:
    """The files of a server, by its deployment."""
    return Files(state.directory(deployment, host), run_id, script)


def forbid(deployment: str, host: str, run_ids: Iterable[str]) -> None:
    """No server of these runs is started again here, whatever becomes of it.

    The licences go first: that works on a full disk too.
    """
    directory = state.directory(deployment, host)
    if not directory.is_dir():
        return
    for run_id in run_ids:
        with contextlib.suppress(ValueError, OSError):
            run = directory / NAME / state.file_name(run_id)
            for licence in run.glob("*" + LICENCE):
                licence.unlink()
            files.make_private_directory(run)
            (run / WORD).touch(0o600)
