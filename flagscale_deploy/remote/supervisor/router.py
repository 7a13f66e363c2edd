"""A router that is started again: with its servers as the record has them, and with its script as it is by now.

While a group of a deployment is changed, its router is asked to change its list of servers (`engine/routing.py`), and
its script is written anew. vllm-router does not listen before every server of its command line is healthy (0.1.17,
measured), so one that dies meanwhile must not wait for servers that are stopped. With an empty list it starts at once.

The scripts of engines may not be taken over like this: an update has written the one of a group that it starts later,
and ranks of one group have to agree.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Callable, List, Optional, Sequence

from flagscale_deploy.remote.deployment import record
from flagscale_deploy.remote.supervisor.group import Group
from flagscale_deploy.remote.system import files, json_files

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.record import Record

FLAG = "--worker-urls"
"""It takes all words up to the next flag (`plan/router.py`)."""
OUT = ("drain", "stop", "start")
"""Steps of a change in which its groups are not behind their router."""
LARGEST = 4 << 20
_RANKS = {"instances": [{"ranks": [{"local_url": str, "worker_url": str}]}]}


class Router(Group):
    """The router of a model, as its supervisor sees it."""

    def __init__(self, state: Path, run_id: str, script: str, model: str, log: Callable[[str], None]) -> None:
        self._record, self._run_id, self._model, self._log = state / "record.json", run_id, model, log
        self._script = state / "scripts" / script
        self._content = self._read()

    def command(self, words: Sequence[str]) -> List[str]:
        """Return the command line with the servers that the record names; as it is where that names none."""
        urls = self._servers()
        if urls is None or FLAG not in words:
            return list(words)
        first = words.index(FLAG) + 1
        end = next((at for at in range(first, len(words)) if words[at].startswith("--")), len(words))
        if sorted(urls) != sorted(words[first:end]):
            self._log("its servers are by now: %s" % (", ".join(urls) or "none"))
        return [*words[:first], *urls, *words[end:]]

    def new_script(self) -> Optional[Path]:
        """Return its script where that is another one than at the start of this supervisor; else None."""
        content = self._read()
        return self._script if content is not None and content != self._content else None

    def _servers(self) -> Optional[List[str]]:
        try:
            deployed = record.load(self._record)
        except (OSError, ValueError):
            return None
        return servers(deployed, self._model) if deployed.get("run_id") == self._run_id else None

    def _read(self) -> Optional[bytes]:
        try:
            return files.read_whole(str(self._script), LARGEST)
        except OSError:
            return None


def servers(deployed: Record, model: str) -> Optional[List[str]]:
    """Return the URLs of the servers that are behind a model's router, by the record.

    None where that does not tell: it has nothing of the model, or is an older version's.
    """
    groups = [server for server in deployed.get("instances", []) if server.get("model") == model]
    ranks = [rank for server in groups for rank in server.get("ranks", []) if rank.get("local_url")]
    if not ranks or json_files.mismatch(deployed, _RANKS) or not all(rank.get("worker_url") for rank in ranks):
        return None
    change = deployed.get("change")
    out = change["groups"] if change and change["step"] in OUT else []
    return [
        rank["worker_url"]
        for server in groups
        if server["name"] not in out
        for rank in server.get("ranks", [])
        if rank.get("local_url")
    ]
