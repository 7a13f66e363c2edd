"""Keep what the runs of a deployment were, the newest ones: `runs/<run id>.json` in the state directory.

The operator writes and reads them; on a host they are texts. Ids of runs sort by time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Set

from flagscale_deploy.remote.deployment import state
from flagscale_deploy.remote.system import files

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.record import Record

FOLDER = "runs"
MOST = 20
"""Runs that are kept."""
LONGEST = 1 << 20
"""Bytes of one of them."""


def path_of(run_id: str) -> str:
    """Return the file of a run, below the state directory. Raises ValueError where no file can have its name."""
    return "%s/%s.json" % (FOLDER, state.file_name(run_id))


def named_by(deployed: Record) -> Set[str]:
    """Return the ids of what a record says that runs, and of what its change leads from and to."""
    change = deployed.get("change")
    ids = (
        deployed.get("run_id"),
        deployed.get("configuration"),
        *((change["base"], change["run_id"]) if change else ()),
    )
    return {name for name in ids if name}


def forget_old(directory: Path, keep: Set[str]) -> None:
    """Remove all but the newest runs, and none that `keep` has."""
    names = _names(directory)
    kept = {path_of(run_id) for run_id in keep}
    old = [name for name in names if "%s/%s" % (FOLDER, name) not in kept]
    for name in old[: max(0, len(names) - MOST)]:
        with contextlib.suppress(OSError):
            os.unlink(str(directory / FOLDER / name))


def digests(directory: Path) -> Dict[str, str]:
    """Return the SHA-256 of each run that can be read, by its id as a file name."""
    kept = {}
    for name in _names(directory)[-MOST:]:
        with contextlib.suppress(OSError):
            kept[name[: -len(".json")]] = hashlib.sha256(_read(directory / FOLDER / name)).hexdigest()
    return kept


def read(directory: Path, run_id: str) -> str:
    """Return the text of a run. Raises OSError, and ValueError where it is no text."""
    return _read(directory / path_of(run_id)).decode("ascii")


def _read(path: Path) -> bytes:
    return files.read_whole(str(path), LONGEST)


def _names(directory: Path) -> List[str]:
    """Return the files of runs, the oldest first; none where the folder is absent, or is something else."""
    try:
        return sorted(name for name in os.listdir(str(directory / FOLDER)) if name.endswith(".json"))
    except OSError:
        return []
