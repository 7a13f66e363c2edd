"""Ending a deployment, and removing what is left of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from flagscale_deploy.api.request import Request
from flagscale_deploy.deploy.lock import LOCK_WAIT_SECONDS, Unlocked, lock
from flagscale_deploy.deploy.lock import unlock as unlock_deployment
from flagscale_deploy.deploy.probe import raise_failures
from flagscale_deploy.deploy.stop import StopReport, remove_leftovers, stop_deployment
from flagscale_deploy.errors import ConnectError, HostError, RemoteError
from flagscale_deploy.events import Event, Sink, silent
from flagscale_deploy.transport.fleet import Fleet, answers


def stop(
    request: Request, *, lock_wait: float = LOCK_WAIT_SECONDS, say: Sink = silent, what: str = "stop"
) -> StopReport:
    """End the deployment on every host that can be reached, and verify it. Raises LockedError."""
    with request.fleet() as fleet:
        with _lock_if_possible(request, fleet, what, lock_wait, say):
            return stop_deployment(fleet, request.deployment, request.timeouts.stop, say)


def cleanup(
    request: Request, *, lock_wait: float = LOCK_WAIT_SECONDS, say: Sink = silent, what: str = "cleanup"
) -> StopReport:
    """Stop, then remove what is left on the hosts where nothing runs any more. Raises LockedError."""
    with request.fleet() as fleet:
        with _lock_if_possible(request, fleet, what, lock_wait, say):
            report = stop_deployment(fleet, request.deployment, request.timeouts.stop, say)
            clean = [host.host for host in report.hosts if host.state in ("stopped", "nothing")]
            results = _remove(request, fleet, clean, say)
        raise_failures(results)
        found = answers(results)
        removed = {name: tuple(each["removed"]) for name, each in found.items()}
        return StopReport(report.hosts, removed, {name: tuple(each["kept"]) for name, each in found.items()})


def _remove(request: Request, fleet: Fleet, hosts: list[str], say: Sink) -> dict[str, HostError | dict[str, Any]]:
    """Remove what is left on hosts; on the head last, where the lock itself goes with it."""
    head = request.inventory.head.name
    results = remove_leftovers(fleet, request.deployment, [name for name in hosts if name != head], say)
    results |= remove_leftovers(fleet, request.deployment, [name for name in hosts if name == head], say)
    return {name: results[name] for name in hosts}


def unlock(request: Request, *, force: bool = False) -> Unlocked:
    """Say who holds the deployment's lock and end him if he is gone; with `force` also a living one.

    Raises LockedError where the lock stays his, ConnectError.
    """
    with request.fleet() as fleet:
        return unlock_deployment(fleet, request.inventory.head.name, request.deployment, force=force)


@contextmanager
def _lock_if_possible(request: Request, fleet: Fleet, what: str, wait: float, say: Sink) -> Iterator[None]:
    """The lock; none where the head can't be reached, or can't keep one (a disk that is full, or read-only): what runs
    has to end all the same. Raises LockedError where somebody else holds it."""
    head = request.inventory.head.name
    with ExitStack() as held:
        try:
            fleet.connection(head)
            held.enter_context(lock(fleet, head, request.deployment, what, wait))
        except (ConnectError, RemoteError) as error:
            why = "be reached" if isinstance(error, ConnectError) else "keep one"
            say(Event(what, "note", head, f"no lock, because the head cannot {why}: {error.problem}"))
        yield
