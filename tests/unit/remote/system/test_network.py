"""Interfaces, addresses and ports: recorded kernel answers, and this machine's own."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flagscale_deploy.remote.system import network, ports, proc, sock_diag

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.probe import ProbedPort

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31442 1 0000000000000000 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21007 1 0000000000000000 100 0 0 10 0
   2: 0B004D0A:0016 01004D0A:D1E4 01 00000000:00000000 02:000A8B1F 00000000     0        0 40100 2 0000000000000000 20 4 31 10 -1
   3: 0B004D0A:1A0B 0C004D0A:9C40 06 00000000:00000000 03:00000F4D 00000000     0        0 0 3 0000000000000000
"""  # noqa: E501
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:11D7 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 51203 1 0000000000000000 100 0 0 10 0
   1: 0000000000000000FFFF00000B004D0A:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 51204 1 0000000000000000 100 0 0 10 0
   2: 00000000000000000000000001000000:0277 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 19984 1 0000000000000000 100 0 0 10 0
"""  # noqa: E501
IF_INET6 = """\
00000000000000000000000000000001 01 80 10 80       lo
fe80000000000000e63d1afffe1c0d70 02 40 20 80   ens1f0
20010db8000000000000000000000011 02 40 00 80   ens1f0
"""

little_endian = pytest.mark.skipif(sys.byteorder == "big", reason="recorded on a little-endian host")


@little_endian
def test_sockets_are_read_with_owner_state_and_other_end() -> None:
    assert ports.parse_tcp(TCP) == [
        (sock_diag.Socket(6379, "127.0.0.1", 31442, 1000), ("0.0.0.0", 0)),
        (sock_diag.Socket(22, "0.0.0.0", 21007, 0), ("0.0.0.0", 0)),
        (sock_diag.Socket(22, "10.77.0.11", 40100, 0, state=1), ("10.77.0.1", 53732)),
        (sock_diag.Socket(6667, "10.77.0.11", 0, 0, state=6), ("10.77.0.12", 40000)),
    ]


@little_endian
def test_ipv6_addresses_are_written_as_people_do() -> None:
    sockets = [(row.end.port, row.end.address) for row in ports.parse_tcp(TCP6)]
    assert sockets == [(4567, "::"), (8080, "10.77.0.11"), (631, "::1")]


def test_an_interface_that_tells_no_speed_has_none() -> None:
    (loopback,) = [interface for interface in network.interfaces() if interface["name"] == "lo"]
    assert loopback["speed"] is None


@pytest.mark.parametrize(
    ("low", "high", "speed"),
    [(10000, 0, 10000), (0x86A0, 1, 100000), (0xFFFF, 0xFFFF, None), (0xFFFF, 0, None), (0, 0, None)],
)
def test_speeds_come_in_two_halves(low: int, high: int, speed: int | None) -> None:
    answer = struct.pack("=IIIHBBBBBBIIHBBIII", 1, 0, 0, low, 1, 0, 0, 0, 1, 0, 0, 0, high, 0, 0, 0, 0, 0)
    assert network.parse_ethtool(answer) == speed


def test_nothing_is_read_from_nothing() -> None:
    assert ports.parse_tcp("") == []


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_port_of_this_process_is_found_with_its_holder(family: socket.AddressFamily, address: str) -> None:
    with socket.create_server((address, 0), family=family) as server:
        number = server.getsockname()[1]
        (port,) = [port for port in ports.listening(proc.scan()) if port["port"] == number]
    mine = next(process for process in proc.scan() if process.pid == os.getpid())
    assert port == {"port": number, "address": address, "pid": mine.pid, "command": mine.command, "run": mine.marker}


def test_the_kernel_and_proc_tell_the_same_sockets() -> None:
    four = socket.create_server(("127.0.0.1", 0))
    with four, socket.create_server(("::", 0), family=socket.AF_INET6) as six:
        mine = {os.fstat(socket_.fileno()).st_ino for socket_ in (four, six)}
        listed = {socket_ for socket_ in sock_diag.listening() if socket_.inode in mine}
        texts = [Path("/proc/net", name).read_text() for name in ("tcp", "tcp6")]
        written = [row.end for text in texts for row in ports.parse_tcp(text)]
        assert listed == {socket_ for socket_ in written if socket_.inode in mine}
        assert len(listed) == 2


def test_a_sandbox_without_sock_diag_is_read_from_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(93, "Protocol not supported")

    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        monkeypatch.setattr(sock_diag, "listening", refuse)
        assert number in [port["port"] for port in ports.listening(proc.scan())]


@pytest.mark.parametrize("sandboxed", [False, True])
@pytest.mark.parametrize(
    ("bound", "asked"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")]
)
def test_the_other_end_of_a_connection_is_found(
    bound: str, asked: str, sandboxed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(93, "Protocol not supported")

    if sandboxed:
        monkeypatch.setattr(sock_diag, "other_end", refuse)
    dual, family = bound == "::", socket.AF_INET6 if ":" in bound else socket.AF_INET
    with socket.create_server((bound, 0), family=family, dualstack_ipv6=dual) as server:
        with socket.create_connection((asked, server.getsockname()[1])) as connected:
            connection = sock_diag.Connection.of(connected)
            waiting = ports.other_end(connection)
            assert waiting is not None
            assert (waiting.inode, waiting.state) == (0, 1)
            accepted = server.accept()[0]
            with accepted:
                end = ports.other_end(connection)
                assert end is not None
                assert (end.inode, end.uid) == (os.fstat(accepted.fileno()).st_ino, os.getuid())
            closed = ports.other_end(connection)
            assert closed is not None
            assert closed.inode == 0
            assert closed.state != 1
            assert ports.is_local(connection)


def test_what_the_kernel_complains_of_is_raised() -> None:
    error = sock_diag.HEADER.pack(36, sock_diag.NLMSG_ERROR, 0, 1, 0) + struct.pack("=i", -2) + bytes(16)
    with pytest.raises(OSError, match="sock_diag") as raised:
        sock_diag.parse(error)
    assert raised.value.errno == 2


def test_ipv4_addresses_are_read_from_the_kernels_answer() -> None:
    def request(name: str, address: str) -> bytes:
        sockaddr = struct.pack("HH4s", socket.AF_INET, 0, socket.inet_aton(address))
        return (struct.pack("16s", name.encode()) + sockaddr).ljust(network.IFREQ, b"\0")

    answer = request("lo", "127.0.0.1") + request("ens1f0", "10.0.0.11") + request("ens1f0:1", "10.0.0.99")
    assert network.parse_ifconf(answer) == [("lo", "127.0.0.1"), ("ens1f0", "10.0.0.11"), ("ens1f0", "10.0.0.99")]


def test_ipv6_addresses_are_read_with_their_interfaces() -> None:
    assert network.parse_if_inet6(IF_INET6) == [
        ("lo", "::1"),
        ("ens1f0", "fe80::e63d:1aff:fe1c:d70"),
        ("ens1f0", "2001:db8::11"),
    ]


def test_the_loopback_of_this_machine_is_seen() -> None:
    (lo,) = [interface for interface in network.interfaces() if interface["name"] == "lo"]
    assert "127.0.0.1" in lo["addresses"]
    assert lo["mtu"] >= 16436
    assert lo["up"]


def test_the_default_address_is_one_of_an_interface_or_there_is_none() -> None:
    address = network.default_address()
    assert address is None or any(address in interface["addresses"] for interface in network.interfaces())


def test_infiniband_devices_with_an_active_port(tmp_path: Path) -> None:
    ports = {"mlx5_0": ["4: ACTIVE"], "mlx5_1": ["1: DOWN"], "mlx5_2": ["2: INIT", "4: ACTIVE"], "mlx5_3": []}
    for device, states in ports.items():
        (tmp_path / device / "ports").mkdir(parents=True)
        for number, state in enumerate(states, 1):
            (tmp_path / device / "ports" / str(number)).mkdir()
            (tmp_path / device / "ports" / str(number) / "state").write_text(f"{state}\n")
    assert network.infiniband(str(tmp_path)) == ["mlx5_0", "mlx5_2"]


def test_without_a_driver_for_it_there_is_no_infiniband(tmp_path: Path) -> None:
    assert network.infiniband(str(tmp_path / "missing")) == []


@pytest.mark.parametrize("addresses", [1, 4])
def test_whoever_listens_on_many_ports_fills_no_reply(addresses: int) -> None:
    """Any user can, and can give the process a name of control characters, each of which is six in JSON."""

    def listener(port: int, number: int) -> ProbedPort:
        return {"port": port, "address": f"127.0.0.{number}", "pid": 7, "command": "\x01" * 300, "run": ""}

    few = [listener(port, 0) for port in range(1, 301)]
    assert ports.bounded(few) == [listener(port, 0) for port in range(1, 301)]
    listed = ports.bounded([listener(port, number) for port in range(1, 65536) for number in range(addresses)])
    assert [port["port"] for port in listed] == list(range(1, ports.MOST + 1))
    assert len(json.dumps(listed)) < 3 << 20
    ours: ProbedPort = {**listener(65535, 0), "run": "qwen/r1"}
    assert ports.bounded([*(listener(port, 0) for port in range(1, 5000)), ours])[-1] == ours


def test_of_ports_that_are_asked_for_only_those_are_listed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        number = one.getsockname()[1]
        listed = ports.listening(proc.scan(), {number})
        assert {port["port"] for port in listed} == {number}
        assert other.getsockname()[1] != number
