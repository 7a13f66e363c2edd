"""Read what the hosts of a deployment keep of a run, or of an update."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from flagscale_deploy.errors import HostError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.difference import difference
from flagscale_deploy.plan.kept import KeptRun, parse_run
from flagscale_deploy.plan.server_change import Difference
from flagscale_deploy.remote.messages.history import HISTORY, HistoryArguments
from flagscale_deploy.transport.fleet import Fleet

SECONDS = 60.0
NOT_KEPT = "no host keeps its configuration: an earlier version began it, or 20 later runs and updates did"


@dataclass(frozen=True)
class Configuration:
    """What a `host` keeps of a run; `run` is None, and `problem` says why, where there is nothing to read."""

    run_id: str
    run: KeptRun | None = None
    host: str = ""
    others: tuple[str, ...] = ()
    """Hosts that keep something else of the same run: one of them cannot be believed."""
    problem: str = ""
    difference: Difference | None = None
    """From the run before it, where both are kept."""

    def json(self) -> dict[str, object]:
        """Return what `history RUN --json` prints: all but the hash of the secrets."""
        run = self.run and {name: value for name, value in self.run.items() if name != "secret_hash"}
        return {**asdict(self), "run": run}


def compare_runs(
    fleet: Fleet, deployment: str, run_id: str, before: str | None, kept: Mapping[str, Mapping[str, str]]
) -> Configuration:
    """Return the configuration of a run, and how it differs from that of the run `before`."""
    configuration = read_configuration(fleet, deployment, run_id, kept)
    earlier = read_configuration(fleet, deployment, before, kept) if before and configuration.run else None
    if earlier is None or earlier.run is None or configuration.run is None:
        return configuration
    return replace(configuration, difference=difference(earlier.run, configuration.run))


def read_configuration(
    fleet: Fleet, deployment: str, run_id: str, kept: Mapping[str, Mapping[str, str]]
) -> Configuration:
    """Return what the first host keeps that can be read; `kept` are the digests of all hosts, the head first."""

    def args(host: Host) -> HistoryArguments:
        return {"deployment": deployment, "host": host.name, "run_id": run_id}

    digests = {host: runs[run_id] for host, runs in kept.items() if run_id in runs}
    problems = []
    for name, digest in digests.items():
        reply = fleet.call(HISTORY, args, timeout=SECONDS, hosts=[name])[name]
        try:
            if isinstance(reply, HostError):
                raise ValueError(reply.problem)
            run = _verified(reply.get("run", ""), digest, deployment, run_id)
        except ValueError as error:
            problems.append(f"{name}: {error}")
            continue
        others = tuple(host for host, other in digests.items() if other != digest)
        return Configuration(run_id, run, name, others, "; ".join(problems))
    return Configuration(run_id, problem="; ".join(problems) or NOT_KEPT)


def _verified(text: str, digest: str, deployment: str, run_id: str) -> KeptRun:
    """Return the run in a host's text. Raises ValueError where it is of another one, or not what the digest is of."""
    if hashlib.sha256(text.encode(errors="replace")).hexdigest() != digest:
        raise ValueError("it sent something else than what it keeps")
    run = parse_run(text)
    if (run["deployment"], run["run_id"]) != (deployment, run_id):
        raise ValueError("it keeps another run under this name")
    return run
