"""`hosts` on inventories as people have them: from public repositories, in small."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flagscale_deploy.cli import cli


def hosts(place: Path, files: Mapping[str, str], *words: str) -> Result:
    for name, text in files.items():
        (place / name).write_text(text, encoding="utf-8")
    return CliRunner().invoke(cli, ["hosts", "--json", "-i", next(iter(files)), *words])


def fields(result: Result, *names: str) -> list[Any]:
    assert result.exit_code == 0, result.output
    return [[host[name] for name in names] for host in json.loads(result.stdout)["hosts"]]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


PLAYBOOK_PYTHON = {
    "hosts.ini": "localhost ansible_connection=local ansible_python_interpreter='{{ ansible_playbook_python }}'\n"
    "[gpu]\ngpu01\ngpu02\n"
}
BASTION = "ansible_ssh_common_args='-o ProxyCommand=\"%s\"'"
ADDRESS = 'all: {vars: {use_vpn: true}, hosts: {gpu01: {ansible_host: "{{ %s }}"}}}\n'
CASES: Mapping[str, tuple[Mapping[str, str], tuple[str, ...], tuple[str, ...], list[list[object]]]] = {
    "the interpreter of the playbook": (
        PLAYBOOK_PYTHON,
        (),
        ("name", "python"),
        [["localhost", sys.executable], ["gpu01", "python3"], ["gpu02", "python3"]],
    ),
    "the same, limited": (PLAYBOOK_PYTHON, ("--limit", "gpu"), ("name",), [["gpu01"], ["gpu02"]]),
    "regex_replace": (
        {"hosts.yaml": ADDRESS % "inventory_hostname | regex_replace('gpu','10.0.0.')"},
        (),
        ("address",),
        [["10.0.0.01"]],
    ),
    "ternary": ({"hosts.yaml": ADDRESS % "use_vpn | ternary('10.8.0.1','10.0.0.1')"}, (), ("address",), [["10.8.0.1"]]),
    "a bastion's own file": (
        {"hosts.yaml": "all: {hosts: {n: {ip: 10.0.0.1}}, vars: {ansible_ssh_common_args: -F ssh-bastion.conf}}\n"},
        (),
        ("ssh_options",),
        [["-F ssh-bastion.conf"]],
    ),
    "ansible.cfg": (
        {
            "hosts.ini": "gpu01\n",
            "ansible.cfg": "[defaults]\nremote_user=ubuntu\nprivate_key_file=~/.ssh/c\nhost_key_checking=False\n"
            "[ssh_connection]\nssh_args=-o ProxyJump=bastion\n",
        },
        (),
        ("user", "identity_file", "host_key_checking", "proxy_jump"),
        [["ubuntu", "~/.ssh/c", "off", "bastion"]],
    ),
    "nc behind a bastion": (
        {"hosts.ini": f"[app]\n10.0.0.5\n[app:vars]\n{BASTION % 'ssh user@192.0.2.1 nc %h %p'}\n"},
        (),
        ("ssh_options",),
        [["-o 'ProxyCommand=ssh user@192.0.2.1 nc %h %p'"]],
    ),
    "cloudflared": (
        {"hosts.ini": f"[app]\n10.0.0.5\n[app:vars]\n{BASTION % 'cloudflared access ssh --hostname %h'}\n"},
        (),
        ("ssh_options",),
        [["-o 'ProxyCommand=cloudflared access ssh --hostname %h'"]],
    ),
    "env is a stage": ({"hosts.ini": "[gpu]\ngpu01\n[gpu:vars]\nenv=production\n"}, (), ("env",), [[{}]]),
    "interfaces are a list": (
        {"hosts.yaml": "all: {hosts: {gpu01: {interface: [eth0, eth1], gpus: [0, 1, 2, 3]}}}\n"},
        (),
        ("interface", "gpus"),
        [[None, None]],
    ),
    "a list of Slurm": (
        {"nodes": "gpu[01-03,07]\n"},
        (),
        ("name",),
        [["gpu01"], ["gpu02"], ["gpu03"], ["gpu07"]],
    ),
    "tabs, blanks and Open MPI's slots": (
        {"nodes": "gpu01\tslots=8 \t\ngpu02  slots = 4 max_slots=8\ngpu03 max-slots = 9 slots=2 type = A100\n"},
        (),
        ("name", "gpus", "type"),
        [["gpu01", 8, "gpu"], ["gpu02", 4, "gpu"], ["gpu03", 2, "A100"]],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_hosts_are_read_as_their_file_means_them(case: str, place: Path) -> None:
    files, words, names, expected = CASES[case]
    assert fields(hosts(place, files, *words), *names) == expected


def test_playbook_dir_is_where_one_runs(place: Path) -> None:
    text = 'all: {vars: {ansible_ssh_private_key_file: "{{ playbook_dir }}/keys/k"}, hosts: {gpu01: }}\n'
    assert fields(hosts(place, {"hosts.yaml": text}), "identity_file") == [[f"{place}/keys/k"]]


@pytest.mark.parametrize(
    "text",
    ["gpu01:8\ngpu02:8\n", "gpu01 slots=8\ngpu02:4\n", "# machines\ngpu01\ngpu02:16 # all\n", "gpu01 8\ngpu02\n"],
)
def test_the_processes_of_a_machine_file_are_no_port(text: str, place: Path) -> None:
    result = hosts(place, {"nodes": text})
    assert result.exit_code == 2
    assert "slots=" in result.stderr
    fault = json.loads(result.stdout)["faults"][0]
    assert fault["remedy"].count("slots=") == 1


@pytest.mark.parametrize("text", ["gpu01:22\n", "gpu01:2222\n", "[gpu]\ngpu01:8\n", "gpu01:8 ansible_user=me\n"])
def test_a_port_is_a_port_where_it_can_be_meant(text: str, place: Path) -> None:
    assert hosts(place, {"nodes": text}).exit_code == 0


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("gpu01,gpu02", [["gpu01", None, None], ["gpu02", None, None]]),
        ("gpu01,", [["gpu01", None, None]]),
        ("ops@gpu[1-2,4]:2222, tools", [*([f"gpu{n}", "ops", 2222] for n in (1, 2, 4)), ["tools", None, None]]),
    ],
)
def test_names_with_a_comma_are_an_inventory(word: str, expected: list[list[object]]) -> None:
    result = CliRunner().invoke(cli, ["hosts", "--json", "-i", word])
    assert fields(result, "name", "user", "port") == expected
    assert json.loads(result.stdout)["source"] == word


def test_a_host_in_place_of_a_file_is_told_how_it_is_written() -> None:
    result = CliRunner().invoke(cli, ["hosts", "-i", "gpu01"])
    assert (result.exit_code, "write -i gpu01," in result.stderr) == (2, True)
    result = CliRunner().invoke(cli, ["hosts", "-i", "gpu01:8,gpu02:8"])
    assert (result.exit_code, "'gpu02:8', which is SSH's port 8 here" in result.stderr) == (2, True)
    result = CliRunner().invoke(cli, ["hosts", "-i", "gpu01,../x"])
    assert (result.exit_code, "found the host name '../x'" in result.stderr) == (2, True)


def test_ansible_cfg_is_said(place: Path) -> None:
    files = {"hosts.ini": "gpu01\n", "ansible.cfg": "[defaults]\nremote_user=ubuntu\ninventory=hosts.ini\n"}
    assert "remote_user" not in hosts(place, files).stderr
    assert "ansible.cfg: remote_user apply where" in hosts(place, files, "-v").stderr
    result = CliRunner().invoke(cli, ["hosts"])
    assert "without -i, the hosts are those of hosts.ini, as ansible.cfg says" in result.stderr
    assert "ubuntu@gpu01" in result.stdout


def test_a_swapped_pair_of_files_is_told_of_both(place: Path) -> None:
    (place / "qwen.yaml").write_text("model_args: {vllm_model: {model-tag: /m}}\n", encoding="utf-8")
    (place / "hosts.yaml").write_text("hosts: [gpu01]\n", encoding="utf-8")
    result = CliRunner().invoke(cli, ["plan", "--offline", "-i", "qwen.yaml", "-c", "hosts.yaml"])
    assert result.exit_code == 2
    assert "qwen.yaml: is a serve YAML, not an inventory" in result.stderr
    assert "hosts.yaml: is an inventory, not a serve YAML" in result.stderr
