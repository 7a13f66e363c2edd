"""Find what runs of a deployment, by what the probe found on its hosts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from flagscale_deploy.facts.model import Facts
from flagscale_deploy.plan.claims import Held, own
from flagscale_deploy.plan.difference import difference
from flagscale_deploy.plan.kept import KeptRank, KeptRun, KeptServer, parse_run
from flagscale_deploy.plan.server_change import Difference
from flagscale_deploy.remote.messages.record import Record, RecordedChange, RecordedServer

NOT_RECORDED = (
    "environment variables", "scripts", "certificates", "versions", "ports",
    "the flags of routers, and of ranks beyond the first",
)  # fmt: skip
"""What a record does not have of a run whose description is not kept."""


@dataclass(frozen=True)
class Running:
    """A run that has live processes: its record, and the description of what it runs by now, where that is kept."""

    record: Record
    kept: KeptRun | None = None

    @property
    def configuration(self) -> str:
        """Return the id of the run or update whose configuration runs."""
        return self.record.get("configuration") or self.record.get("run_id", "")

    @property
    def change(self) -> RecordedChange | None:
        """Return the change that is not over; None without one."""
        return self.record.get("change")

    @property
    def held(self) -> Held:
        """Return the GPUs and ports that its servers have."""
        if self.kept is None:
            return Held({server["name"]: server["gpus"] for server in map(_recorded, self.record.get("instances", ()))})
        gpus = {server["name"]: server["gpus"] for server in self.kept["servers"] if server["engine"] != "router"}
        return Held(gpus, self.kept["ports"], self.kept["ray"]["nodes"])

    def differs(self, planned: KeptRun, *, secrets_differ: bool = False, keys_differ: bool = False) -> Difference:
        """Return what would change if this became what is planned."""
        if self.kept is not None:
            return difference(self.kept, planned, secrets_differ=secrets_differ, keys_differ=keys_differ)
        servers = [*map(_recorded, self.record.get("instances", ())), *map(_recorded, self.record.get("routers", ()))]
        with_flags = {server["name"] for server in servers if server["ranks"][0]["argv"]}
        comparable = [_reduced(server, flags=server["name"] in with_flags) for server in planned["servers"]]
        new: KeptRun = {**planned, "servers": comparable, "tls": {}, "program": {}, "versions": {}, "hosts": []}
        ray = planned["ray"] if self.record.get("ray", {}).get("enabled") == planned["ray"]["enabled"] else None
        old: KeptRun = {
            **new,
            "run_id": self.configuration,
            "servers": servers,
            "secrets": {"": self.record.get("secrets", [])},
            "ray": ray or {**planned["ray"], "enabled": not planned["ray"]["enabled"]},
        }
        new = {**new, "secrets": {"": sorted({name for names in planned["secrets"].values() for name in names})}}
        made = difference(old, new, secrets_differ=secrets_differ)
        return Difference(made.run_id, made.servers, made.ray, NOT_RECORDED, made.nodes)


def find_running(facts: Mapping[str, Facts], deployment: str, head: str) -> Running | None:
    """Return the run that lives on these hosts, by the head's record and description first; None where none does."""
    alive = {marker for host in facts.values() for marker in host.runs}
    hosts = sorted(facts, key=lambda name: name != head)
    records = [record for name in hosts for record in own(facts[name], deployment)]
    record = next((record for record in records if f"{deployment}/{record.get('run_id')}" in alive), None)
    if record is None:
        return None
    running = Running(record)
    return replace(running, kept=_described((facts[name].kept for name in hosts), deployment, running.configuration))


def _described(texts: Iterable[str], deployment: str, run_id: str) -> KeptRun | None:
    """Return the first description of this run or update."""
    for text in filter(None, texts):
        try:
            run = parse_run(text)
        except ValueError:
            continue
        if (run["deployment"], run["run_id"]) == (deployment, run_id):
            return run
    return None


def _recorded(server: RecordedServer) -> KeptServer:
    """Return a server as its record has it: of its ranks the first alone."""
    gpus = {name: list(indexes) for name, indexes in server.get("gpus", {}).items()}
    return _of_driver(
        {**_EMPTY, "name": server["name"], "model": server["model"], "gpus": gpus},
        {**_RANK, "host": server["driver"], "argv": list(server.get("argv", ()))},
    )


def _reduced(server: KeptServer, *, flags: bool) -> KeptServer:
    """Return a server with no more than a record has of it."""
    driver = server["ranks"][0]
    rank: KeptRank = {**_RANK, "host": driver["host"], "argv": driver["argv"] if flags else []}
    return _of_driver({**server, "engine": ""}, rank)


def _of_driver(server: KeptServer, rank: KeptRank) -> KeptServer:
    return {**server, "ranks": [{**rank, "gpus": server["gpus"].get(rank["host"], [])}]}


_RANK: KeptRank = {
    "name": "", "role": "driver", "host": "", "gpus": [], "ports": {}, "argv": [], "env": {}, "script": "",
}  # fmt: skip
_EMPTY: KeptServer = {"name": "", "model": "", "engine": "", "gpus": {}, "ranks": []}
