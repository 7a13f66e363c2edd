"""Verify that a server on this host is of the gate's own user or root, before it gets a prompt or the internal key.

Any local user may listen on the port of a server that has ended. The kernel is asked who holds the other end of a
connection, and who listens where it went: what nobody has accepted lies in the queue of a socket that listens.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakSet

import aiohttp

_NETLINK_SOCK_DIAG, _BY_FAMILY, _REQUEST, _DUMP, _ERROR, _DONE = 4, 20, 0x1, 0x300, 2, 3
_LISTEN = 10
_HEADER, _QUERY = struct.Struct("=IHHII"), struct.Struct("=BBBxI2s2s16s16sIII")
_ANSWER = struct.Struct("=BBxx2s2x16s16x12x12xII")
"""Of linux/netlink.h and linux/inet_diag.h: family, state, port and address in network order, uid, inode."""
_MAPPED = bytes(10) + b"\xff\xff"
"""How an IPv4 address begins as an IPv6 one: all are compared as such."""
_ANY = bytes(2), bytes(2), bytes(16), bytes(16), 0, 0, 0
_SECONDS = 2.0


class End(NamedTuple):
    """A socket of this host. Its inode is 0 until a process has accepted it."""

    address: bytes
    port: int
    uid: int
    inode: int
    state: int = _LISTEN


class GuardedConnector(aiohttp.TCPConnector):
    """A connector whose new connections are verified before anything is sent."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._verified = WeakSet[Any]()

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        """Return a connection. Raises ClientConnectorError where another user would read what is sent."""
        connection = await super().connect(req, traces, timeout)
        if connection.protocol not in self._verified:
            transport = connection.transport
            ends = [transport.get_extra_info(name) if transport else None for name in ("sockname", "peername")]
            try:
                verify(*ends)
            except OSError as error:
                connection.close()
                raise aiohttp.ClientConnectorError(req.connection_key, error) from error
            self._verified.add(connection.protocol)
        return connection


def verify(source: Any, destination: Any) -> None:
    """Raise PermissionError if another user of this host may read a connection; of other hosts nothing is known.

    Raises ConnectionResetError where the connection is closed.
    """
    if not source or not destination:
        raise ConnectionResetError("the server has closed the connection")
    if not _is_own(source[0], destination[0]) and not _other_end(source, destination):
        return
    uids = {end.uid for end in _reached(list(_listening()), _packed(destination[0]), destination[1])}
    uids |= {end.uid for end in _other_end(source, destination) if end.inode}
    if strangers := uids - {0, os.getuid()}:
        raise PermissionError(errno.EPERM, f"port {destination[1]} is held by another user (uid {min(strangers)})")


def _is_own(source: str, destination: str) -> bool:
    """Return whether an address is of this host. What is sent to its second one comes from its first."""
    if source == destination or destination.startswith("127."):
        return True
    version, family = (6, socket.AF_INET6) if ":" in destination else (4, socket.AF_INET)
    try:
        if Path(f"/proc/sys/net/ipv{version}/ip_nonlocal_bind").read_text().strip() == "1":
            return False  # then any address can be bound
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((destination, 0))
    except OSError:
        return False
    return True


def _packed(address: str) -> bytes:
    """Return an address as an IPv6 one."""
    plain = address.partition("%")[0]
    return socket.inet_pton(socket.AF_INET6, plain if ":" in plain else f"::ffff:{plain}")


def _reached(ends: list[End], address: bytes, port: int) -> list[End]:
    """Return the listening sockets that a connection to an address reaches; `::` takes IPv4 if no other does."""
    there = [end for end in ends if end.port == port]
    wildcard = _MAPPED + bytes(4) if address.startswith(_MAPPED) else bytes(16)
    return [end for end in there if end.address in (address, wildcard)] or [
        end for end in there if end.address == bytes(16)
    ]


def _listening() -> Iterator[End]:
    try:  # 0.2 ms; /proc takes 4 ms a file
        for family in (socket.AF_INET, socket.AF_INET6):  # a socket that listens for IPv6 may take IPv4
            yield from _ask(_QUERY.pack(family, socket.IPPROTO_TCP, 0, 1 << _LISTEN, *_ANY), _DUMP)
    except OSError:  # a sandbox without sock_diag
        for name in ("tcp", "tcp6"):
            for line in Path("/proc/self/net", name).read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[3], 16) == _LISTEN:
                    written, _, port = fields[1].rpartition(":")
                    words = [struct.pack("=I", int(written[at : at + 8], 16)) for at in range(0, len(written), 8)]
                    yield End(_wide(b"".join(words)), int(port, 16), int(fields[7]), int(fields[9]))


def _wide(address: bytes) -> bytes:
    return _MAPPED + address if len(address) == 4 else address


def _other_end(source: Any, destination: Any) -> list[End]:
    family = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
    ports = (struct.pack("!H", name[1]) for name in (destination, source))
    addresses = (socket.inet_pton(family, name[0].partition("%")[0]) for name in (destination, source))
    identity = *ports, *addresses, source[3] if len(source) > 2 else 0, 0xFFFFFFFF, 0xFFFFFFFF
    try:
        ends = _ask(_QUERY.pack(family, socket.IPPROTO_TCP, 0, 0xFFF & ~(1 << _LISTEN), *identity), 0)
        return [end for end in ends if end.state != _LISTEN]  # one that listens is what a fresh connection would reach
    except OSError:  # it is gone, or this is a sandbox
        return []


def _ask(query: bytes, flags: int) -> Iterator[End]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as asking:
        asking.settimeout(_SECONDS)
        asking.send(_HEADER.pack(_HEADER.size + len(query), _BY_FAMILY, flags | _REQUEST, 1, 0) + query)
        more = True
        while more:
            datagram, at, more = asking.recv(1 << 16), 0, bool(flags)
            while at + _HEADER.size <= len(datagram):
                size, kind, *_ = _HEADER.unpack_from(datagram, at)
                if kind == _ERROR:
                    raise OSError(-struct.unpack_from("=i", datagram, at + _HEADER.size)[0], "sock_diag")
                if kind == _DONE:
                    return
                family, state, port, address, uid, inode = _ANSWER.unpack_from(datagram, at + _HEADER.size)
                packed = _wide(address[:4]) if family == socket.AF_INET else address
                yield End(packed, int.from_bytes(port, "big"), uid, inode, state)
                at += max(_HEADER.size, (size + 3) & ~3)
