"""Describe the network of a host: interfaces with their addresses, and the address of the default route.

Asked of the kernel with ioctls and /proc/net, which answer for the network namespace we are in; /sys/class/net answers
for the one it was mounted in, and `ip` is not on every host.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
from typing import TYPE_CHECKING, List, Optional, Tuple

from flagscale_deploy.remote.system.files import read_text

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.probe import ProbedInterface

SIOCGIFCONF, SIOCGIFFLAGS, SIOCGIFMTU, SIOCETHTOOL = 0x8912, 0x8913, 0x8921, 0x8946
ETHTOOL_GSET = 1
ETHTOOL_CMD = struct.Struct("=IIIHBBBBBBIIH14x")
"""struct ethtool_cmd (linux/ethtool.h): its speed in Mbit/s is in two halves, 16 bits early and 16 late."""
NO_SPEED = (0, 0xFFFF, 0xFFFFFFFF)
IFF_UP, IFF_RUNNING = 0x1, 0x40
IFREQ = 16 + max(16, struct.calcsize("PPP"))
"""Size of a struct ifreq (netdevice(7)): a name, and a union whose largest member is a struct ifmap."""

ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses kept for documentation (RFC 5737, RFC 3849): no host has its own route to them."""


def interfaces() -> List[ProbedInterface]:
    """Return every interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        held = parse_ifconf(_ifconf(asking)) + parse_if_inet6(read_text("/proc/net/if_inet6"))
        listed: List[ProbedInterface] = []
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it went away since it was listed
                flags = _ask(asking, SIOCGIFFLAGS, name, "H")
                up = flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING
                mtu = _ask(asking, SIOCGIFMTU, name, "i")
                addresses = [address for holder, address in held if holder == name]
                speed = _speed(asking, name)
                listed.append({"name": name, "addresses": addresses, "mtu": mtu, "up": up, "speed": speed})
    return listed


def default_address() -> Optional[str]:
    """Return the source address of the default route, IPv4 before IPv6; None without one. Sends nothing."""
    for family, address in ELSEWHERE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((address, 9))
            return str(asking.getsockname()[0])
    return None


def listens(address: str, port: int, seconds: float) -> bool:
    """Return whether anything takes connections there. Sends nothing."""
    try:
        socket.create_connection((address, port), seconds).close()
    except OSError:
        return False
    return True


def infiniband(devices: str = "/sys/class/infiniband") -> List[str]:
    """Return InfiniBand and RoCE devices with an active port.

    A network namespace shows those of the whole machine unless they were shared out (`rdma system`), and may use them.
    """
    active = []
    with contextlib.suppress(OSError):  # no driver of such a device is loaded
        for device in sorted(os.listdir(devices)):
            with contextlib.suppress(OSError):
                ports = os.path.join(devices, device, "ports")
                if any(_is_active(os.path.join(ports, port, "state")) for port in os.listdir(ports)):
                    active.append(device)
    return active


def parse_ifconf(answer: bytes) -> List[Tuple[str, str]]:
    """Parse interface and IPv4 address from an array of struct ifreq; an alias (`eth0:1`) counts as its interface."""
    addresses = []
    for start in range(0, len(answer), IFREQ):
        name = answer[start : start + 16].split(b"\0")[0].decode().partition(":")[0]
        addresses.append((name, socket.inet_ntoa(answer[start + 20 : start + 24])))
    return addresses


def parse_if_inet6(content: str) -> List[Tuple[str, str]]:
    """Parse interface and IPv6 address from /proc/net/if_inet6."""
    lines = (line.split() for line in content.splitlines())
    return [(line[5], socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line[0]))) for line in lines if len(line) == 6]


def parse_ethtool(answer: bytes) -> Optional[int]:
    """Parse Mbit/s from a struct ethtool_cmd; None where the driver doesn't know."""
    fields = ETHTOOL_CMD.unpack(answer)
    speed = int(fields[12] << 16 | fields[3])
    return None if speed in NO_SPEED else speed


def _is_active(state: str) -> bool:
    """Parse a port's state as the kernel writes it: `4: ACTIVE`, `1: DOWN`."""
    return read_text(state).split()[-1:] == ["ACTIVE"]


def _ifconf(asking: socket.socket) -> bytes:
    size = 64 * IFREQ
    while True:
        room = array.array("B", bytes(size))
        address, _ = room.buffer_info()
        answer = fcntl.ioctl(asking.fileno(), SIOCGIFCONF, struct.pack("iP", size, address))
        used = int(struct.unpack("iP", answer)[0])
        if used < size:  # a full buffer may have been too small
            return room.tobytes()[:used]
        size *= 4


def _speed(asking: socket.socket, name: str) -> Optional[int]:
    """Return Mbit/s as the driver reports them, None where it does not (lo, most virtual ones, one that is down)."""
    command = array.array("B", ETHTOOL_CMD.pack(ETHTOOL_GSET, *[0] * 12))
    request = struct.pack("16sP", name.encode(), command.buffer_info()[0]) + bytes(IFREQ - 16)
    try:
        fcntl.ioctl(asking.fileno(), SIOCETHTOOL, request)
    except OSError:
        return None
    return parse_ethtool(command.tobytes())


def _ask(asking: socket.socket, question: int, name: str, answer: str) -> int:
    request = struct.pack("16s", name.encode()) + bytes(IFREQ - 16)
    return int(struct.unpack_from(answer, fcntl.ioctl(asking.fileno(), question, request), 16)[0])
