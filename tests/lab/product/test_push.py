"""`push` between real hosts: over SSH to the first, from host to host over the data network."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab import Host, Lab
from tests.lab.product.operator import Operator, eventually

SIZE = 24 << 20
DEST = "/srv/models/tiny"


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab(hosts=4)


@pytest.fixture
def operator(lab: Lab, tmp_path: Path) -> Iterator[Operator]:
    """With hosts that have nothing below /srv, and no memory of earlier pushes."""
    for host in lab.hosts:
        if host.alive:
            host.run("mountpoint -q /srv || mount -t tmpfs tmpfs /srv; rm -rf /srv/* /root/.cache")
    sits = Operator(tmp_path, lab.inventory(tmp_path / "hosts.yaml"))
    yield sits
    for running in sits.started:
        running.abandon()
    for host in lab.hosts:
        if host.alive:
            host.rate(None)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    root = tmp_path / "tiny"
    (root / "sub").mkdir(parents=True)
    (root / "model.safetensors").write_bytes(random.Random(7).randbytes(SIZE))
    (root / "config.json").write_text("{}")
    (root / "sub/a'b\nc").write_text("named to stumble over")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o750)
    (root / "link").symlink_to("sub")
    return root


LIST = "export LC_ALL=C; find . -printf '%P|%y|%m|%l\\n' | sort; find . -type f -print0 | sort -z | xargs -0 sha256sum"


def listed(host: Host, path: str = DEST) -> str:
    """Every path with kind, mode and target, and the hash of each file."""
    return host.run(f"cd {path} && {LIST}").stdout


def right(model: Path) -> str:
    """Return what `listed` should give, by the machine's own tools."""
    done = subprocess.run(["bash", "-c", LIST], cwd=model, capture_output=True, text=True, check=True)
    return done.stdout


def listening(host: Host) -> str:
    return host.run("ss -Htln").stdout


def is_quiet(host: Host, before: str) -> bool:
    """Whether no program of ours runs there, and nobody listens who did not before."""
    return listening(host) == before and not host.run("pgrep -x python3", check=False).stdout


def test_four_hosts_get_it_and_then_nothing_more(lab: Lab, operator: Operator, model: Path) -> None:
    before = [listening(host) for host in lab.hosts]
    differing = operator("push", model, DEST, "--check", "--json", exits=1).json
    assert "config.json" in differing["hosts"]["node4"]["missing"]
    first = operator("push", model, DEST, "--json").json
    assert [listed(host) for host in lab.hosts] == [right(model)] * 4
    assert SIZE < first["bytes"] <= first["sent"] < 1.5 * first["bytes"]  # once, but for what came late
    assert {host["bytes"] for host in first["hosts"].values()} == {first["bytes"]}
    again = operator("push", model, DEST, "--json").json
    assert (again["sent"], {host["bytes"] for host in again["hosts"].values()}) == (0, {0})
    assert operator("push", model, DEST, "--check").code == 0
    assert all(is_quiet(host, quiet) for host, quiet in zip(lab.hosts, before, strict=True))


def test_from_one_host_to_the_others(lab: Lab, operator: Operator, model: Path) -> None:
    operator("push", model, DEST, "--limit", "node2")
    report = operator("push", f"node2:{DEST}", DEST, "--limit", "!node4", "--json").json
    assert set(report["hosts"]) == {"node1", "node3"}
    assert report["bytes"] <= report["sent"] < 1.5 * report["bytes"]
    assert listed(lab.hosts[0]) == listed(lab.hosts[2]) == right(model)
    assert lab.hosts[3].run("ls /srv").stdout == ""


def test_an_operator_that_is_killed_leaves_no_listener_and_what_came_is_not_sent_again(
    lab: Lab, operator: Operator, model: Path
) -> None:
    before = [listening(host) for host in lab.hosts]
    for host in lab.hosts:
        host.rate(40)  # 5 s for all of it
    running = operator.start("push", model, DEST)
    running.until(lambda: None, r"\] push: 1\d\.\d MiB of")
    opened = {line.split()[3] for line in listening(lab.hosts[0]).splitlines()} - {
        line.split()[3] for line in before[0].splitlines()
    }
    assert [address.rpartition(":")[0] for address in opened] == [lab.hosts[0].address]
    running.send(signal.SIGKILL)
    running.end(-signal.SIGKILL)
    for host, quiet in zip(lab.hosts, before, strict=True):
        assert eventually(lambda host=host, quiet=quiet: is_quiet(host, quiet))  # type: ignore[misc]
        assert host.run(f"test ! -e {DEST}/model.safetensors")
        host.rate(None)
    report = operator("push", model, DEST, "--json").json
    assert report["sent"] < SIZE * 0.95, "nothing at all, where the hosts had every piece among them"
    assert 0 < sum(host["bytes"] for host in report["hosts"].values()) < 4 * SIZE * 0.95
    assert [listed(host) for host in lab.hosts] == [right(model)] * 4


def test_hosts_that_cannot_reach_each_other_are_served_from_here(lab: Lab, operator: Operator, model: Path) -> None:
    walls = [(one, other) for one in lab.hosts for other in lab.hosts if one is not other]
    for one, other in walls:
        one.run(f"ip route add unreachable {other.address}/32")
    try:
        result = operator("push", model, DEST)
    finally:
        for one, other in walls:
            one.run(f"ip route del unreachable {other.address}/32")
    assert "cannot get anything from node" in result.err
    assert [listed(host) for host in lab.hosts] == [right(model)] * 4


def test_no_room_on_one_host_is_said_before_anything_is_sent(lab: Lab, operator: Operator, model: Path) -> None:
    small = lab.hosts[2]
    small.run("mkdir -p /srv/models && mount -t tmpfs -o size=8m tmpfs /srv/models")
    try:
        result = operator("push", model, DEST, exits=4)
        assert "node3: /srv/models/tiny needs 24.0 MiB, and 8.0 MiB are free" in result.err
        assert [host.run("ls -A /srv").stdout for host in lab.hosts[:2]] == ["", ""]
        assert small.run("ls -A /srv/models").stdout == ""
        operator("push", model, DEST, "--limit", "!node3")
    finally:
        small.run("umount /srv/models")


def test_a_host_that_loses_power_is_named_and_the_others_get_all(lab: Lab, operator: Operator, model: Path) -> None:
    """The last one: the host doesn't come back."""
    for host in lab.hosts:
        host.rate(40)
    running = operator.start("push", model, DEST)
    running.wait_for("MiB of ")
    lab.hosts[1].kill()
    result = running.end(3)
    assert "node2: the SSH connection was lost" in result.err
    others = [lab.hosts[0], *lab.hosts[2:]]
    assert [listed(host) for host in others] == [right(model)] * 3
    unreachable = operator("push", model, DEST, "--json", exits=3).json
    assert set(unreachable["failed"]) == {"node2"}
    assert unreachable["sent"] == 0
