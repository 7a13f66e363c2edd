"""Many hosts behind one jump host, or at one address, with sshd's default MaxStartups: none is lost.

`FSD_FAULTS=all` tries 64 and 256 hosts in ten runs each; else it is 64 hosts once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from tests.component.transport.ssh_world import Case, Reply, World, obstacle

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=obstacle() or "-")

ALL = os.environ.get("FSD_FAULTS") == "all"
DEFAULT = "LogLevel VERBOSE\nMaxStartups 10:30:100\n"
MANY = "LogLevel VERBOSE\nMaxStartups 500\n"
JUMP, OTHER_JUMP, TARGET = "127.0.0.21 port 22", "127.0.0.22 port 22", "port 2200"


def hosts(count: int, rest: str = "", address: str = "127.0.{net}.{host}") -> str:
    """Return an inventory with so many hosts."""
    lines = (
        f"name: n{at:03}, address: {address}, port: 2200".format(net=1 + at // 250, host=1 + at % 250)
        for at in range(count)
    )
    return "hosts:\n" + "".join(f"  - {{{line}{rest}}}\n" for line in lines)


BEHIND = ", proxy_jump: s21"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as running:
        yield running


def case(inventory: str, jump: str = DEFAULT, target: str = MANY, command: Sequence[str] = ("exec",)) -> Case:
    """Return a case with two jump hosts, and an sshd that is a host at each address of 127.0.1.0/24."""
    return Case(
        {".ssh/known_hosts": "s21,s22 {host}\n[127.0.*]:* {host}\n"},
        inventory,
        [("127.0.0.21", 22, jump), ("127.0.0.22", 22, jump), ("0.0.0.0", 2200, target)],
        host="s21",
        command=[command[0], "-i", "inventory.yaml", "--json", *command[1:], "--", "echo", "here"],
    )


def answered(reply: Reply) -> list[str]:
    """Return the hosts that answered; none may have failed."""
    document = json.loads(reply.output)
    assert document["failed"] == {}, document["failed"]
    return sorted(host for host, outcome in document["hosts"].items() if outcome["stdout"] == "here\n")


CONNECTION = re.compile(r"Connection from \S+ port (\d+) on (\S+ port \d+)")
ACCEPTED = re.compile(r"Accepted publickey for \S+ from \S+ port (\d+)")
CLOSED = re.compile(r"Connection closed by \S+ port (\d+)")


def logins(reply: Reply, server: str) -> tuple[int, int]:
    """Return how many logins a server let in, and how many connections had not logged in at the same time at most.

    The log names connections by their ports here, of which two may be equal: exact for servers with few of them.
    """
    waiting: dict[str, str] = {}
    total = most = 0
    for line in reply.log.splitlines():
        if match := CONNECTION.match(line):
            waiting[match[1]] = match[2]
            most = max(most, sum(name.endswith(server) for name in waiting.values()))
        elif match := ACCEPTED.match(line):
            total += waiting.pop(match[1], "").endswith(server)
        elif match := CLOSED.match(line):
            waiting.pop(match[1], None)
    return total, most


BY_SSH = 1
"""The world's own ssh logs into s21 once."""


@pytest.mark.parametrize("count", [64, 256] if ALL else [64])
@pytest.mark.parametrize("round_", range(10 if ALL else 1))
def test_hosts_behind_a_jump_host_share_connections(world: World, count: int, round_: int) -> None:
    reply = world.play(case(hosts(count, BEHIND)))
    assert len(answered(reply)) == count
    jumps = logins(reply, JUMP)[0] - BY_SSH
    assert jumps == -(-count // 64)
    assert len(ACCEPTED.findall(reply.log)) - BY_SSH - jumps == count


@pytest.mark.parametrize("count", [64, 256] if ALL else [64])
@pytest.mark.parametrize("round_", range(10 if ALL else 1))
def test_hosts_at_one_address_log_in_one_after_the_other(world: World, count: int, round_: int) -> None:
    """Each is a container of the same machine, say: they share its sshd, and have logins of their own."""
    reply = world.play(case(hosts(count, address="127.0.1.1"), target=DEFAULT))
    assert len(answered(reply)) == count
    assert len(ACCEPTED.findall(reply.log)) - BY_SSH == count
    assert logins(reply, TARGET)[1] <= 10, "8, and those that the server has not counted as logged in yet"


def test_hosts_behind_a_proxy_command_log_in_one_after_the_other(world: World) -> None:
    plain = case(hosts(24))
    config = {".ssh/config": "Host 127.0.1.*\n  ProxyCommand ssh -q -W %h:%p s21\n"}
    reply = world.play(replace(plain, files={**plain.files, **config}))
    assert len(answered(reply)) == 24
    assert logins(reply, JUMP)[0] - BY_SSH == 24
    assert logins(reply, JUMP)[1] <= 10


def test_hosts_with_other_settings_of_the_jump_host_have_a_connection_of_their_own(world: World) -> None:
    lines = [
        "{name: plain, address: 127.0.1.1, port: 2200, proxy_jump: s21}",
        "{name: again, address: 127.0.1.2, port: 2200, proxy_jump: s21}",
        "{name: alias, address: 127.0.1.3, port: 2200, proxy_jump: 127.0.0.21}",
        "{name: key, address: 127.0.1.4, port: 2200, proxy_jump: s21, identity_file: ~/.ssh/id_ed25519}",
        "{name: other, address: 127.0.1.5, port: 2200, proxy_jump: s22}",
        "{name: two, address: 127.0.1.6, port: 2200, proxy_jump: 's21,s22'}",
    ]
    reply = world.play(case("hosts:\n" + "".join(f"  - {host}\n" for host in lines)))
    document = json.loads(reply.output)
    assert list(document["failed"]) == ["alias"]
    assert "jump host 127.0.0.21: its host key is not known" in str(document["failed"]["alias"])
    assert logins(reply, JUMP)[0] - BY_SSH == 2, "plain, again and two; key"
    assert logins(reply, OTHER_JUMP)[0] == 2, "other; two"


@pytest.mark.parametrize("sessions", [1, 2])
def test_servers_that_allow_few_sessions_work_behind_a_jump_host(world: World, sessions: int) -> None:
    few = f"MaxSessions {sessions}\n"
    reply = world.play(case(hosts(12, BEHIND), DEFAULT + few, MANY + few))
    assert len(answered(reply)) == 12
    assert logins(reply, JUMP)[0] - BY_SSH == 1
