"""Verify that what answers a connection on this host is a process of the deployment, and nobody else's.

Any local user may listen on a port while an engine loads, or after it has ended. So every request to a server looks at
the kernel's own tables before its first byte: at all sockets that listen where the connection went, and at the very
socket that it ends at. Each must be of our own user or root, as the kernel has it, and open in a process of the
deployment. (Its uid decides beside the process: session numbers of dead leaders are used again.)

The order matters: a connection that nobody has accepted yet lies in the queue of a socket that listens now. So the
listeners are looked at first, and its own end after them.

A program of the user's own may serve through a process that it does not start itself: `docker-proxy`, a container's
process on the host's network, Podman's `rootlessport`. For it, a socket of root or of the deployment's own user counts
too, unless a process of another deployment holds it. Both are trusted with the deployment (docs/security.md).
"""

from __future__ import annotations

import os
import threading
import time
from typing import Callable, Dict, List, Optional, Set

from flagscale_deploy.remote.deployment import processes
from flagscale_deploy.remote.deployment.processes import Family
from flagscale_deploy.remote.system import ports, proc
from flagscale_deploy.remote.system.proc import Identity, Process
from flagscale_deploy.remote.system.sock_diag import Connection, Socket

LOOKS, LOOK_SECONDS = 3, 0.02
"""A socket is foreign if so many looks show it: one may catch a process that is just being started."""
ESTABLISHED, SYN_RECV = 1, 3
"""States of a connection that was not accepted yet; SYN_RECV with TCP_DEFER_ACCEPT."""


class ForeignListenerError(OSError):
    """A port of the deployment is held by a process that is not of it."""


class NotThisHostError(OSError):
    """An address is not of this host, so nothing is known of what listens there."""


class PortGuard:
    """Verifies connections to servers of one deployment. `family` finds its processes, and may remember them."""

    def __init__(self, family: Family, *, program: bool = False) -> None:
        self._family, self._program = family, program
        self._members: Dict[int, Identity] = {}
        self._holders: List[int] = []
        self._lock = threading.Lock()

    def check(self, connection: Connection) -> None:
        """Raise ForeignListenerError unless all that may read this connection belongs to the deployment.

        Raises NotThisHostError for an address of another host, ConnectionError if the other end is gone.
        """
        listeners = self.check_listeners(connection)
        end = self.check_replied(connection)
        if end is None and self._program:
            return  # root's own address translation led it into a container
        waiting = end is not None and not end.inode and end.state in (ESTABLISHED, SYN_RECV)
        if end is None or not (end.inode or (waiting and listeners)):
            raise ConnectionResetError("the server has closed the connection")

    def check_listeners(self, connection: Connection) -> List[Socket]:
        """Raise ForeignListenerError unless all sockets that listen there are held by the deployment; return them."""
        if not ports.is_local(connection):
            raise NotThisHostError("%s is not an address of this host" % connection.destination[0])
        return self._confirm(connection, lambda: reached(ports.listeners(), *connection.destination))

    def check_replied(self, connection: Connection) -> Optional[Socket]:
        """Raise ForeignListenerError if the other end is held by somebody else; return it, None once it is closed."""
        ends = self._confirm(connection, lambda: [end for end in (ports.other_end(connection),) if end is not None])
        return ends[0] if ends else None

    def _confirm(self, connection: Connection, look: Callable[[], List[Socket]]) -> List[Socket]:
        """Return the sockets of the first look that shows none of somebody else."""
        for number in range(LOOKS):
            sockets = look()
            foreign = self._foreign([end for end in sockets if end.inode])
            if not foreign:
                return sockets
            time.sleep(LOOK_SECONDS if number < LOOKS - 1 else 0)
        raise ForeignListenerError(describe(connection.destination[1], foreign[0]))

    def _foreign(self, sockets: List[Socket]) -> List[Socket]:
        """Return the sockets that no process of the deployment holds."""
        with self._lock:
            missing = self._unheld(sockets)
            if missing:
                everyone = proc.scan()
                self._members = {process.pid: process.identity for process in self._family.among(everyone)}
                missing = [end for end in self._unheld(missing) if not self._is_allowed(end, everyone)]
            return missing

    def _unheld(self, sockets: List[Socket]) -> List[Socket]:
        pids = [pid for pid in self._holders if pid in self._members]
        pids += [pid for pid in self._members if pid not in pids]
        held = ports.holders_of({end.inode for end in sockets if end.uid in (0, os.getuid())}, pids)
        held = {inode: pid for inode, pid in held.items() if proc.lives(*self._members[pid])}
        self._holders = list(dict.fromkeys(held.values())) or self._holders
        return [end for end in sockets if end.inode not in held]

    def _is_allowed(self, end: Socket, everyone: List[Process]) -> bool:
        """Return whether a socket counts though no process of the deployment is seen to hold it."""
        own = os.getuid()
        others = {process.pid for process in everyone if process.pid not in self._members}
        holder = ports.holders_of({end.inode}, sorted(others)).get(end.inode)
        if self._program and end.uid in (0, own):
            return holder not in _of_deployments(everyone)
        return end.uid == own and holder is None and not all(map(_may_look_into, self._members))


def reached(sockets: List[Socket], address: str, port: int) -> List[Socket]:
    """Return those of the listening sockets that a connection to this address may reach.

    `::` takes IPv4 too, unless it is for IPv6 alone: then another socket may listen on the same port for IPv4.
    """
    there = [listener for listener in sockets if listener.port == port]
    wildcard = "::" if ":" in address else "0.0.0.0"
    exact = [listener for listener in there if listener.address in (address, wildcard)]
    return exact or [listener for listener in there if listener.address == "::"]


def describe(port: int, end: Socket) -> str:
    """Return in words who holds a port that should be the deployment's."""
    holder = ports.holders_of({end.inode}, sorted(process.pid for process in proc.scan())).get(end.inode)
    whose = "a process that is not of this deployment" if end.uid == os.getuid() else "another user's process"
    return "port %d is held by %s (uid %d%s)" % (port, whose, end.uid, ", pid %d" % holder if holder else "")


def _of_deployments(everyone: List[Process]) -> Set[Optional[int]]:
    """Return the pids of all deployments' processes."""
    names = {process.marker.rpartition("/")[0] for process in everyone if process.marker}
    return {process.pid for name in names for process in processes.ours(everyone, name + "/")}


def _may_look_into(pid: int) -> bool:
    """Return whether the open files of a process can be seen. Those of a program with capabilities cannot."""
    return os.access("/proc/%d/fd" % pid, os.R_OK | os.X_OK)
