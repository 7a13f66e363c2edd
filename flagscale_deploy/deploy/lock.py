"""The lock on a deployment's head: one command at a time changes it, and who loses the lock stops."""

from __future__ import annotations

import getpass
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from flagscale_deploy.errors import ConnectError, InterruptedByUser, LockedError, LockLostError, RemoteError
from flagscale_deploy.remote.messages.stop import (
    LOCK,
    UNLOCK,
    Displacement,
    LockArguments,
    LockHolder,
    LockOrder,
    LockReply,
    UnlockArguments,
)
from flagscale_deploy.support.platform import uptime
from flagscale_deploy.transport.fleet import Fleet, no_guard
from flagscale_deploy.transport.remote_program import Program, call

LOCK_WAIT_SECONDS = 3.0
"""How long a command waits for a lock: a killed operator's goes within moments, when his connection ends."""
BEAT_SECONDS, SILENCE_SECONDS, LEASE_SECONDS = 3.0, 45.0, 60.0
"""How often the head and the holder say that they are there; after how long without a beat a holder takes the lock for
lost, and `unlock` the holder for gone; after how long the head lets go by itself. The holder always knows it first."""
SLACK_SECONDS = 30.0


def operator() -> str:
    """Who types, and where."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def said_of(holder: LockHolder) -> str:
    """A holder in words: who is doing what, from where, since when."""
    come = f" (from {holder['from']})" if holder.get("from") else ""
    return (
        f"{holder.get('who') or 'somebody'}{come} is doing {holder.get('what') or 'something'} "
        f"since {holder.get('since') or 'just now'}"
    )


@contextmanager
def lock(fleet: Fleet, head: str, deployment: str, what: str, wait: float = LOCK_WAIT_SECONDS) -> Iterator[None]:
    """Hold the deployment's lock on its head for the length of the block. Raises LockedError, ConnectError.

    Should it be lost meanwhile, every further act of the fleet raises LockLostError, and those under way end with it.
    """
    args: LockArguments = {
        "deployment": deployment,
        "host": head,
        "wait": wait,
        "beat": BEAT_SECONDS,
        "lease": LEASE_SECONDS,
        "holder": _holder(what),
    }
    connection = fleet.connection(head)
    leaving = threading.Event()
    patience = wait + SLACK_SECONDS
    with Program(connection, LOCK, args, timeout=patience, cancelled=leaving, bounded=False) as program:
        answer = next(program.messages(), None)
        if answer is None:
            raise RemoteError(head, "the lock's program ended without an answer")
        if not answer["locked"]:
            raise _refused(head, deployment, answer)
        lease = _Lease(fleet, head, deployment, program, leaving)
        keeper = threading.Thread(target=lease.keep, name="lock", daemon=True)
        fleet.guard = lease.check
        keeper.start()
        try:
            yield
        finally:
            fleet.guard = no_guard
            leaving.set()
            program.end_input()  # it lets go and ends, which is heard at once
            keeper.join()


def _holder(what: str) -> LockHolder:
    return {"who": operator(), "what": what, "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}


def _refused(head: str, deployment: str, answer: LockReply) -> LockedError | RemoteError:
    if "problem" in answer:
        return RemoteError(
            head,
            f"{deployment} cannot be locked: {answer['problem']}",
            "the home directory there must be writable, and its file system must know flock(2)",
        )
    silent = answer.get("silent")
    heard = f"; not heard for {silent:.0f} s" if silent is not None and silent > SLACK_SECONDS / 2 else ""
    return LockedError(
        head,
        f"{deployment} is locked: {said_of(answer['holder'])}{heard}",
        "wait for it (--lock-timeout), or end that command; "
        f"if it is gone: flagscale-deploy unlock, with the same hosts and --name {deployment}",
    )


class _Lease:
    """A lock that is ours as long as the head and we hear each other."""

    def __init__(
        self,
        fleet: Fleet,
        head: str,
        deployment: str,
        program: Program[LockReply, LockOrder],
        leaving: threading.Event,
    ) -> None:
        self._fleet, self._head, self._deployment = fleet, head, deployment
        self._program, self._leaving = program, leaving
        self._lost: LockLostError | None = None
        self._cut = False
        self._heard = uptime()

    def keep(self) -> None:
        """Answer every beat, until the block ends or the lock is lost."""
        self._program.allow(SILENCE_SECONDS)
        try:
            for message in self._program.messages():
                if "displaced" in message:
                    self._lose(_displacement(message["displaced"]))
                    return
                self._heard = uptime()
                self._program.send({"beat": message.get("beat")})
                self._program.allow(SILENCE_SECONDS)
            self._lose("the program that held it there has ended")
        except InterruptedByUser:
            return
        except ConnectError:
            self._cut = True  # what is still to be done on the head fails by itself, and says so better
        except RemoteError as error:
            self._lose(error.problem)

    def check(self) -> None:
        """Raise LockLostError if the lock is lost. A command that slept as long as a lease has lost it, too."""
        if self._lost is None and not self._cut and uptime() - self._heard > SILENCE_SECONDS:
            self._lose(f"nothing was heard of it for {SILENCE_SECONDS:g} s")
        if self._lost is not None:
            raise self._lost

    def _lose(self, why: str) -> None:
        if self._leaving.is_set():
            return
        self._lost = LockLostError(
            f"{self._head}: the lock of {self._deployment} was lost: {why}\n"
            "    → nothing more was done; flagscale-deploy status, with the same hosts, tells what is there"
        )
        self._fleet.cancelled.set()


def _displacement(by: Displacement) -> str:
    if by.get("who"):
        return f"{by['who']} ended it with unlock, {by.get('since', 'just now')}"
    if by.get("silent"):
        return f"the head has heard nothing from here for {by['silent']:g} s"
    return "somebody ended the program that held it (SIGTERM)"


@dataclass(frozen=True)
class Unlocked:
    """What became of a lock. `free`: nobody held it; `ended`: its holder was ended, silent for so many seconds."""

    deployment: str
    host: str
    state: Literal["free", "ended"]
    holder: LockHolder
    silent: float | None = None


def unlock(fleet: Fleet, head: str, deployment: str, *, force: bool) -> Unlocked:
    """End whoever holds the lock, if he is gone; with `force` also a living one. Raises LockedError where it stays."""
    args: UnlockArguments = {
        "deployment": deployment,
        "host": head,
        "force": force,
        "gone": SILENCE_SECONDS,
        "by": _holder("unlock"),
    }
    answer = call(fleet.connection(head), UNLOCK, args, timeout=SLACK_SECONDS, cancelled=fleet.cancelled)
    state, holder, silent = answer["state"], answer["holder"], answer.get("silent")
    if state in ("free", "ended"):
        return Unlocked(deployment, head, state, holder, silent)
    said = f"{deployment} is locked: {said_of(holder)}"
    if state == "held":
        heard = f"last heard {silent:.0f} s ago" if silent is not None else "it does not say when it was last heard"
        problem = f"{said}; it lives (pid {answer['pid']}), {heard}"
        remedy = "wait for it or end that command; --force ends it, and that command stops where it is"
        raise LockedError(head, problem, remedy)
    if state == "survives":
        raise LockedError(head, f"{said}; pid {answer['pid']} did not end", "end it there yourself")
    kind = f", on {answer['filesystem']}" if answer.get("filesystem") else ""
    problem = f"{said}; no process that can be seen there holds it: another user's, or one of another machine that"
    raise LockedError(head, f"{problem} shares this home directory{kind}", "end it where it runs")
