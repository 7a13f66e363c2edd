"""Make a change as `update` and `rollback` want it, or put one back that is not over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from flagscale_deploy.api.change_session import Session
from flagscale_deploy.api.checking import examine, refuse_failed
from flagscale_deploy.api.describing import describe, kept_files
from flagscale_deploy.api.outage import refuse_outage
from flagscale_deploy.api.planning import Sources, load_sources
from flagscale_deploy.api.request import Request
from flagscale_deploy.api.running import events_written
from flagscale_deploy.api.surging import more_groups
from flagscale_deploy.deploy.batches_left import what_is_left
from flagscale_deploy.deploy.bring_up import Run
from flagscale_deploy.deploy.group_change import GroupChange
from flagscale_deploy.deploy.group_files import gate_keys
from flagscale_deploy.deploy.lock import operator
from flagscale_deploy.deploy.run_folder import RunFolder, new_run_id
from flagscale_deploy.deploy.status import Status, look
from flagscale_deploy.deploy.update import Pace, Target, Update, change_or_put_back
from flagscale_deploy.errors import CheckError
from flagscale_deploy.events import Event
from flagscale_deploy.plan.change_order import Batch, change_order, places
from flagscale_deploy.plan.difference import difference
from flagscale_deploy.plan.gate_turn import gate_turn
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.kept import KeptRun, KeptServer
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.planner import draft
from flagscale_deploy.plan.running import Running
from flagscale_deploy.plan.server_change import Difference
from flagscale_deploy.remote.messages.record import Record, RecordedChange

OWN_LOCK = "lock"
"""The check that would find the change's own lock."""


@dataclass(frozen=True)
class ChangeResult:
    """A change that is over: what it changed, and the deployment as it is now.

    `change_id` is "" and `status` is None where nothing had to be changed. `elapsed` is in seconds.
    """

    change_id: str
    difference: Difference
    status: Status | None = None
    elapsed: float = 0.0
    notes: tuple[str, ...] = ()
    """What is not as one may expect: a part that could not be stopped, settings that wait for a restart."""


@dataclass(frozen=True)
class Goal:
    """What is wanted, and what runs: the plan keeps the places that `running` holds; `base` is before the change.

    `secrets` says that hosts get the request's, `keys` that the gate gets its keys. `unfinished` is a change that an
    operator has left. With `recalled` the request is what hosts keep: its secrets are placeholders.
    """

    request: Request
    running: Running
    base: KeptRun
    secrets: bool
    keys: bool = False
    unfinished: RecordedChange | None = None
    reason: tuple[str, ...] = ()
    recalled: bool = False

    @property
    def secret_hash(self) -> str:
        """Return the hash of the secrets that the deployment has afterwards."""
        return self.request.secret_hash if self.secrets or self.keys else self.running.record.get("secret_hash", "")

    def note(self, change_id: str) -> RecordedChange:
        """Return what the records have of the change."""
        if self.unfinished is not None:
            return {**self.unfinished, "operator": operator()}
        return {
            "run_id": change_id,
            "operator": operator(),
            "base": self.base["run_id"],
            "groups": [],
            "step": "",
            "done": [],
            "secrets": self.secrets,
        }


def make_change(session: Session, goal: Goal) -> ChangeResult:
    """Make the deployment what is wanted. Raises CheckError with nothing changed, ChangeFailedError afterwards."""
    sources = load_sources(goal.request, session.options)
    change_id = goal.unfinished["run_id"] if goal.unfinished else new_run_id()
    plan, kept = _plan(session, goal, sources, change_id)
    made = difference(goal.base, kept, secrets_differ=goal.secrets, keys_differ=goal.keys)
    for line in made.lines:
        session.say(Event("plan", "note", text=line))
    if made.ray:
        problem = f"Ray itself would change: {', '.join(made.ray)}"
        raise CheckError.at(plan.deployment, problem, "leave that as it is; or stop, then run")
    if not made.changed and goal.unfinished is None:
        return ChangeResult("", made)
    with _folder(session, goal, change_id, plan) as folder:
        run = _run(session, goal.request, folder, plan, goal.secret_hash)
        to = Target(replace(run, kept=kept_files(kept, session.say)), kept)
        keep = session.how.keep_on_failure
        back = None if keep else _way_back(session, goal.base, goal.running.record, folder, sources)
        if back is None and not keep:
            session.say(Event("plan", "note", text="what is changed stays if this fails: what ran cannot be planned"))
        turns = gate_turn(goal.base, kept) is not None
        if turns:
            goal = _with_gate_turned(goal)
        change = session.open(goal.note(change_id), goal.request)
        if lacking := _hosts_without_secrets(goal, plan, change):
            problem = f"{', '.join(lacking)} has no part in it now, and no value of its secrets is kept"
            raise CheckError.at(plan.deployment, problem, "use its file: `update`")
        batches, extra = _way(session, goal, made, to, sources, change)
        refuse_outage(session, batches, goal.base, kept)
        keys = gate_keys(run) if (goal.secrets or goal.keys) and not turns else {}
        reason, secrets = (*goal.reason, *made.history), goal.secrets or turns
        update = Update(change, session.facts, _pace(session, goal.request), reason, keys, secrets)
        change_or_put_back(update, batches, to, back, extra)
    return _result(session, goal.request, change_id, made, update.notes)


def _with_gate_turned(goal: Goal) -> Goal:
    """Return what is wanted where a gate comes or goes: hosts get their secrets, for the key of servers is among them.

    Raises CheckError where no value of those secrets is kept.
    """
    has_secrets = any(goal.request.secrets_by_host.values())
    if goal.recalled and has_secrets:
        problem = "the gate would come or go: hosts get their secrets anew, whose values are not kept"
        raise CheckError.at(goal.request.deployment, problem, "use its file: `update`")
    return replace(goal, secrets=goal.secrets or has_secrets)


def undo_change(session: Session, request: Request, base: KeptRun, wanted: KeptRun, record: Record) -> ChangeResult:
    """Put back a change that is not over; `request` is what ran before. Raises CheckError, ChangeFailedError."""
    note: RecordedChange = {**record["change"], "operator": operator()}
    sources = load_sources(request, session.options)
    goal = Goal(request, Running(record, base), base, secrets=False)
    with _folder(session, goal, new_run_id()) as folder:
        before = _way_back(session, base, record, folder, sources)
        if before is None:
            raise CheckError.at(session.deployment, "what ran before cannot be planned again", "stop, then run")
        update = Update(session.open(note, request), session.facts, _pace(session, request))
        update.refuse_noted()
        update.put_back_or_fail(Target(before.run, wanted), before, f"put back by {operator()}")
    made = difference(wanted, base, secrets_differ=note["secrets"])
    return _result(session, request, note["run_id"], made, update.notes)


def _way_back(session: Session, base: KeptRun, record: Record, folder: RunFolder, sources: Sources) -> Target | None:
    """Return what runs as a target to go back to; None where it cannot be planned again as it is."""
    request = session.recall(base, base, exact=False)
    named = [str(settings.get("name")) for settings in base["hosts"]]
    hosts = tuple(session.fleet.hosts[name] for name in named if name in session.fleet.hosts)
    inputs = Inputs(
        replace(request.inventory, hosts=hosts),
        request.serve,
        session.facts,
        record["run_id"],
        *sources,
        skip={*session.options.skip, "gpu-busy"},
        held=Running(record, base).held,
    )
    plan = draft(inputs).plan
    if plan is None:
        return None
    again = describe(request, plan, inputs, session.redactor.redact)
    if (places(again), again["ray"]["nodes"]) != (places(base), base["ray"]["nodes"]):
        return None
    return Target(_run(session, request, folder, plan), base, restore=True)


def _plan(session: Session, goal: Goal, sources: Sources, change_id: str) -> tuple[Plan, KeptRun]:
    """Return the plan that passed the checks, and its description."""
    request = goal.request
    seen = {name: session.observations[name] for name in request.inventory.names}
    options = replace(session.options, running=goal.running, skip={*session.options.skip, OWN_LOCK})
    report = examine(request, session.fleet, seen, sources, options, say=session.say)
    for verdict in report.verdicts:
        if verdict.state == "warning":
            session.say(Event("check", "note", verdict.host, f"{verdict.check}: {verdict.found} → {verdict.remedy}"))
    plan = refuse_failed(report)
    inputs = Inputs(request.inventory, request.serve, session.facts, plan.run_id, *sources)
    made = describe(request, plan, inputs, session.redactor.redact)
    return plan, {**made, "run_id": change_id, "secret_hash": goal.secret_hash}


@contextmanager
def _folder(session: Session, goal: Goal, change_id: str, plan: Plan | None = None) -> Iterator[RunFolder]:
    """Yield the folder of the change: of its id, or of a later one where that was left; all events are there."""
    folder_id = new_run_id() if goal.unfinished else change_id
    with closing(RunFolder.make(goal.request.serve.exp_dir, folder_id, session.redactor.redact)) as folder:
        if plan is not None:
            folder.write_plan(plan, hides=goal.request.hides_logs)
        with events_written(folder, session.events, session.say):
            yield folder


def _run(session: Session, request: Request, folder: RunFolder, plan: Plan, secret_hash: str = "") -> Run:
    return Run(
        plan, request.serve, session.fleet, folder, session.redactor, session.say, secret_hash, request.hides_logs
    )


def _way(
    session: Session, goal: Goal, made: Difference, to: Target, sources: Sources, change: GroupChange
) -> tuple[tuple[Batch, ...], Target | None]:
    """Return the batches, and the target of groups that are there only while others are changed."""
    how = session.how

    def order(more: Sequence[KeptServer] = ()) -> tuple[Batch, ...]:
        if goal.unfinished is not None:
            return what_is_left(goal.base, to.kept, made, change, how.max_unavailable, more)
        return change_order(goal.base, to.kept, made, at_once=how.max_unavailable, surge=more)

    batches = order()
    surge = how.surge or int(any(batch.outage for batch in batches) and not how.allow_downtime)
    extra = more_groups(session, goal.request, goal.base, to, made, surge, sources) if surge else None
    if extra is not None and _hosts_without_secrets(goal, extra.run.plan, change):
        extra = None
    if extra is None:
        if how.surge:
            problem = f"there is no room for {surge} more of what is changed, or nothing sends requests there"
            raise CheckError.at(session.deployment, problem, "leave --surge out")
        return batches, None
    names = {server["name"] for server in to.kept["servers"]}
    more = [server for server in extra.kept["servers"] if server["name"] not in names]
    return order(more), extra


def _hosts_without_secrets(goal: Goal, plan: Plan, change: GroupChange) -> list[str]:
    """Return the plan's hosts that have no part yet, and would need secrets, of which no value is kept."""
    if not goal.recalled or not goal.request.serve.secret_env:
        return []
    return [host for host in plan.working if host not in change.hosts]


def _pace(session: Session, request: Request) -> Pace:
    return Pace(request.timeouts.drain, session.how.watch_for)


def _result(session: Session, request: Request, change_id: str, made: Difference, notes: Sequence[str]) -> ChangeResult:
    status = look(session.fleet, session.deployment, session.head, hosts=request.inventory.names)
    return ChangeResult(change_id, made, status, session.events[-1].at - session.events[0].at, tuple(notes))
