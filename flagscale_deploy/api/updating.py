"""Change a deployment that runs, a group at a time, and go back to what it was."""

from __future__ import annotations

from flagscale_deploy.api.change_session import DEFAULTS, ChangeOptions, Output, Session, changing
from flagscale_deploy.api.changing import ChangeResult, Goal, make_change, undo_change
from flagscale_deploy.api.planning import load_sources
from flagscale_deploy.api.request import PlanOptions, Request
from flagscale_deploy.checks.registry import refuse_unskippable
from flagscale_deploy.deploy.history import History
from flagscale_deploy.deploy.kept_runs import NOT_KEPT
from flagscale_deploy.deploy.lock import LOCK_WAIT_SECONDS
from flagscale_deploy.deploy.run_folder import runs
from flagscale_deploy.deploy.secret_hash import differing_secrets
from flagscale_deploy.deploy.update import ChangeFailedError
from flagscale_deploy.errors import CheckError, FaultsError
from flagscale_deploy.events import Sink, silent
from flagscale_deploy.inventory.command_line import again
from flagscale_deploy.plan.kept import KeptRun
from flagscale_deploy.plan.running import Running, find_running
from flagscale_deploy.plan.validate import refuse_wrong
from flagscale_deploy.remote.messages.record import RecordedChange
from flagscale_deploy.secrets import Redactor

__all__ = ["ChangeFailedError", "ChangeOptions", "ChangeResult", "resume", "rollback", "update"]


def update(
    request: Request,
    options: PlanOptions = PlanOptions(),
    how: ChangeOptions = DEFAULTS,
    *,
    lock_wait: float = LOCK_WAIT_SECONDS,
    redactor: Redactor | None = None,
    say: Sink = silent,
) -> ChangeResult:
    """Make a deployment that runs what is requested, without losing a request.

    Raises InputError, HostsUnreachableError, CheckError and LockedError with nothing changed, and ChangeFailedError
    afterwards.
    """
    refuse_unskippable(options.skip)
    refuse_wrong(request.serve)
    load_sources(request, options)  # before any host is contacted
    runs(request.serve.exp_dir)
    with changing(request, options, how, "update", lock_wait, Output(redactor, say)) as session:
        session.observe(request)
        running = find_running(session.facts, request.deployment, session.head)
        if running is None:
            raise session.not_running()
        if running.change is not None:
            raise _unfinished(request, running.change)
        if running.kept is None:
            raise CheckError.at(request.deployment, f"run {running.record.get('run_id')}: {NOT_KEPT}", "stop, then run")
        secrets, keys = differing_secrets(running.record.get("secret_hash"), request.secrets_by_host)
        return make_change(session, Goal(request, running, running.kept, secrets, keys))


def resume(
    request: Request,
    options: PlanOptions = PlanOptions(),
    how: ChangeOptions = DEFAULTS,
    *,
    lock_wait: float = LOCK_WAIT_SECONDS,
    redactor: Redactor | None = None,
    say: Sink = silent,
) -> ChangeResult:
    """Finish a change whose operator went away; hosts keep what it wants. Raises as `update` does."""
    with changing(request, options, how, "update --resume", lock_wait, Output(redactor, say)) as session:
        record, history = session.record(), session.history()
        change = record.get("change")
        if change is None:
            raise CheckError.at(request.deployment, "there is no change of it that is not over", "`update` begins one")
        base, wanted = session.kept(change["base"], history), _wanted(session, change, history)
        if change["secrets"]:
            problem = "it gives hosts other secrets, whose values are not kept"
            raise CheckError.at(request.deployment, problem, "`rollback`, then `update` again with its file")
        recalled = session.recall(wanted, base)
        session.observe(recalled)
        return make_change(
            session, Goal(recalled, Running(record, wanted), base, secrets=False, unfinished=change, recalled=True)
        )


def rollback(
    request: Request,
    to: str | None = None,
    options: PlanOptions = PlanOptions(),
    how: ChangeOptions = DEFAULTS,
    *,
    lock_wait: float = LOCK_WAIT_SECONDS,
    redactor: Redactor | None = None,
    say: Sink = silent,
) -> ChangeResult:
    """Go back to an earlier run or update (its id, the beginning of it, or its number); None: the one before.

    A change that is not over is put back, whatever it was. Raises as `update` does.
    """
    with changing(request, options, how, "rollback", lock_wait, Output(redactor, say)) as session:
        record, history = session.record(), session.history()
        change = record.get("change")
        if change is not None:
            base = session.kept(change["base"], history)
            wanted = _wanted(session, change, history) if _touches(change) else base
            recalled = session.recall(base, base, exact=False)
            session.observe(recalled)
            return undo_change(session, recalled, base, wanted, record)
        present = session.kept(Running(record).configuration, history)
        earlier = [run_id for run_id in history.served if run_id < present["run_id"]]  # ids sort by time
        if to is None and not earlier:
            raise CheckError.at(request.deployment, "nothing served before this", "`history` lists what did")
        run_id = history.named(to) if to is not None else earlier[-1]
        target = session.kept(run_id, history)
        recalled = session.recall(target, present)
        session.observe(recalled)
        running = Running(record, target)  # its places of then
        goal = Goal(recalled, running, present, secrets=False, reason=(f"back to {run_id}",), recalled=True)
        return make_change(session, goal)


def _touches(change: RecordedChange) -> bool:
    """Return whether a group was changed: before that, not all hosts may keep what is wanted."""
    return bool(change["groups"] or change["done"])


def _wanted(session: Session, change: RecordedChange, history: History) -> KeptRun:
    """Return what a change that is not over wants. Raises CheckError where hosts do not keep that."""
    try:
        return session.kept(change["run_id"], history)
    except CheckError as error:
        if _touches(change):
            raise
        problem = f"nothing of it is changed yet, and what it wants is not kept: {error.faults[0].problem}"
        raise CheckError.at(session.deployment, problem, "`rollback`, then `update` again") from error


def _unfinished(request: Request, change: RecordedChange) -> FaultsError:
    """Return the error that another change is not over."""
    line = again(request.inventory, "update", request.deployment)
    problem = f"change {change['run_id']} of {change['operator']} is not over"
    return CheckError.at(
        request.deployment, problem, f"finish it: {line} --resume; or put it back with `rollback` and the same hosts"
    )
