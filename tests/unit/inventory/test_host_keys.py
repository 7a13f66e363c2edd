"""What each key may be, in the short form; the checks are the same in every form."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from flagscale_deploy.inventory.load import parse_inventory
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.secrets import LONGEST
from tests.unit.inventory.faults import faults_of


def host(keys: str) -> Host:
    return parse_inventory(f"hosts:\n  - name: h\n    {keys}\n", "hosts.yaml").hosts[0]


@pytest.mark.parametrize(
    ("keys", "field", "value"),
    [
        ("gpus: 8", "gpus", 8),
        ("gpus: 0", "gpus", 0),
        ("gpus:", "gpus", None),
        ("type: A100", "type", "A100"),
        ("type: cpu", "type", "cpu"),
        ("port: 65535", "port", 65535),
        ('port: "22"', "port", 22),
        ("node_ip: 10.0.0.1", "node_ip", "10.0.0.1"),
        ('node_ip: "fd00::1"', "node_ip", "fd00::1"),
        ("interface: bond0.100", "interface", "bond0.100"),
        ("host_key_checking: off", "host_key_checking", "off"),
        ("host_key_checking: no", "host_key_checking", "off"),
        ("host_key_checking: yes", "host_key_checking", "strict"),
        ("host_key_checking: accept-new", "host_key_checking", "accept-new"),
        ("known_hosts: ~/.ssh/my hosts", "known_hosts", "~/.ssh/my hosts"),
        ("proxy_jump: ops@bastion:2222,b", "proxy_jump", "ops@bastion:2222,b"),
        ("connection: local", "connection", "local"),
        ("python: /usr/bin/python3.11", "python", "/usr/bin/python3.11"),
        ("venv: ~/it's $(here)", "venv", "~/it's $(here)"),
        ("container: vllm", "container", "vllm"),
        ("address: gpu.lan", "address", "gpu.lan"),
        ("user: ubuntu", "user", "ubuntu"),
        ("identity_file: ~/.ssh/k", "identity_file", "~/.ssh/k"),
        ('before_start: "ulimit -n 65536\\nsource x"', "before_start", "ulimit -n 65536\nsource x"),
    ],
)
def test_a_key_sets_the_field_of_its_name(keys: str, field: str, value: Any) -> None:
    assert getattr(host(keys), field) == value


def test_a_silent_inventory_leaves_the_choice_to_ssh_config_and_probe() -> None:
    assert parse_inventory("hosts: [h]").hosts == (Host("h", "h"),)


@pytest.mark.parametrize(
    "keys",
    [
        "gpus: -1",
        "gpus: yes",
        "gpus: 1.5",
        "gpus: eight",
        "port: 0",
        "port: 65536",
        "port: true",
        "node_ip: 10.0.0.300",
        "node_ip: 10",
        "node_ip: gpu01",
        "interface: a/b",
        "interface: eth0 eth1",
        "host_key_checking: maybe",
        "connection: docker",
        "type: [a]",
        "type: 'a b'",
        "user: -oProxyCommand=x",
        "address: -oProxyCommand=x",
        "address: 'a b'",
        "proxy_jump: '-x'",
        "known_hosts: [a]",
        "venv: {a: 1}",
        'venv: "a\\nb"',
        "before_start: [a, b]",
        "env: production",
        "env: [A=1]",
    ],
)
def test_a_wrong_value_is_refused_with_place_found_and_expected(keys: str) -> None:
    key, value = next(iter(yaml.safe_load(keys).items()))
    ((where, problem),) = faults_of(f"hosts:\n  - name: h\n    {keys}\n")
    assert where == f"hosts.yaml:3: hosts[0].{key}"
    assert problem.startswith(f"found {value!r}, expected ")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("true", "true"),
        ("on", "on"),
        ("No", "No"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1.50", "1.50"),
        ("1e3", "1e3"),
        ("12:30:45", "12:30:45"),
        ('""', ""),
        ("\" a  $HOME '$(x)' \"", " a  $HOME '$(x)' "),
        ('"two\\nlines"', "two\nlines"),
        ("☃", "☃"),
    ],
)
def test_an_environment_value_is_the_text_as_written(written: str, value: str) -> None:
    assert host(f"env: {{A_1: {written}}}").env == {"A_1": value}


@pytest.mark.parametrize(
    ("env", "where", "problem"),
    [
        ("A-B: 1", "hosts[0].env", "found 'A-B', expected the name of an environment variable"),
        ("1A: 1", "hosts[0].env", "found '1A', expected the name of an environment variable"),
        ("A:", "hosts[0].env.A", "found no value, expected text or a number"),
        ("A: [1]", "hosts[0].env.A", "found [1], expected text or a number"),
        ("A: {b: 1}", "hosts[0].env.A", "found {'b': 1}, expected text or a number"),
    ],
)
def test_a_wrong_environment_is_refused(env: str, where: str, problem: str) -> None:
    ((place, text_of_fault),) = faults_of(f"hosts:\n  - name: h\n    env: {{{env}}}\n")
    assert place == f"hosts.yaml:3: {where}"
    assert text_of_fault.startswith(problem)


def test_an_encrypted_value_is_named_and_its_cipher_text_is_not() -> None:
    ((where, problem),) = faults_of("hosts:\n  - {name: h, env: {A: !vault secret-cipher}}\n")
    assert where == "hosts.yaml:2: hosts[0].env"
    assert "ansible-vault" in problem
    assert "cipher" not in problem


def test_a_secret_too_long_to_be_hidden_is_refused() -> None:
    text = "hosts:\n- {name: h, env: {A: '%s', HF_TOKEN: '%s'}}\n"
    assert parse_inventory(text % ("k" * 20_000, "k" * LONGEST), "hosts.yaml").hosts[0].secret_env
    ((where, problem),) = faults_of(text % ("a", "k" * (LONGEST + 1)))
    assert (where.rpartition(".")[2], problem) == ("HF_TOKEN", "is longer than 16.0 KiB")
