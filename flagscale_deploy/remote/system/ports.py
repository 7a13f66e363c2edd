"""List the TCP ports on which a host listens, and who holds them."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Dict, Iterable, List, Optional, Set

from flagscale_deploy.remote.system import sock_diag
from flagscale_deploy.remote.system.files import read_text
from flagscale_deploy.remote.system.proc import Process
from flagscale_deploy.remote.system.sock_diag import Socket

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.probe import ProbedPort

LISTEN = "0A"
SECONDS = 1.0
"""How long to look for holders: on a host with a hundred thousand open files the rest stay without a name."""


def listening(processes: Iterable[Process]) -> List[ProbedPort]:
    """Return every listening port, with its holder where /proc lets us see it."""
    sockets = _sockets()
    by_pid = {process.pid: process for process in processes}
    holders = _holders({socket.inode for socket in sockets}, sorted(by_pid))
    return [_describe(socket, by_pid.get(holders.get(socket.inode, 0))) for socket in sorted(set(sockets))]


def parse_tcp(content: str) -> List[Socket]:
    """Parse the listening sockets of /proc/net/tcp{,6} (proc(5))."""
    sockets = []
    for line in content.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == LISTEN:
            address, _, port = fields[1].partition(":")
            sockets.append(Socket(int(port, 16), parse_address(address), int(fields[9])))
    return sockets


def parse_address(words: str) -> str:
    """Parse 32-bit words in hexadecimal and the host's byte order: `0100007F` is 127.0.0.1 on a little-endian one."""
    packed = (int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8))
    return sock_diag.shown(b"".join(packed))


def _sockets() -> List[Socket]:
    try:
        return list(sock_diag.listening())
    except OSError:  # a sandbox that has /proc and no sock_diag
        return [socket for name in ("tcp", "tcp6") for socket in parse_tcp(read_text(f"/proc/self/net/{name}"))]


def _holders(inodes: Set[int], pids: Iterable[int]) -> Dict[int, int]:
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


def _describe(socket: Socket, holder: Optional[Process]) -> ProbedPort:
    if holder is None:
        return {"port": socket.port, "address": socket.address, "pid": None, "command": "", "run": ""}
    return {
        "port": socket.port,
        "address": socket.address,
        "pid": holder.pid,
        "command": holder.command,
        "run": holder.marker,
    }
