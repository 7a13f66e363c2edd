"""List the TCP ports on which a host listens, and who holds them."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

from flagscale_deploy.remote.system import sock_diag
from flagscale_deploy.remote.system.files import read_text
from flagscale_deploy.remote.system.proc import Process
from flagscale_deploy.remote.system.sock_diag import Connection, Socket

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.probe import ProbedPort

SECONDS = 1.0
"""How long to look for holders: on a host with a hundred thousand open files the rest stay without a name."""


MOST, MOST_NAMED = 10_000, 500
"""How many listeners are reported, and with what command: any user of a host can open as many, and name a process at
length. A port that is left out counts as free until it is taken: `reserve` looks at the very ports of its run."""


def listening(processes: Iterable[Process], among: Optional[Set[int]] = None) -> List[ProbedPort]:
    """Return every listening port (among those given), with its holder where /proc lets us see it; 10,000 at most."""
    sockets = [end for end in listeners() if among is None or end.port in among]
    by_pid = {process.pid: process for process in processes}
    holders = holders_of({end.inode for end in sockets}, sorted(by_pid))
    return bounded([_describe(end, by_pid.get(holders.get(end.inode, 0))) for end in sorted(set(sockets))])


def bounded(described: List[ProbedPort]) -> List[ProbedPort]:
    """Return what a reply has room for, of listeners in the order of their ports."""
    if len(described) > MOST:  # one for each port, of the lowest
        described = list({port["port"]: port for port in reversed(described)}.values())[::-1]
    for port in [port for port in described if not port["run"]][MOST_NAMED:]:
        port["command"] = ""
    return described[:MOST]


def listeners() -> List[Socket]:
    """Return every listening socket."""
    try:
        return list(sock_diag.listening())
    except OSError:  # a sandbox that has /proc and no sock_diag
        return [row.end for row in _rows() if row.end.state == sock_diag.TCP_LISTEN]


def other_end(connection: Connection) -> Optional[Socket]:
    """Return the socket that a connection ends at; None where it is not of this network namespace, or is gone."""
    try:
        return sock_diag.other_end(connection)
    except OSError:
        wanted = connection.source, connection.destination
        return next((row.end for row in _rows() if (row.remote, (row.end.address, row.end.port)) == wanted), None)


def is_local(connection: Connection) -> bool:
    """Return whether a connection leads to an address of this host."""
    source, destination = connection.source[0], connection.destination[0]
    if source == destination or destination.startswith("127."):
        return True
    version = 6 if connection.family == socket.AF_INET6 else 4
    if read_text(f"/proc/sys/net/ipv{version}/ip_nonlocal_bind").strip() == "1":
        return False  # then any address can be bound
    with socket.socket(connection.family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((destination, 0))
        except OSError:
            return False
    return True


class Row(NamedTuple):
    """A socket of /proc/net/tcp, with the address and port of its other end."""

    end: Socket
    remote: Tuple[str, int]


def parse_tcp(content: str) -> List[Row]:
    """Parse the sockets of /proc/net/tcp{,6} (proc(5))."""
    rows = []
    for line in content.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9:
            address, port = _parse_end(fields[1])
            end = Socket(port, address, int(fields[9]), int(fields[7]), int(fields[3], 16))
            rows.append(Row(end, _parse_end(fields[2])))
    return rows


def holders_of(inodes: Set[int], pids: Iterable[int]) -> Dict[int, int]:
    """Map a socket's inode to the lowest pid that has it open; the others inherited it."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    until = time.monotonic() + SECONDS
    held: Dict[int, int] = {}
    for pid in pids:
        if not wanted or time.monotonic() > until:
            break
        with contextlib.suppress(OSError):  # it ended, or it isn't ours to look into
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    inode = wanted.pop(os.readlink(f"/proc/{pid}/fd/{descriptor}"), None)
                    if inode is not None:
                        held[inode] = pid
    return held


def parse_address(words: str) -> str:
    """Parse 32-bit words in hexadecimal and the host's byte order: `0100007F` is 127.0.0.1 on a little-endian one."""
    packed = (int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8))
    return sock_diag.shown(b"".join(packed))


def _rows() -> Iterator[Row]:
    for name in ("tcp", "tcp6"):
        yield from parse_tcp(read_text(f"/proc/self/net/{name}"))


def _parse_end(text: str) -> Tuple[str, int]:
    address, _, port = text.partition(":")
    return parse_address(address), int(port, 16)


def _describe(end: Socket, holder: Optional[Process]) -> ProbedPort:
    if holder is None:
        return {"port": end.port, "address": end.address, "pid": None, "command": "", "run": ""}
    return {
        "port": end.port,
        "address": end.address,
        "pid": holder.pid,
        "command": holder.command,
        "run": holder.marker,
    }
