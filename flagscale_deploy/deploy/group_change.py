"""Change one group of a running deployment at a time, without losing a request.

A group is taken out of its router and drained, stopped, started anew, and put back: `change_group`, or the steps of
GroupChange by themselves. Each step is noted in the records before it is begun: where an operator dies, `status` tells
what of the deployment is changed, and `stop` ends all of it. Everything that runs keeps the deployment's run id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from flagscale_deploy.deploy.authority import authority
from flagscale_deploy.deploy.bring_up import Run
from flagscale_deploy.deploy.group_acts import ASK_SECONDS, GroupActs, answering, worker_urls
from flagscale_deploy.deploy.launch import execute
from flagscale_deploy.deploy.lock import operator
from flagscale_deploy.deploy.private_files import private_files, secrets_by_host
from flagscale_deploy.deploy.readiness import wait_ready
from flagscale_deploy.deploy.records import record_of
from flagscale_deploy.errors import CheckError, DeployError, Fault
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.plan.entrances import GATE
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.one_group import one_group
from flagscale_deploy.remote.messages.change import DrainReply, RecordChange
from flagscale_deploy.remote.messages.record import Record, RecordedChange, RecordedServer
from flagscale_deploy.remote.messages.status import INSPECT
from flagscale_deploy.support.units import counted
from flagscale_deploy.transport.fleet import Fleet, answers
from flagscale_deploy.transport.replies import brief

STAGE = "change"
Step = Literal["drain", "stop", "start", "return"]
STEPS: Mapping[str, str] = {
    "drain": "taking it out of its router, until it has no request",
    "stop": "stopping it",
    "start": "starting it",
    "return": "putting it back",
}
DRAIN_SECONDS = 120.0


@dataclass
class GroupChange:
    """A change of a deployment under way. `servers` are its groups by name, as the records have them by now.

    `change_id` is what `update` calls it. `hosts` have a record of the deployment, the head first.
    """

    acts: GroupActs
    change_id: str
    hosts: Sequence[str]
    say: Sink
    servers: dict[str, RecordedServer]
    routers: Mapping[str, RecordedServer] = field(default_factory=dict)
    """The routers, by their model."""

    @property
    def run_id(self) -> str:
        """Return the deployment's run id, with which a plan of the change has to be made."""
        return self.acts.run_id

    def drain(self, group: str, seconds: float) -> DrainReply:
        """Take a group out of its router, and wait until it has no request. Returns what is left after `seconds`."""
        server = self._server(group)
        self._note(group, "drain")
        if router := self.routers.get(server["model"]):
            self.acts.route(router, remove=worker_urls(server))
            self._tell("done", server, f"out of {router['name']}")
        left = self.acts.drain(server, seconds)
        text = brief(left["why"]) or f"has {counted(left['requests'], 'request')} after {seconds:g} s"
        self._tell("done" if left["idle"] else "note", server, "has no request" if left["idle"] else text)
        return left

    def stop(self, group: str, grace: float) -> None:
        """Stop a group on all of its hosts. Raises RemoteError where something of it survives."""
        self._note(group, "stop")
        server = self._server(group)
        for host, reply in self.acts.stop(server, grace).items():
            killed = f", {reply['killed']} by SIGKILL" if reply["killed"] else ""
            self._tell("done", server, f"{counted(reply['ended'], 'process')} ended{killed}, none left", host)

    def start(self, run: Run, facts: Mapping[str, Facts], group: str, *, new_secrets: bool = False) -> None:
        """Start a group of the run's plan, and wait for its first token.

        One of that name was stopped before. Its hosts keep the secrets that they have; `new_secrets` are for all groups
        there that start from then on. Where it fails, what was started of it is stopped again; nothing else is touched.
        Raises CheckError where others have its GPUs or ports, and what `bring_up` raises of a start.
        """
        if run.plan.run_id != self.run_id:
            raise ValueError(f"a plan of run {run.plan.run_id} for run {self.run_id}")
        plan = one_group(run.plan, group)
        if new := [host for host in plan.scripts if host not in self.hosts]:
            raise CheckError.at(group, f"{', '.join(new)} has no part in the deployment yet", "stop, then run")
        self._note(group, "start")
        env = secrets_by_host(plan, run.spec, run.fleet)
        records = {host: record_of(plan, host, facts, tuple(env[host]), run.secret_hash) for host in plan.hosts}
        self._join(plan, records)
        self.servers[group] = records[self.hosts[0]]["instances"][0]
        private = private_files(plan, run.spec, env if new_secrets else {}, run.redactor, ray_token=None)
        try:
            started = execute(plan, run.fleet, records, private, self.say)
            wait_ready(plan, run.fleet, started, run.spec.timeouts, self.say)
        except (KeyboardInterrupt, DeployError):
            try:
                self.acts.stop(self.servers[group], run.spec.timeouts.stop)
            except DeployError as error:
                self._tell("note", self.servers[group], f"what was started of it is not stopped: {error.lines[0]}")
            raise

    def put_back(self, group: str) -> None:
        """Put a group behind its router again. Raises RemoteError."""
        server = self._server(group)
        self._note(group, "return")
        if router := self.routers.get(server["model"]):
            self.acts.route(router, add=worker_urls(server))
            self._tell("done", server, f"behind {router['name']}")

    def drop(self, group: str) -> None:
        """Let a group that was stopped be no part of the deployment any more."""
        self.acts.change_records(self.hosts, lambda _host: {"drop": [group]})
        del self.servers[group]

    def finish(self) -> None:
        """Note that the change is over."""
        self.acts.change_records(self.hosts, lambda _host: {"change": None})

    def _server(self, group: str) -> RecordedServer:
        """Return a group of the record. Raises CheckError for one that cannot be changed by itself."""
        server = self.servers[group]
        if any(router["name"] == GATE for router in self.routers.values()):  # which would go on asking it
            raise CheckError.at(group, "a group behind a gate cannot be changed by itself", "stop, then run")
        if server.get("pool"):
            raise CheckError.at(group, "an engine of a prefill or decode pool cannot be changed by itself")
        routed = server["model"] in self.routers
        if not server.get("ranks") or (routed and len(worker_urls(server)) != len(answering(server))):
            raise CheckError.at(group, "it was started by an older version of this tool", "stop, then run")
        return server

    def _note(self, group: str, step: Step) -> None:
        change: RecordedChange = {
            "run_id": self.change_id,
            "operator": operator(),
            "base": self.run_id,
            "groups": [group],
            "step": step,
            "done": [],
            "secrets": False,
        }
        self.acts.change_records(self.hosts, lambda _host: {"change": change})
        self.say(Event(STAGE, "running", text=f"{group}: {STEPS[step]}"))

    def _join(self, plan: Plan, records: Mapping[str, Record]) -> None:
        """Give a group its place in all records, and what it needs on its hosts. Raises CheckError."""

        def change(host: str) -> RecordChange:
            scripts = [step.script for step in plan.stages[0].steps if step.host == host]
            return {"join": records[host], "exclusive": list(plan.exclusive), "scripts": scripts}

        taken = self.acts.change_records(self.hosts, change)
        if faults := [Fault(host, f"{claim['what']} is taken by {claim['by']}", host=host) for host, claim in taken]:
            raise CheckError(faults)

    def _tell(self, state: Literal["done", "note"], server: RecordedServer, text: str, host: str = "") -> None:
        self.say(Event(STAGE, state, host or server["driver"], f"{server['name']}: {text}"))


def begin(fleet: Fleet, deployment: str, head: str, change_id: str, say: Sink) -> GroupChange:
    """Return a change of a deployment that runs, by the record of its head; the caller holds its lock.

    The records of hosts that do not reply stay as they are. Raises CheckError where it does not run.
    """
    results = fleet.call(
        INSPECT, lambda host: {"deployment": deployment, "host": host.name, "ask": False}, timeout=ASK_SECONDS
    )
    records = {host: reply["record"] or {} for host, reply in answers(results).items()}
    decided = authority(head, {host: record for host, record in records.items() if record})
    record = decided.record
    if record is None or not decided.trusted or record.get("stopped_at"):
        raise CheckError.at(deployment, decided.note or "it does not run", "start it with `run`")
    run_id = record["run_id"]
    hosts = [host for host, own in records.items() if own.get("run_id") == run_id and not own.get("stopped_at")]
    return GroupChange(
        GroupActs(fleet, deployment, run_id),
        change_id,
        sorted(hosts, key=lambda host: host != head),
        say,
        {server["name"]: server for server in record["instances"]},
        {router["model"]: router for router in record["routers"]},
    )


def change_group(
    change: GroupChange,
    run: Run,
    facts: Mapping[str, Facts],
    group: str,
    *,
    drain: float = DRAIN_SECONDS,
    new_secrets: bool = False,
) -> None:
    """Replace a group by the one of its name in the run's plan, while the others serve.

    `drain` is for how many seconds its requests are waited for. Where a step fails, the record keeps which. Raises what
    the steps do.
    """
    timeouts = run.spec.timeouts
    change.drain(group, drain)
    change.stop(group, timeouts.stop)
    change.start(run, facts, group, new_secrets=new_secrets)
    change.put_back(group)
    change.finish()
