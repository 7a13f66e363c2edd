"""Carry out a change of a deployment batch by batch; put back what was changed where that fails."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from flagscale_deploy.deploy.batches_left import hosts_of, way_back
from flagscale_deploy.deploy.bring_up import Failure, Run, find_cause, install_boot_entries
from flagscale_deploy.deploy.change_steps import STAGE
from flagscale_deploy.deploy.gate import change_gate
from flagscale_deploy.deploy.group_change import GroupChange
from flagscale_deploy.deploy.launch import StepsFailedError
from flagscale_deploy.deploy.lock import operator
from flagscale_deploy.deploy.records import record_of
from flagscale_deploy.deploy.stop import stop_deployment
from flagscale_deploy.errors import CheckError, DeployError, HostError, InterruptedByUser, LockLostError
from flagscale_deploy.events import Event
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.plan.change_order import Batch
from flagscale_deploy.plan.entrances import GATE, GatePlan
from flagscale_deploy.plan.gate import CLIENT_KEYS, INTERNAL_KEY
from flagscale_deploy.plan.kept import KeptRun
from flagscale_deploy.plan.some_groups import parts_of
from flagscale_deploy.remote.messages.change import ChangeEvent, RecordChange
from flagscale_deploy.remote.messages.record import Record
from flagscale_deploy.remote.wire import cut
from flagscale_deploy.text import one_line

LONGEST_REASON = 2000
"""Characters of what a history has of a change."""


@dataclass(frozen=True)
class Target:
    """What groups are to be: a run, described by `kept`. With `restore` its files are those that hosts have kept."""

    run: Run
    kept: KeptRun
    restore: bool = False


@dataclass(frozen=True)
class Pace:
    """Seconds that requests are waited for, and that a group is watched which is back."""

    drain: float
    watch: float


class ChangeFailedError(DeployError):
    """A change has failed; exit status 5. `put_back` says whether all is as before."""

    exit_code = 5

    def __init__(self, failure: Failure, change_id: str, *, put_back: bool) -> None:
        self.failure, self.change_id, self.put_back = failure, change_id, put_back
        lines = list(failure.error.lines)
        if (diagnosis := failure.diagnosis) is not None and diagnosis.line not in str(failure.error):
            lines.append(one_line(f"{diagnosis.host}: {diagnosis.cause or diagnosis.line}"))
            lines += [f"    → {one_line(diagnosis.remedy)}"] if diagnosis.remedy else []
        if put_back:
            super().__init__(*lines, "what was changed is put back")
        else:
            super().__init__(*lines, "the change is not over", "    → finish it with `update --resume`, or `rollback`")


@dataclass
class Update:
    """A change from one target to another, in batches. `facts` are those of the hosts before it."""

    change: GroupChange
    facts: Mapping[str, Facts]
    pace: Pace
    reason: Sequence[str] = ()
    """What is changed, for the history: a line each."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """The files with keys that the gate gets, by path."""
    secrets: bool = False
    """Whether hosts get the secrets of the target, and the servers there the key of a gate that comes with them."""
    notes: list[str] = field(default_factory=list)
    """What is not as one may expect when it is over."""

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._left_out: set[str] = set()

    def carry_out(self, batches: Sequence[Batch], to: Target, extra: Target | None = None) -> None:
        """Begin, change all batches, and finish; groups beside those of the target are of `extra`, for a while."""
        self.change.begin(to.run.kept)
        for batch in batches:
            self._change(batch, to, extra)
        self._finish(to, "updated", self.reason)

    def put_back(self, now: Target, before: Target, cause: str) -> None:
        """Make what was changed, or is being changed, what it was before, and finish.

        Groups that were on hosts out of reach are left out. Raises CheckError as `refuse_noted` does.
        """
        self.refuse_noted()
        note = self.change.note
        out = [] if note["step"] == "drain" else note["groups"]
        if note["step"] == "drain":  # they run as before
            self.change.put_back([name for name in note["groups"] if name in self.change.servers], before.run.plan)
        touched = [*out, *note["done"]]  # those that do not serve come first
        kept = self._without_lost(before.kept, touched)
        self.change.note = {**note, "groups": out}
        self.change.back = True
        for batch in way_back(now.kept, kept, self.change, touched):
            self._change(batch, before, None)
        if touched:
            self.change.restore_files({before.run.plan.head, *before.run.plan.working})
        self._finish(before, "put back", [cause])

    def refuse_noted(self) -> None:
        """Raise CheckError where the end of the change is noted on some hosts: nothing of before is kept there."""
        note = self.change.note
        if self.change.ending and (note["done"] or note["groups"]):
            problem = "the change is made, and its end is noted on some hosts"
            raise CheckError.at(self.change.acts.deployment, problem, "`update --resume` first, then `rollback`")

    def _without_lost(self, before: KeptRun, touched: Sequence[str]) -> KeptRun:
        """Return what ran before without the touched groups that were on hosts out of reach."""
        lost = {server["name"]: gone for server in before["servers"] if (gone := hosts_of(server) & self.change.lost)}
        self._left_out = {name for name in touched if name in lost}
        for name in sorted(self._left_out):
            text = f"{name} is not put back: {', '.join(sorted(lost[name]))} is out of reach"
            self.change.say(Event(STAGE, "note", text=text))
        return {**before, "servers": [server for server in before["servers"] if server["name"] not in self._left_out]}

    def put_back_or_fail(self, now: Target, before: Target, cause: str) -> None:
        """Put back what was changed. Raises ChangeFailedError where that fails."""
        try:
            self.put_back(now, before, cause)
        except LockLostError:
            raise
        except (KeyboardInterrupt, DeployError) as error:
            failure = Failure(error if isinstance(error, DeployError) else InterruptedByUser("interrupted"))
            self.fail(f"putting it back failed: {failure.error.lines[0]}")
            raise ChangeFailedError(failure, self.change.note["run_id"], put_back=False) from error

    def fail(self, cause: str) -> None:
        """Note in the histories that the change has failed, and is not over."""
        event = self._event("update failed", [cause])
        with suppress(DeployError):
            self.change.acts.change_records(self.change.hosts, lambda _host: {"event": event})

    def _change(self, batch: Batch, to: Target, extra: Target | None) -> None:
        change, names, grace = self.change, batch.groups, to.run.spec.timeouts.stop
        planned = parts_of(to.run.plan)
        target = to if extra is None or not planned.isdisjoint(names) else extra
        there = [name for name in names if change.has(name)]
        everything = GATE in names and len(names) > 1
        change.together = names
        if there and batch.kind != "add" and not (everything and change.note["step"] not in ("", "drain")):
            change.drain(there, self.pace.drain)  # else what is left of everything ends
        if there:
            change.stop(there, grace)
        if batch.kind != "remove":
            wanted = names if target is extra else [name for name in names if name in planned]
            change.start(target.run, self.facts, wanted, secrets=self.secrets and not to.restore, restore=to.restore)
            change.put_back(wanted, target.run.plan)
            change.watch(wanted, self.pace.watch)
        change.together = ()
        change.mark_done(names)

    def _finish(self, to: Target, kind: str, reason: Sequence[str]) -> None:
        """Note that the deployment is what the target says; end what is left on hosts that have no part in it."""
        change, plan, run = self.change, to.run.plan, to.run
        parts = {plan.head, *plan.working}
        leaving = [host for host in change.hosts if host not in parts]
        names = {server.name for server in plan.servers} - self._left_out
        dropped = [name for name in (*change.servers, *change.routers) if name not in names]
        event = self._event(kind, reason)

        def last(host: str) -> RecordChange:
            wanted: RecordChange = {"drop": dropped, "event": event}
            wanted["common"] = {"routers": [server for name, server in change.routers.items() if name in names]}
            if not to.restore:
                wanted["files"] = {
                    f"scripts/{name}": (text, "700") for name, text in plan.scripts.get(host, {}).items()
                }
                wanted["common"] = self._common(to, host)
                if GATE in change.routers and host == change.routers[GATE]["driver"]:
                    keys = self.keys if plan.gate is not None else {CLIENT_KEYS: "", INTERNAL_KEY: ""}
                    wanted["files"] |= {path: (text, "600") for path, text in keys.items()}
            return wanted

        if leaving:
            change.ending = True
            self.change.say(Event(STAGE, "running", text=f"{', '.join(leaving)}: no part of it any more"))
            stop_deployment(
                run.fleet, plan.deployment, run.spec.timeouts.stop, change.say, change.run_id, hosts=leaving
            )
        change.finish(last, [host for host in change.hosts if host in parts])
        if plan.gate is not None and not to.restore:
            self._reload_gate(to, plan.gate)
        if plan.restart.boot and not to.restore:
            install_boot_entries(plan, run.fleet, change.say)

    def _reload_gate(self, to: Target, gate: GatePlan) -> None:
        """See that the gate uses the settings that were written."""
        reply = change_gate(to.run.fleet, to.run.plan.deployment, gate.driver)
        if reply["restart_needed"]:
            self.notes.append("the gate needs a restart for some of its settings: stop, then run")
        self.change.say(Event(STAGE, "done", gate.driver, f"{gate.name}: uses its settings"))

    def _common(self, to: Target, host: str) -> Record:
        """Return what the records have in common when the change is over."""
        whole = record_of(to.run.plan, host, self.facts, (), to.run.secret_hash)
        common: Record = {
            "digest": whole["digest"],
            "hosts": whole["hosts"],
            "instances": whole["instances"],
            "routers": whole["routers"],
            "secret_hash": whole["secret_hash"],
            "configuration": self.change.note["run_id"],
        }
        return common

    def _event(self, kind: str, reason: Sequence[str]) -> ChangeEvent:
        text = cut("\n".join(one_line(line) for line in reason), LONGEST_REASON)
        return {
            "event": kind,  # type: ignore[typeddict-item]
            "run_id": self.change.note["run_id"],
            "by": operator(),
            "reason": text,
            "took": time.monotonic() - self._began,
        }


def change_or_put_back(
    update: Update,
    batches: Sequence[Batch],
    to: Target,
    back: Target | None,
    extra: Target | None = None,
) -> None:
    """Carry a change out; where it fails, or is interrupted, put back what was changed.

    Without `back` it stays. Raises ChangeFailedError, and LockLostError where another command has taken over.
    """
    try:
        update.carry_out(batches, to, extra)
    except LockLostError:
        raise
    except (KeyboardInterrupt, DeployError) as error:
        failure = Failure(error if isinstance(error, DeployError) else InterruptedByUser("interrupted"))
        if isinstance(error, HostError | StepsFailedError):
            failure = find_cause(to.run, failure)
        raise _after_failure(update, failure, to, back) from error


def _after_failure(update: Update, failure: Failure, to: Target, back: Target | None) -> ChangeFailedError:
    """Put back what was changed, unless that is to stay; return what is raised then."""
    change_id, first = update.change.note["run_id"], failure.error.lines[0]
    if back is None:
        update.fail(first)
        return ChangeFailedError(failure, change_id, put_back=False)
    update.change.say(Event(STAGE, "note", text=f"{first}: putting back what was changed"))
    try:
        update.put_back(to, back, first)
    except LockLostError:
        raise
    except (KeyboardInterrupt, DeployError) as error:
        lines = error.lines if isinstance(error, DeployError) else ("interrupted again",)
        update.fail(f"{first}; putting it back failed: {lines[0]}")
        both = DeployError(*failure.error.lines, "putting back what was changed failed:", *lines)
        return ChangeFailedError(replace(failure, error=both), change_id, put_back=False)
    return ChangeFailedError(failure, change_id, put_back=True)
