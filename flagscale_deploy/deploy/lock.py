"""The lock on a deployment's head: one command at a time changes the deployment, and one that loses it stops."""

from __future__ import annotations

import getpass
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from flagscale_deploy.errors import (
    ConnectError,
    InterruptedByUser,
    LockedError,
    LockLostError,
    NoReplyError,
    RemoteError,
)
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
"""How long a command waits for a lock. The lock of a killed command is released at once, with its connection."""
BEAT_SECONDS, SILENCE_SECONDS, LEASE_SECONDS = 3.0, 45.0, 60.0
"""How often head and holder exchange keepalives. How long without one until the holder gives the lock up, and `unlock`
takes the holder for gone. How long until the head releases it: longer, so that the holder always knows first."""
SLACK_SECONDS = 30.0
END_SECONDS = 10.0


def operator() -> str:
    """Return the operator as `user@hostname`; a container may run as a user without a name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid-{os.getuid()}"
    return f"{name}@{socket.gethostname()}"


def describe_holder(holder: LockHolder) -> str:
    """Describe a lock's holder: who, from where, which command, since when."""
    origin = f" (from {holder['from']})" if holder.get("from") else ""
    command = f"`{holder['what']}`" if holder.get("what") else "a command"
    who, since = holder.get("who") or "somebody", holder.get("since") or "a moment ago"
    return f"{who}{origin} has been running {command} since {since}"


@contextmanager
def lock(fleet: Fleet, head: str, deployment: str, command: str, wait: float = LOCK_WAIT_SECONDS) -> Iterator[None]:
    """Hold the deployment's lock on its head during the block; `command` is shown to commands that wait for it.

    If the lock is lost, every later action of the fleet raises LockLostError, and running ones are cancelled. Raises
    LockedError where the lock is not free within `wait` seconds, ConnectError, RemoteError.
    """
    args: LockArguments = {
        "deployment": deployment,
        "host": head,
        "wait": wait,
        "beat": BEAT_SECONDS,
        "lease": LEASE_SECONDS,
        "holder": _holder(command),
    }
    connection = fleet.connection(head)
    leaving = threading.Event()
    patience = wait + SLACK_SECONDS
    with Program(connection, LOCK, args, timeout=patience, cancelled=leaving, bounded=False) as program:
        reply = next(program.messages(), None)
        if reply is None:
            raise NoReplyError(head, "the program that takes the lock ended without a reply")
        if not reply.get("locked"):
            raise _refused(head, deployment, reply)
        lease = _Lease(fleet, head, deployment, program, leaving)
        keeper = threading.Thread(target=lease.keep, name="lock", daemon=True)
        fleet.guard = lease.check
        keeper.start()
        try:
            yield
        finally:
            fleet.guard = no_guard
            leaving.set()
            program.end_input()  # it releases the lock and ends, which we notice at once
            keeper.join(END_SECONDS)  # a head that reads no answers ends with its connection


def _holder(command: str) -> LockHolder:
    return {"who": operator(), "what": command, "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}


def _refused(head: str, deployment: str, reply: LockReply) -> LockedError | RemoteError:
    if "holder" not in reply:
        return RemoteError(
            head,
            f"{deployment} cannot be locked: {reply.get('problem', 'the host does not say why')}",
            "the home directory on this host must be writable, and its file system must support flock(2)",
        )
    silent = reply.get("silent")
    heard = f"; no sign of life for {silent:.0f} s" if silent is not None and silent > SLACK_SECONDS / 2 else ""
    return LockedError(
        head,
        f"{deployment} is locked: {describe_holder(reply['holder'])}{heard}",
        "wait for it (--lock-timeout), or end that command; "
        f"if it is gone: flagscale-deploy unlock, with the same hosts and --name {deployment}",
    )


class _Lease:
    """A held lock; it is kept as long as keepalives go both ways."""

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
        """Answer every keepalive until the block ends or the lock is lost."""
        self._program.allow(SILENCE_SECONDS)
        try:
            for message in self._program.messages():
                if "displaced" in message:
                    self._lose(_displacement(message["displaced"]))
                    return
                self._heard = uptime()
                self._program.send({"beat": message.get("beat")})
                self._program.allow(SILENCE_SECONDS)
            self._lose("the program that held it on the host has ended")
        except InterruptedByUser:
            return
        except ConnectError:
            self._cut = True  # later actions on the head fail by themselves, with a better message
        except RemoteError as error:
            self._lose(error.problem)

    def check(self) -> None:
        """Raise LockLostError if the lock is lost, also after this machine has slept for longer than a lease."""
        if self._lost is None and not self._cut and uptime() - self._heard > SILENCE_SECONDS:
            self._lose(f"no keepalive came from the head for {SILENCE_SECONDS:g} s")
        if self._lost is not None:
            raise self._lost

    def _lose(self, why: str) -> None:
        if self._leaving.is_set():
            return
        self._lost = LockLostError(
            f"{self._head}: the lock of {self._deployment} was lost: {why}",
            "    → nothing more was done; look with flagscale-deploy status and the same hosts",
        )
        self._fleet.cancelled.set()


def _displacement(by: Displacement) -> str:
    if by.get("who"):
        return f"{by['who']} released it with unlock, {by.get('since', 'just now')}"
    if by.get("silent"):
        return f"no keepalive reached the head for {by['silent']:g} s"
    return "the program that held it was ended by SIGTERM"


@dataclass(frozen=True)
class Unlocked:
    """A lock that is free now. `free`: nobody held it; `ended`: its holder was ended, silent for `silent` seconds."""

    deployment: str
    host: str
    state: Literal["free", "ended"]
    holder: LockHolder
    silent: float | None = None


def unlock(fleet: Fleet, head: str, deployment: str, *, force: bool) -> Unlocked:
    """Release the lock if its holder is gone, or terminate a live holder with `force`.

    Raises LockedError where the lock stays held.
    """
    args: UnlockArguments = {
        "deployment": deployment,
        "host": head,
        "force": force,
        "gone": SILENCE_SECONDS,
        "by": _holder("unlock"),
    }
    reply = call(fleet.connection(head), UNLOCK, args, timeout=SLACK_SECONDS, cancelled=fleet.cancelled)
    state, holder, silent = reply["state"], reply["holder"], reply.get("silent")
    if state in ("free", "ended"):
        return Unlocked(deployment, head, state, holder, silent)
    problem = f"{deployment} is locked: {describe_holder(holder)}"
    if state == "held":
        heard = "time of the last sign of life unknown" if silent is None else f"last sign of life {silent:.0f} s ago"
        problem = f"{problem}; it still runs (pid {reply['pid']}), {heard}"
        remedy = (
            "wait for it or end that command; --force releases the lock, and that command stops at its current step"
        )
        raise LockedError(head, problem, remedy)
    if state == "survives":
        raise LockedError(head, f"{problem}; pid {reply['pid']} did not end", "end it on the host yourself")
    filesystem = f" ({reply['filesystem']})" if reply.get("filesystem") else ""
    problem = f"{problem}; no visible process on the host holds it. It belongs to another user"
    problem += f", or to another machine with this home directory{filesystem}"
    raise LockedError(head, problem, "end it where it runs")
