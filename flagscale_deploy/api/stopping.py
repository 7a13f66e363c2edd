"""Stop a deployment, remove what is left of it, and release its lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from flagscale_deploy.api.elsewhere import refuse_part
from flagscale_deploy.api.request import Request
from flagscale_deploy.deploy.lock import LOCK_WAIT_SECONDS, Unlocked, lock
from flagscale_deploy.deploy.lock import unlock as unlock_deployment
from flagscale_deploy.deploy.probe_hosts import raise_failures
from flagscale_deploy.deploy.status import look
from flagscale_deploy.deploy.stop import StopReport, remove_leftovers, stop_deployment
from flagscale_deploy.errors import ConnectError, HostError, RemoteError
from flagscale_deploy.events import Event, Sink, silent
from flagscale_deploy.remote.messages.stop import CleanupReply
from flagscale_deploy.transport.fleet import Fleet, answers


def stop(
    request: Request,
    *,
    lock_wait: float = LOCK_WAIT_SECONDS,
    force: bool = False,
    say: Sink = silent,
    command: str = "stop",
) -> StopReport:
    """Stop the deployment on every host that can be reached, and verify it.

    `command` is what the lock shows to other commands. Raises LockedError and, without `force`, CheckError where the
    hosts run a part of it that the rest needs.
    """
    with request.fleet() as fleet:
        if not force:
            refuse_part(request, fleet, say)
        with _lock_if_possible(request, fleet, command, lock_wait, say):
            report = stop_deployment(fleet, request.deployment, request.timeouts.stop, say)
        _note_unknown_name(request, fleet, report, say)
        return report


def cleanup(
    request: Request,
    *,
    lock_wait: float = LOCK_WAIT_SECONDS,
    force: bool = False,
    say: Sink = silent,
    command: str = "cleanup",
) -> StopReport:
    """Stop the deployment as `stop` does, then remove its files from the hosts where nothing runs any more.

    Raises LockedError, CheckError, and RemoteError or HostsFailedError where files cannot be removed.
    """
    with request.fleet() as fleet:
        if not force:
            refuse_part(request, fleet, say)
        with _lock_if_possible(request, fleet, command, lock_wait, say):
            report = stop_deployment(fleet, request.deployment, request.timeouts.stop, say)
            clean = [host.host for host in report.hosts if host.state in ("stopped", "nothing")]
            results = _remove(request, fleet, clean, say)
        raise_failures(results)
        replies = answers(results)
        removed = {name: tuple(reply["removed"]) for name, reply in replies.items()}
        report = StopReport(report.hosts, removed, {name: tuple(reply["kept"]) for name, reply in replies.items()})
        _note_unknown_name(request, fleet, report, say)
        return report


def _note_unknown_name(request: Request, fleet: Fleet, report: StopReport, say: Sink) -> None:
    """Note which deployments there are, where nothing was there to stop because no host has one of this name."""
    if report.found_nothing:
        fault = look(fleet, request.deployment, request.inventory.head.name, ask=False).unknown_name
        if fault is not None:
            say(Event("stop", "note", text=f"{fault.where}: {fault.problem} → {fault.remedy}"))


def _remove(request: Request, fleet: Fleet, hosts: list[str], say: Sink) -> dict[str, CleanupReply | HostError]:
    """Remove what is left on hosts; on the head last, because the lock is removed with it."""
    head = request.inventory.head.name
    results = remove_leftovers(fleet, request.deployment, [name for name in hosts if name != head], say)
    results |= remove_leftovers(fleet, request.deployment, [name for name in hosts if name == head], say)
    return {name: results[name] for name in hosts}


def unlock(request: Request, *, force: bool = False) -> Unlocked:
    """Report the lock's holder; release the lock if the holder is gone, or terminate a live holder with `force`.

    Raises LockedError where the lock stays held, ConnectError.
    """
    with request.fleet() as fleet:
        return unlock_deployment(fleet, request.inventory.head.name, request.deployment, force=force)


@contextmanager
def _lock_if_possible(request: Request, fleet: Fleet, command: str, wait: float, say: Sink) -> Iterator[None]:
    """Hold the lock; go on without one where the head cannot be reached or cannot keep one.

    A deployment has to end also where the head's disk is full or read-only. Raises LockedError where another command
    holds the lock.
    """
    head = request.inventory.head.name
    with ExitStack() as held:
        try:
            fleet.connection(head)
            held.enter_context(lock(fleet, head, request.deployment, command, wait))
        except (ConnectError, RemoteError) as error:
            why = "be reached" if isinstance(error, ConnectError) else "keep one"
            say(Event(command, "note", head, f"no lock, because the head cannot {why}: {error.problem}"))
        yield
