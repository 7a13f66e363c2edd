"""The hosts of a deployment under its lock, for `update` and `rollback`: what runs there, and what ran before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from flagscale_deploy.api.planning import observe_hosts
from flagscale_deploy.api.recalled import recall
from flagscale_deploy.api.request import PlanOptions, Request
from flagscale_deploy.deploy.group_acts import inspect_hosts
from flagscale_deploy.deploy.group_change import GroupChange
from flagscale_deploy.deploy.history import History, read_history
from flagscale_deploy.deploy.kept_runs import read_configuration
from flagscale_deploy.deploy.lock import lock
from flagscale_deploy.deploy.open_change import open_change
from flagscale_deploy.errors import CheckError, FaultsError, HostError
from flagscale_deploy.events import Event, Journal, Sink
from flagscale_deploy.facts.model import Facts, Observation
from flagscale_deploy.plan.kept import KeptRun
from flagscale_deploy.remote.messages.record import Record, RecordedChange
from flagscale_deploy.secrets import Redactor
from flagscale_deploy.transport.fleet import Fleet


@dataclass(frozen=True)
class ChangeOptions:
    """How groups are changed.

    `max_unavailable` groups of a model at a time; before that, `surge` more of it are started, and ended afterwards.
    A group that is back is watched `watch_for` seconds. Without `allow_downtime` nothing is begun that leaves a model
    without a group. With `keep_on_failure` what was changed stays where a change fails.
    """

    max_unavailable: int = 1
    surge: int = 0
    watch_for: float = 10.0
    allow_downtime: bool = False
    keep_on_failure: bool = False


DEFAULTS = ChangeOptions()


@dataclass
class Session:
    """The hosts of a deployment, whose lock is held. `request` names them, and may want nothing."""

    request: Request
    options: PlanOptions
    how: ChangeOptions
    fleet: Fleet
    redactor: Redactor
    say: Journal
    events: list[Event]
    observations: Mapping[str, Observation] = field(default_factory=dict)

    @property
    def deployment(self) -> str:
        """Return its name."""
        return self.request.deployment

    @property
    def head(self) -> str:
        """Return the host whose record tells what it is."""
        return self.request.inventory.head.name

    @property
    def facts(self) -> dict[str, Facts]:
        """Return the facts of the hosts that the probe could ask."""
        return {name: seen.facts for name, seen in self.observations.items() if seen.facts is not None}

    def observe(self, request: Request) -> None:
        """Probe all hosts for what is requested."""
        self.observations = observe_hosts(request, self.fleet, self.say)

    def record(self) -> Record:
        """Return the head's record. Raises CheckError where the deployment does not run."""
        reply = inspect_hosts(self.fleet, self.deployment, [self.head], ask=False)[self.head]
        if isinstance(reply, HostError):
            raise reply
        record = reply["record"]
        if not record or record.get("stopped_at") or "run_id" not in record:
            raise self.not_running()
        return record

    def not_running(self) -> FaultsError:
        """Return the error that it does not run."""
        return CheckError.at(self.deployment, "it does not run", "start it with `run`")

    def history(self) -> History:
        """Return what became of the deployment."""
        return read_history(self.fleet, self.deployment, self.head)

    def kept(self, run_id: str, history: History) -> KeptRun:
        """Return what hosts keep of a run or update. Raises CheckError where that is nothing, or they do not agree.

        What it says runs on all hosts: where there are several, the word of one is not enough.
        """
        where = f"{self.deployment}, {run_id}"
        read = read_configuration(self.fleet, self.deployment, run_id, history.kept)
        if read.run is None:
            raise CheckError.at(where, read.problem, "stop, then run")
        keeping = [host for host, runs in history.kept.items() if run_id in runs]
        if read.others or (len(keeping) == 1 and len(history.kept) > 1):
            differ = f"{', '.join(read.others)} keeps something else of it than {read.host}"
            problem = differ if read.others else f"{read.host} keeps it, and no other host does"
            raise CheckError.at(where, problem, "look at it with `history`; use its file: `update`")
        return read.run

    def recall(self, kept: KeptRun, present: KeptRun, *, exact: bool = True) -> Request:
        """Return the request that a run or update was made from. Raises CheckError, InputError."""
        return recall(kept, present, self.request, exact=exact)

    def open(self, note: RecordedChange, request: Request) -> GroupChange:
        """Return the change of what runs. Raises CheckError where a host has a part in it that was not named."""
        others = [host.name for host in request.others]
        change = open_change(self.fleet, self.deployment, self.head, note, self.say, may_be_lost=others)
        missing = {host for server in change.servers.values() for host in server["hosts"]} - {*self.fleet.hosts}
        if missing:
            problem = f"{', '.join(sorted(missing))} has a part in it, and is not among the hosts"
            raise CheckError.at(self.deployment, problem, "keep it in the inventory, and add --without with its name")
        return change


@contextmanager
def changing(
    request: Request, options: PlanOptions, how: ChangeOptions, command: str, lock_wait: float, output: Output
) -> Iterator[Session]:
    """Yield the hosts of a deployment under its lock. Raises LockedError, ConnectError."""
    redactor, say = output.redactor or Redactor(), output.say
    redactor.add(*request.secrets)
    events: list[Event] = []
    with (
        request.fleet_of_all() as fleet,
        lock(fleet, request.inventory.head.name, request.deployment, command, lock_wait),
    ):
        yield Session(request, options, how, fleet, redactor, Journal([say, events.append]), events)


@dataclass(frozen=True)
class Output:
    """Where progress goes, and what hides secrets in it."""

    redactor: Redactor | None
    say: Sink
