"""What is asked of hosts to change one group of a deployment: its router, its servers, its processes, the records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from flagscale_deploy.deploy.probe_hosts import raise_failures
from flagscale_deploy.errors import HostError, RemoteError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.remote.messages.change import (
    CHANGE_RECORD,
    DRAIN,
    ROUTE,
    STOP_GROUP,
    ChangeRecordArguments,
    DrainArguments,
    DrainReply,
    RecordChange,
    RouteArguments,
    StopGroupArguments,
    StopGroupReply,
)
from flagscale_deploy.remote.messages.record import Record, RecordedRank, RecordedServer
from flagscale_deploy.remote.messages.run import RESERVE, Conflict, ReserveArguments
from flagscale_deploy.remote.messages.status import INSPECT, InspectReply
from flagscale_deploy.support.units import counted
from flagscale_deploy.transport.fleet import Fleet, answers
from flagscale_deploy.transport.remote_program import call
from flagscale_deploy.transport.replies import brief

ASK_SECONDS, ROUTE_SECONDS, SLACK_SECONDS = 60.0, 60.0, 60.0
KILL_SECONDS = 20.0
"""How long a process may take to die of SIGKILL (`remote/deployment/terminate.py`)."""


@dataclass(frozen=True)
class GroupActs:
    """Acts on the groups of one run of a deployment."""

    fleet: Fleet
    deployment: str
    run_id: str

    def change_records(self, hosts: Iterable[str], change: Callable[[str], RecordChange]) -> list[tuple[str, Conflict]]:
        """Change the record on these hosts; return by host what others have of what is needed there."""

        def args(host: Host) -> ChangeRecordArguments:
            return {"deployment": self.deployment, "host": host.name, "run_id": self.run_id, **change(host.name)}

        results = self.fleet.call(CHANGE_RECORD, args, timeout=ASK_SECONDS, hosts=hosts)
        raise_failures(results)
        return [(host, claim) for host, reply in answers(results).items() for claim in reply["taken"]]

    def route(self, router: RecordedServer, *, remove: Sequence[str] = (), add: Sequence[str] = ()) -> None:
        """Take servers out of a router, or put them behind it. Raises RemoteError where it does not do that."""
        host = router["driver"]
        args: RouteArguments = {
            "deployment": self.deployment,
            "host": host,
            "router": router["local_url"],
            "remove": list(remove),
            "add": list(add),
            "timeout": ROUTE_SECONDS,
        }
        limit = ROUTE_SECONDS + SLACK_SECONDS
        reply = call(self.fleet.connection(host), ROUTE, args, timeout=limit, cancelled=self.fleet.cancelled)
        if reply["problem"]:
            raise RemoteError(host, f"{router['name']}: {brief(reply['problem'])}")

    def reserve(
        self, hosts: Iterable[str], record: Callable[[str], Record], exclusive: Iterable[str]
    ) -> list[tuple[str, Conflict]]:
        """Give hosts their records; return by host what others have of what is needed there."""

        def args(host: Host) -> ReserveArguments:
            return {
                "deployment": self.deployment,
                "host": host.name,
                "run_id": self.run_id,
                "record": record(host.name),
                "exclusive": list(exclusive),
            }

        results = self.fleet.call(RESERVE, args, timeout=ASK_SECONDS, hosts=hosts)
        raise_failures(results)
        return [(host, claim) for host, reply in answers(results).items() for claim in reply["taken"]]

    def drain_all(self, servers: Sequence[RecordedServer], seconds: float) -> list[DrainReply]:
        """Wait until the servers of groups have no request; return what each has left after `seconds`."""
        tasks = {
            (server["name"], rank["name"]): partial(self._drain, rank, seconds)
            for server in servers
            for rank in answering(server)
        }
        results = self.fleet.gather({"\0".join(names): task for names, task in tasks.items()}, together=True)
        raise_failures(results)
        replies = dict(zip(tasks, answers(results).values(), strict=True))
        return [
            _together([reply for (name, _), reply in replies.items() if name == server["name"]]) for server in servers
        ]

    def _drain(self, rank: RecordedRank, seconds: float) -> DrainReply:
        args: DrainArguments = {
            "deployment": self.deployment,
            "host": rank["host"],
            "urls": [rank["local_url"]],
            "timeout": seconds,
        }
        connection = self.fleet.connection(rank["host"])
        return call(connection, DRAIN, args, timeout=seconds + SLACK_SECONDS, cancelled=self.fleet.cancelled)

    def stop(self, name: str, scripts: Mapping[str, Sequence[str]], grace: float) -> Mapping[str, StopGroupReply]:
        """End what runs of scripts by host, of what has this name. Raises RemoteError where something survives."""

        def args(host: Host) -> StopGroupArguments:
            return {
                "deployment": self.deployment,
                "host": host.name,
                "run_id": self.run_id,
                "scripts": list(scripts[host.name]),
                "grace": grace,
            }

        results = self.fleet.call(STOP_GROUP, args, timeout=grace + KILL_SECONDS + SLACK_SECONDS, hosts=scripts)
        raise_failures(results)
        for host, reply in answers(results).items():
            if survivors := reply["survivors"]:
                first = survivors[0]
                problem = f"{name}: {counted(len(survivors), 'process')} survived: pid {first['pid']}"
                raise RemoteError(host, f"{problem} {first['command']}: {first['why']}")
        return answers(results)


def inspect_hosts(
    fleet: Fleet, deployment: str, hosts: Iterable[str], *, ask: bool
) -> dict[str, InspectReply | HostError]:
    """Return what hosts reply of a deployment."""
    return fleet.call(
        INSPECT,
        lambda host: {"deployment": deployment, "host": host.name, "ask": ask},
        timeout=ASK_SECONDS,
        hosts=hosts,
    )


def _together(replies: Sequence[DrainReply]) -> DrainReply:
    return {
        "idle": all(reply["idle"] for reply in replies),
        "requests": sum(reply["requests"] for reply in replies),
        "why": next((reply["why"] for reply in replies if reply["why"]), ""),
    }


def scripts_of(server: RecordedServer, besides: Collection[str] = ()) -> dict[str, list[str]]:
    """Return the scripts of a server by host, without some hosts."""
    scripts: dict[str, list[str]] = {}
    own = [(rank["host"], rank["script"]) for rank in (*server.get("ranks", ()), *server.get("spares", ()))]
    for host, script in own or [(server["driver"], server["script"])]:
        if host not in besides:
            scripts.setdefault(host, []).append(script)
    return scripts


def answering(server: RecordedServer) -> list[RecordedRank]:
    """Return the ranks of a group that clients or a router can ask."""
    return [rank for rank in server.get("ranks", ()) if rank["local_url"]]


def worker_urls(server: RecordedServer) -> list[str]:
    """Return the URLs of a group's servers as a router calls them."""
    return [rank["worker_url"] for rank in answering(server) if rank.get("worker_url")]
