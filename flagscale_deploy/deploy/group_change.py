"""Change groups of a running deployment, without losing a request.

Groups are drained, stopped, started anew, and put back. Each step is noted in the records before it is begun: where an
operator dies, `status` tells what is changed. Everything that runs keeps the deployment's run id.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from flagscale_deploy.deploy import change_note
from flagscale_deploy.deploy.authority import COMMON
from flagscale_deploy.deploy.bring_up import Run, permit_ray_restarts
from flagscale_deploy.deploy.change_steps import STAGE, STEPS, Step
from flagscale_deploy.deploy.gate import behind_names, change_gate
from flagscale_deploy.deploy.group_acts import GroupActs, answering, inspect_hosts, scripts_of, worker_urls
from flagscale_deploy.deploy.group_files import group_files
from flagscale_deploy.deploy.launch import execute
from flagscale_deploy.deploy.private_files import secrets_by_host
from flagscale_deploy.deploy.readiness import wait_ready
from flagscale_deploy.deploy.records import record_of
from flagscale_deploy.deploy.status import summarize
from flagscale_deploy.errors import CheckError, DeployError, Fault, NotReadyError
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.plan.entrances import GATE, SETTINGS
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.ray_change import WORKER, node_host
from flagscale_deploy.plan.some_groups import some_groups, without_files
from flagscale_deploy.remote.messages.change import RecordChange
from flagscale_deploy.remote.messages.record import Record, RecordedChange, RecordedServer
from flagscale_deploy.support.units import counted
from flagscale_deploy.transport.replies import brief

WATCH_SECONDS, NODE_SECONDS = 2.0, 15.0
"""How often a group is looked at; how long a Ray node may take to end of SIGTERM: a raylet takes 10 s."""
_UNWELL = {"dead", "unwell", "restarting", "gave up", "UNKNOWN"}


class GroupUnwellError(NotReadyError):
    """A group that was ready is not any more, soon after it was put back."""


@dataclass
class GroupChange:
    """A change of a deployment under way. `servers` are its groups by name, as the records have them by now.

    `note` is what the records have of it. `hosts` have a record of the deployment, the head first; those in `lost` are
    out of reach, and nothing is done there.
    """

    acts: GroupActs
    note: RecordedChange
    hosts: list[str]
    say: Sink
    record: Record
    """The head's, as it was when this began."""
    servers: dict[str, RecordedServer]
    routers: dict[str, RecordedServer]
    """Routers and the gate, by name."""
    nodes: dict[str, str]
    """The hosts of Ray's worker nodes, by the names of these (`plan/ray_change.py`)."""
    lost: frozenset[str] = frozenset()
    back: bool = False  # whether groups become again what they were
    ending: bool = False  # whether hosts may have noted its end: these keep nothing of before any more
    new_hosts: list[str] = field(default_factory=list)
    """Those of `hosts` that had no part in the deployment before."""
    together: Sequence[str] = ()
    """What is changed at the same time; a step may concern some of it. The records name all."""

    @property
    def run_id(self) -> str:
        """Return the deployment's run id, with which a plan of the change has to be made."""
        return self.acts.run_id

    def has(self, name: str) -> bool:
        """Return whether the records have a group, a front or a Ray node of this name."""
        return name in self.servers or name in self.routers or name in self.nodes

    def begin(self, files: Mapping[str, str]) -> None:
        """Note that the change begins, and let hosts keep what is there, and these texts by their path."""
        kept = {path: (text, "600") for path, text in files.items()}
        self._change_records(lambda _host: {"before": "keep", "files": kept, "change": self.note})

    def drain(self, groups: Sequence[str], seconds: float) -> None:
        """Take groups out of what is before them, and wait until they have no request, at most for some seconds."""
        self._begin(groups, "drain")
        servers = [self._server(group) for group in self._groups(groups)]
        for server in servers:
            if front := self._front(server):
                self._take_out(front, worker_urls(server), seconds)
                self._tell("done", server, f"out of {front['name']}")
        reachable = [server for server in servers if not self._lost_of(server)]
        for server, left in zip(reachable, self.acts.drain_all(reachable, seconds), strict=True):
            text = brief(left["why"]) or f"has {counted(left['requests'], 'request')} after {seconds:g} s"
            self._tell("done" if left["idle"] else "note", server, "has no request" if left["idle"] else text)

    def stop(self, groups: Sequence[str], grace: float) -> None:
        """Stop groups on all of their hosts. Raises RemoteError where something of them survives."""
        self._begin(groups, "stop")
        self._stop(groups, grace)

    def start(
        self, run: Run, facts: Mapping[str, Facts], groups: Sequence[str], *, secrets: bool, restore: bool = False
    ) -> None:
        """Start groups and Ray nodes of the run's plan; wait until Ray counts these, and for first tokens.

        Those of their names were stopped before. Hosts keep the secrets that they have but for new ones; with `secrets`
        all get those of the run. With `restore` files are not sent: they are again as they were when the change began.
        Where it fails, what was started is stopped again; nothing else is touched. Raises CheckError where others have
        their GPUs or ports, and what `bring_up` raises of a start.
        """
        if run.plan.run_id != self.run_id:
            raise ValueError(f"a plan of run {run.plan.run_id} for run {self.run_id}")
        plan = some_groups(run.plan, groups)
        self._begin(groups, "start")
        env = secrets_by_host(run.plan, run.spec, run.fleet)
        records = {host: record_of(plan, host, facts, tuple(env[host]), run.secret_hash) for host in run.plan.hosts}
        nodes = {name: host for name in groups if (host := node_host(name)) is not None}
        self._welcome(plan, records, [host for host in plan.scripts if host not in self.hosts])
        self._join(plan, records, restore=restore)
        self.nodes |= nodes
        if restore:
            plan = without_files(plan)
            private = {host: dict[str, str]() for host in plan.hosts}
        else:
            private = group_files(run, plan, plan.hosts if secrets else self.new_hosts)
        try:
            started = execute(plan, run.fleet, records, private, self.say, run.kept)
            if plan.servers:
                wait_ready(plan, run.fleet, started, run.spec.timeouts, self.say)
            if plan.restart.supervised and nodes:
                permit_ray_restarts(plan, run.fleet, self.say, nodes.values())
        except (KeyboardInterrupt, DeployError):
            try:
                self._stop(groups, run.spec.timeouts.stop)
            except DeployError as error:
                text = f"{', '.join(groups)}: what was started of it is not stopped: {error.lines[0]}"
                self.say(Event(STAGE, "note", text=text))
            raise

    def put_back(self, groups: Sequence[str], plan: Plan) -> None:
        """Put groups behind what is before them again, as planned. Raises RemoteError."""
        servers = [self._server(name) for name in self._groups(groups)]
        if servers:
            self._begin(groups, "return")
        planned = {front.name for front in plan.fronts}
        for server in servers:
            front = self._front(server)
            if front is not None and front["name"] in planned:
                urls = worker_urls(server)
                if front["name"] != GATE:
                    self.acts.route(front, add=urls)
                elif plan.gate is not None:
                    add = behind_names(plan.gate, urls)
                    change_gate(self.acts.fleet, self.acts.deployment, front["driver"], add=add)
                self._tell("done", server, f"behind {front['name']}")

    def watch(self, groups: Sequence[str], seconds: float) -> None:
        """See that groups stay well. Raises GroupUnwellError as soon as one of them does not."""
        end, watched = time.monotonic() + seconds, [name for name in groups if node_host(name) is None]
        while seconds > 0 and watched:
            left = end - time.monotonic()
            states = self._states()
            for group in watched:
                state, problem = states.get(group, ("UNKNOWN", "its record is gone"))
                if state in _UNWELL:
                    host = self._any_server(group)["driver"]
                    raise GroupUnwellError(f"{host}: {group} is {state} soon after its start: {brief(problem)}")
            if left <= 0:
                return
            self.acts.fleet.cancelled.wait(min(WATCH_SECONDS, left))

    def mark_done(self, groups: Collection[str]) -> None:
        """Note that groups are as the change wants them, or what they were on the way back."""
        self.note = change_note.made(self.note, groups, back=self.back)
        self._change_records(lambda _host: {"change": self.note})

    def restore_files(self, hosts: Collection[str]) -> None:
        """Let hosts have secrets and files as when the change began: a group of it may have brought new ones."""
        self._change_records(lambda _host: {"before": "restore"}, [host for host in self.hosts if host in hosts])

    def finish(self, change: Callable[[str], RecordChange], hosts: Iterable[str] | None = None) -> None:
        """Note that the change is over, with what else is to be noted on a host."""
        self.ending = True
        self._change_records(lambda host: {**change(host), "change": None, "before": "forget"}, hosts)

    def _take_out(self, front: RecordedServer, urls: Sequence[str], seconds: float) -> None:
        if front["name"] == GATE:
            change_gate(self.acts.fleet, self.acts.deployment, front["driver"], remove=urls, timeout=seconds)
        else:
            self.acts.route(front, remove=urls)

    def _groups(self, names: Iterable[str]) -> list[str]:
        """Return those of the names that are of groups."""
        return [name for name in names if node_host(name) is None and name not in self.routers]

    def _server(self, group: str) -> RecordedServer:
        """Return a group of the record. Raises CheckError for one that cannot be changed by itself."""
        server = self.servers.get(group)
        if server is None:
            problem = f"the record on {self.hosts[0]} has no server of this name"
            raise CheckError.at(group, problem, "stop, then run")
        routed = self._front(server) is not None
        if not server.get("ranks") or (routed and len(worker_urls(server)) != len(answering(server))):
            raise CheckError.at(group, "it was started by an older version of this tool", "stop, then run")
        return server

    def _any_server(self, name: str) -> RecordedServer:
        return self.routers[name] if name in self.routers else self.servers[name]

    def _front(self, server: RecordedServer) -> RecordedServer | None:
        """Return what sends requests to a group: the router of its model, else the gate.

        None where that does not run, and for pools, whose router looks for them by itself.
        """
        routers = {router["model"]: router for router in self.routers.values()}
        return None if server.get("pool") else routers.get(server["model"], self.routers.get(GATE))

    def _lost_of(self, server: RecordedServer) -> list[str]:
        hosts = {rank["host"] for rank in server.get("ranks", ())} or {server["driver"]}
        return sorted(hosts & self.lost)

    def _stop(self, groups: Sequence[str], grace: float) -> None:
        """Stop groups, and after them the Ray nodes that they may use."""
        for name in sorted(filter(self.has, groups), key=self.nodes.__contains__):
            node = self.nodes.get(name)
            scripts = scripts_of(self._any_server(name)) if node is None else {node: [WORKER]}
            there = {host: own for host, own in scripts.items() if host not in self.lost}
            for host, reply in self.acts.stop(name, there, grace if node is None else NODE_SECONDS).items():
                killed = f", {reply['killed']} by SIGKILL" if reply["killed"] else ""
                text = f"{name}: {counted(reply['ended'], 'process')} ended{killed}, none left"
                self.say(Event(STAGE, "done", host, text))
            for host in sorted(scripts.keys() & self.lost):
                self.say(Event(STAGE, "note", host, f"{name}: is not stopped here: the host is out of reach"))

    def _begin(self, groups: Sequence[str], step: Step) -> None:
        self.note = change_note.begun(self.note, self.together or groups, step, back=self.back)
        self._change_records(lambda _host: {"change": self.note})
        self.say(Event(STAGE, "running", text=f"{', '.join(groups)}: {STEPS[step]}"))

    def _welcome(self, plan: Plan, records: Mapping[str, Record], hosts: Sequence[str]) -> None:
        """Make hosts that have no part in the deployment yet a part of it. Raises CheckError."""
        if not hosts:
            return
        common = cast("Record", {key: value for key, value in self.record.items() if key in COMMON})
        common = {**common, "instances": [*self.servers.values()], "routers": [*self.routers.values()]}
        self._refuse_taken(self.acts.reserve(hosts, lambda host: {**records[host], **common}, plan.exclusive))
        self.hosts += hosts
        self.new_hosts += hosts
        self.acts.change_records(hosts, lambda _host: {"change": self.note, "before": "keep"})

    def _join(self, plan: Plan, records: Mapping[str, Record], *, restore: bool) -> None:
        """Give groups their place in all records, and what they need on their hosts. Raises CheckError."""

        def change(host: str) -> RecordChange:
            scripts = [step.script for stage in plan.stages for step in stage.steps if step.host == host]
            wanted: RecordChange = {
                "join": records.get(host, other),
                "exclusive": list(plan.exclusive),
                "scripts": scripts,
                "common": {"routers": [*routers.values()]},
            }
            if restore and scripts:
                wanted["before"] = "restore"
                wanted["scripts"] = [
                    *scripts,
                    *([SETTINGS] if plan.gate is not None and plan.gate.driver == host else ()),
                ]
            return wanted

        other: Record = {**next(iter(records.values())), "gpus": [], "ports": {}, "roles": []}
        started = {server["name"]: server for server in other["routers"]}
        routers = {**self.routers, **started}
        self._refuse_taken(self._change_records(change))
        self.routers = routers
        self.servers |= {server["name"]: server for server in other["instances"]}

    def _refuse_taken(self, taken: Iterable[tuple[str, Mapping[str, object]]]) -> None:
        faults = [Fault(host, f"{claim['what']} is taken by {claim['by']}", host=host) for host, claim in taken]
        if faults:
            raise CheckError(faults)

    def _change_records(
        self, change: Callable[[str], RecordChange], hosts: Iterable[str] | None = None
    ) -> list[tuple[str, Mapping[str, object]]]:
        return [*self.acts.change_records(self.hosts if hosts is None else hosts, change)]

    def _states(self) -> dict[str, tuple[str, str]]:
        """Return state and problem of each server by its name: ready is what answers with a token."""
        results = inspect_hosts(self.acts.fleet, self.acts.deployment, self.hosts, ask=True)
        status = summarize(self.acts.deployment, self.hosts[0], results, time.time())
        return {server.name: (server.state, server.problem) for server in (*status.instances, *status.routers)}

    def _tell(self, state: Literal["done", "note"], server: RecordedServer, text: str) -> None:
        self.say(Event(STAGE, state, server["driver"], f"{server['name']}: {text}"))
