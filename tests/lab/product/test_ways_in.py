"""Ways to a host: jump hosts, other ports, other login shells, noisy logins, containers, and no SSH at all."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.environments.build import mounts
from tests.lab import Host, Lab
from tests.lab.keepers import REPOSITORY
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import COMMAND, Operator
from tests.lab.product.stand_in import HERE, StandIn, given

Write = Callable[..., Serve]


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab], stand_in: StandIn) -> Lab:
    return make_lab(hosts=2, gpus=2, mounts=[*stand_in.mounts, *mounts(Path(sys.prefix)), REPOSITORY])


def change(operator: Operator, host: Host, **variables: object) -> None:
    """Change the inventory to this one host, with these variables."""
    content = yaml.safe_load(operator.inventory.read_text())
    content["all"]["hosts"] = {host.name: {"ansible_host": host.address, **variables}}
    operator.inventory.write_text(yaml.safe_dump(content))


def whole_round(operator: Operator, served: Serve) -> None:
    """Every command that acts on a host, once."""
    operator("check", "-c", served.config)
    operator("run", "-c", served.config)
    assert operator("status", "--name", served.name, "--json").json["state"] == "ready"
    assert operator("call", "hi", "--name", served.name).out == "you said: hi\n"
    assert "Application startup complete." in operator("logs", "--name", served.name).out
    operator("cleanup", "--name", served.name)


def test_a_host_behind_a_jump_host_is_reached_through_it(lab: Lab, operator: Operator, serve: Write) -> None:
    jump, host = lab.hosts
    arguments = f"-o UserKnownHostsFile={lab.known_hosts} -o ProxyJump=root@{jump.address}"
    change(operator, host, ansible_ssh_common_args=arguments)
    came_from = operator("exec", "--", "echo $SSH_CLIENT").out
    assert f" {jump.address} " in came_from
    served = serve()
    operator("run", "-c", served.config)
    assert given(host, served.port)["environ"]["SSH_CLIENT"].startswith(f"{jump.address} ")
    operator("cleanup", "--name", served.name)
    assert lab.leftovers(served.name) == []


def test_a_jump_host_s_key_is_verified_as_strictly_whatever_is_said_of_the_host_behind_it(
    lab: Lab, operator: Operator, tmp_path: Path
) -> None:
    jump, host = lab.hosts
    known_hosts = [line for line in lab.known_hosts.read_text().splitlines() if line.split()[0] == host.address]
    wrong = next(line for line in lab.known_hosts.read_text().splitlines() if line.split()[0] == host.address)
    file = tmp_path / "known_hosts"
    file.write_text("\n".join(known_hosts) + "\n")
    arguments = f"-o UserKnownHostsFile={file} -o ProxyJump=root@{jump.address}"
    for checking in ("", " -o StrictHostKeyChecking=no"):
        change(operator, host, ansible_ssh_common_args=arguments + checking)
        refused = operator("exec", "--", "true", exits=3)
        assert (
            f"{host.name}: jump host {jump.address}: its host key is not known: {jump.address} shows ssh-"
            in refused.err
        )

    file.write_text(f"# of the jump host\n{jump.address} {wrong.partition(' ')[2]}\n")
    change(operator, host, ansible_ssh_common_args=arguments)
    refused = operator("exec", "--", "true", exits=3)
    assert f"{host.name}: jump host {jump.address}: its host key changed: {jump.address} shows ssh-" in refused.err
    assert f"{file}:2 has ssh-" in refused.err
    assert f"ssh-keygen -f {file} -R {jump.address}" in refused.err


def test_a_port_of_its_own_has_a_key_of_its_own_in_known_hosts_or_that_of_the_name(
    lab: Lab, operator: Operator, tmp_path: Path
) -> None:
    host, directory = lab.hosts[0], lab.slot.directory
    host.run(f"/usr/sbin/sshd -f {directory}/sshd_config -p 2222 -h {host.directory}/host_key")
    known_hosts, lines = tmp_path / "known_hosts", lab.known_hosts.read_text()
    change(operator, host, ansible_port=2222, ansible_ssh_common_args=f"-o UserKnownHostsFile={known_hosts}")
    known_hosts.write_text(lines.replace(f"{host.address} ", "another "))
    refused = operator("exec", "--", "true", exits=3)
    assert f"[{host.address}]:2222" in refused.err
    for name in (host.address, f"[{host.address}]:2222"):
        known_hosts.write_text(lines.replace(f"{host.address} ", f"{name} "))
        assert "2222" in operator("exec", "--", "echo $SSH_CONNECTION").out


NOISE = """
echo 'Welcome to @fsd1 {"this": "is no answer"'
printf 'and a line without an end '
echo 'bash: warning: something is odd' >&2
export PROMPT_COMMAND='echo again'
"""


def test_what_a_login_prints_is_not_mistaken_for_an_answer(lab: Lab, operator: Operator, serve: Write) -> None:
    host = lab.hosts[0]
    change(operator, host)
    for name in (".bashrc", ".profile", ".bash_profile", ".bash_logout"):
        (host.directory / "home" / name).write_text(NOISE)
    try:
        assert "Welcome" in operator("exec", "--", "true").out
        whole_round(operator, serve())
    finally:
        for name in (".bashrc", ".profile", ".bash_profile", ".bash_logout"):
            (host.directory / "home" / name).unlink()
    assert lab.leftovers("none") == []


def test_a_login_shell_that_is_not_bash_does(lab: Lab, operator: Operator, serve: Write) -> None:
    host, shell = lab.hosts[0], "/bin/sh"
    change(operator, host)
    # The machine's own file is seen by all hosts: a copy takes its place on this one.
    host.run(
        f"sed 's|^\\(root:.*:\\)[^:]*$|\\1{shell}|' /etc/passwd >/run/passwd && mount --bind /run/passwd /etc/passwd"
    )
    try:
        assert shell in operator("exec", "--", "echo $SHELL").out
        whole_round(operator, serve())
    finally:
        host.run("umount /etc/passwd")


def test_every_act_on_a_container_happens_inside_it(lab: Lab, operator: Operator, serve: Write) -> None:
    host = lab.hosts[0]
    change(operator, host, container="serving-1")
    docker = host.directory / "sbin/docker"
    docker.write_text((HERE / "docker_stand_in.sh").read_text())
    docker.chmod(0o755)
    try:
        assert "/dev/shm/container-home" in operator("exec", "--", "echo $HOME").out
        served = serve()
        whole_round(operator, served)
    finally:
        docker.unlink()
    assert given(host, served.port)["environ"]["container"] == "serving-1"
    assert set(host.run("cat /dev/shm/docker-stand-in").stdout.splitlines()) == {"exec -i serving-1"}
    assert not (host.directory / "home/.flagscale-deploy").exists()
    assert host.run("ls -A /dev/shm/container-home").stdout == ""


def test_a_container_that_is_not_there_is_said(lab: Lab, operator: Operator) -> None:
    change(operator, lab.hosts[1], container="serving-1")
    missing = operator("check", exits=4)
    assert "node2" in missing.out


def test_the_machine_itself_needs_no_ssh(lab: Lab, operator: Operator, serve: Write, stand_in: StandIn) -> None:
    host, served = lab.hosts[0], serve()
    (host.directory / "home/qwen.yaml").write_text(served.config.read_text())
    (host.directory / "home/hosts.yaml").write_text(
        yaml.safe_dump({"hosts": [{"name": "here", "connection": "local", "venv": str(stand_in.environment)}]})
    )
    seen = (host.directory / "console.log").read_text()
    for words in (["run", "-c", "qwen.yaml"], ["call", "hi", "--name", served.name], ["stop", "--name", served.name]):
        done = host.run([*COMMAND, words[0], "-i", "hosts.yaml", *words[1:]], env={"PYTHONPATH": str(REPOSITORY)})
        if words[0] == "call":
            assert done.stdout == "you said: hi\n"
            assert len(lab.processes(served.name)) == 1
    assert lab.processes(served.name) == []
    assert (host.directory / "console.log").read_text() == seen
