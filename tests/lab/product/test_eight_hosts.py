"""Eight hosts: looked at, planned over, one of them down or not to be trusted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.lab import Host, Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator
from tests.lab.product.stand_in import VERSION, StandIn

Write = Callable[..., Serve]
NAMES = [f"node{number}" for number in range(1, 9)]
OVER_ALL = {"flags": {"tensor-parallel-size": 16}, "deploy": {"ray": "on"}}


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab], stand_in: StandIn) -> Lab:
    return make_lab(hosts=8, gpus=2, mounts=stand_in.mounts)


@pytest.fixture
def cut(lab: Lab) -> Iterator[Host]:
    host = lab.hosts[4]
    host.cut()
    yield host
    host.join()


def test_hosts_and_their_state_are_shown(operator: Operator, serve: Write) -> None:
    listed = operator("hosts", "--json").json
    assert [host["name"] for host in listed["hosts"]] == NAMES
    checked = operator("check", "-c", serve(**OVER_ALL).config)
    assert "no problem found: this deployment can be run" in checked.out
    host_lines = [line for line in checked.out.splitlines() if line.startswith("node")]
    assert len(host_lines) == 8
    assert all("2 × NVIDIA H100 80GB HBM3" in line and f"vLLM {VERSION}" in line for line in host_lines)


def test_a_command_runs_on_all_hosts_or_those_it_is_limited_to(operator: Operator) -> None:
    everywhere = operator("exec", "--", "hostname")
    assert re.findall(r"^(node\d) +\S* *(node\d)$", everywhere.out, re.M) == [(name, name) for name in NAMES]
    limited = operator("exec", "--limit", "node2:node3", "--json", "--", "exit 3", exits=1).json
    assert {name: host["exit_code"] for name, host in limited["hosts"].items()} == {"node2": 3, "node3": 3}


def test_a_plan_spans_them_and_shows_the_scripts_it_would_send(
    lab: Lab, operator: Operator, serve: Write, tmp_path: Path
) -> None:
    served = serve(**OVER_ALL)
    shown = operator("plan", "-c", served.config, "-o", tmp_path / "scripts")
    assert "Ray cluster at" in shown.out
    assert all(re.search(rf"^{name} +(head|worker) +10\.", shown.out, re.M) for name in NAMES)
    plan = operator("plan", "-c", served.config, "--json").json
    assert set(plan) >= {"schema", "deployment", "digest", "ray", "instances", "router", "stages", "scripts"}
    assert plan["schema"] == 2
    assert [node["num_gpus"] for node in plan["ray"]["nodes"]] == [2] * 8
    (instance,) = plan["instances"]
    assert instance["gpus"] == {name: [0, 1] for name in NAMES}
    assert "--distributed-executor-backend=ray" in instance["argv"]
    written = {path.relative_to(tmp_path / "scripts").as_posix() for path in (tmp_path / "scripts").rglob("*.sh")}
    assert written == {f"{host}/{name}" for host, scripts in plan["scripts"].items() for name in scripts}
    assert lab.leftovers(served.name) == []


def test_what_a_plan_shows_is_what_a_run_sends(lab: Lab, operator: Operator, serve: Write, tmp_path: Path) -> None:
    served = serve()
    operator("plan", "-c", served.config, "-o", tmp_path / "planned")
    operator("run", "-c", served.config)
    assert "Nothing would change." in operator("plan", "-c", served.config).out
    sent = lab.hosts[0].directory / f"home/.flagscale-deploy/{served.name}/node1/scripts"
    name = "vllm_serve_model0_0.sh"
    assert (sent / name).read_text() == (operator.run_folder() / f"scripts/node1/{name}").read_text()
    assert normal(sent / name) == normal(tmp_path / f"planned/node1/{name}")
    operator("cleanup", "--name", served.name)


def normal(script: Path) -> str:
    """Return a script without what differs from run to run: its id, and the directory named after it."""
    return re.sub(r"\d{8}T\d{6}Z-[0-9a-f]{6}|(?<=-\")[0-9a-f]{8}|(?<=-)[0-9a-f]{8}(?=/)", "…", script.read_text())


def test_a_host_that_is_down_is_named_and_no_other_is_touched(
    lab: Lab, operator: Operator, serve: Write, cut: Host
) -> None:
    served = serve()
    commands = [operator.start(command, "-c", served.config) for command in ("plan", "check", "run")]
    for running in commands:
        ended = running.end(exits=3)
        assert re.search(rf"{cut.name}.*{cut.address}", ended.said)
        assert not any(re.search(rf"✗ .*\b{name}\b", ended.said) for name in NAMES if name != cut.name), ended.said
    assert lab.leftovers(served.name) == []
    status = operator("status", "-c", served.config, "--json", exits=3).json
    assert {host["host"]: host["state"] for host in status["hosts"]}[cut.name] == "UNKNOWN"


def test_a_host_with_another_key_is_refused(lab: Lab, operator: Operator, serve: Write, tmp_path: Path) -> None:
    host, other = lab.hosts[2], lab.hosts[3]
    lines = lab.known_hosts.read_text().splitlines(keepends=True)
    wrong = next(line for line in lines if line.startswith(other.address + " ")).replace(other.address, host.address)
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text("".join(line for line in lines if not line.startswith(host.address + " ")) + wrong)
    trusting(operator.inventory, known_hosts)
    served = serve()
    ran = operator("run", "-c", served.config, exits=3)
    fingerprint = host.run("ssh-keygen -lf " + str(host.directory / "host_key.pub")).stdout.split()[1]
    assert re.search(rf"{host.name}: its host key changed: .*{re.escape(fingerprint)}", ran.err)
    assert re.search(rf"ssh-keygen -f {known_hosts} -R '?{host.address}'?", ran.err)
    assert lab.leftovers(served.name) == []


@pytest.mark.parametrize("checking", ["strict", "accept-new", "off"])
def test_an_unknown_key_is_treated_as_the_user_chose(
    lab: Lab, operator: Operator, tmp_path: Path, checking: str
) -> None:
    known_hosts = tmp_path / "known_hosts"
    trusting(operator.inventory, known_hosts, host_key_checking=checking)
    asked = operator("exec", "--limit", "node1:node2", "--", "true", exits=3 if checking == "strict" else 0)
    lines = sorted(
        line for line in lab.known_hosts.read_text().splitlines() if line.split()[0].endswith((".11", ".12"))
    )
    if checking == "strict":
        assert all(f"echo '{line}' >> {known_hosts}" in asked.err for line in lines), asked.err
    assert (sorted(known_hosts.read_text().splitlines()) if known_hosts.exists() else []) == (
        lines if checking == "accept-new" else []
    )


def trusting(inventory: Path, known_hosts: Path, **variables: object) -> None:
    """Change an inventory to this file of known hosts."""
    content = yaml.safe_load(inventory.read_text())
    content["all"]["vars"] |= {"ansible_ssh_common_args": f"-o UserKnownHostsFile={known_hosts}", **variables}
    inventory.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("wrong", ["user", "key"])
def test_a_login_that_is_refused_says_who_tried(lab: Lab, operator: Operator, tmp_path: Path, wrong: str) -> None:
    content = yaml.safe_load(operator.inventory.read_text())
    if wrong == "user":
        content["all"]["hosts"]["node6"]["ansible_user"] = "nobody"
    else:
        key = tmp_path / "another_key"
        lab.hosts[0].run("ssh-keygen -q -t ed25519 -N '' -f /dev/shm/key")
        key.write_text(lab.hosts[0].run("cat /dev/shm/key").stdout)
        key.chmod(0o600)
        content["all"]["hosts"]["node6"]["ansible_ssh_private_key_file"] = str(key)
    operator.inventory.write_text(yaml.safe_dump(content))
    asked = operator("exec", "--json", "--", "hostname", exits=3)
    answer = json.loads(asked.out)
    assert set(answer["failed"]) == {"node6"}
    assert f"cannot log in to {lab.hosts[5].address}" in asked.err
    assert f" as {'nobody' if wrong == 'user' else 'root'}: " in asked.err
    assert len(answer["hosts"]) == 7


def test_wrong_input_and_plans_offline_contact_no_host(lab: Lab, operator: Operator, serve: Write) -> None:
    served = serve(deploy={"models": {"vllm_modle": {"num_gpus": 1}}})
    seen = {host.name: (host.directory / "console.log").read_text() for host in lab.hosts}
    for running in [operator.start(command, "-c", served.config) for command in ("run", "plan", "check", "stop")]:
        ended = running.end(exits=2)
        assert served.config.name in ended.err
        assert "deploy.models.vllm_modle" in ended.err
    trusting(operator.inventory, lab.known_hosts, gpus=2)
    operator("plan", "-c", serve().config, "--offline")
    assert seen == {host.name: (host.directory / "console.log").read_text() for host in lab.hosts}
    operator("exec", "--limit", "node1", "--", "true")
    assert "Accepted publickey" in (lab.hosts[0].directory / "console.log").read_text().removeprefix(seen["node1"])
