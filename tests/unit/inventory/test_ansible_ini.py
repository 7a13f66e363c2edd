from __future__ import annotations

from typing import Any

import pytest

from flagscale_deploy.inventory.ansible_ini import literal
from flagscale_deploy.inventory.load import parse_inventory
from tests.unit.inventory.faults import faults_of

TEXT = """
localhost ansible_connection=local

[gpu]
gpu[01:02]:2222 ansible_user=ubuntu gpus=8 env='{"A": 1, "B": True, "C": "{{ inventory_hostname }}"}'

[gpu:vars]
ansible_ssh_common_args=-o ProxyJump=bastion
before_start=source /opt/env.sh && ulimit -n 65536
"""


def test_hosts_have_ports_inline_variables_and_group_variables() -> None:
    local, first, second = parse_inventory(TEXT, "hosts").hosts
    assert (local.name, local.connection) == ("localhost", "local")
    assert (first.name, first.port, first.user, first.gpus, first.proxy_jump) == ("gpu01", 2222, "ubuntu", 8, "bastion")
    assert second.env == {"A": "1", "B": "true", "C": "gpu02"}
    assert second.before_start == "source /opt/env.sh && ulimit -n 65536"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("007", "007"),
        ("True", True),
        ("true", "true"),
        ("'8'", "8"),
        ("[1, (2, 3)]", [1, [2, 3]]),
        ('{"a": None}', {"a": None}),
        ("", ""),
        ("10.0.0.1", "10.0.0.1"),
        ("8 # eight", 8),
        ("text # kept", "text # kept"),
        ("a\\qb", "a\\qb"),
        ("(" * 500, "(" * 500),
    ],
)
def test_a_value_is_a_literal_where_it_can_be(text: str, value: Any) -> None:
    assert literal(text) == value


def test_every_wrong_line_is_reported() -> None:
    text = """[gpu]
gpu[1:2 x
gpu3 foo
gpu4 a='b
../gpu5
[gpu:var]
ignored line
[x:children]
nowhere
not a name
[y:vars]
a
[bad section]
[gpu:vars]
fsd_gpus=many
ansible_group_priority=high
[gpu:children]
gpu
"""
    assert [where for where, _ in faults_of(text, "hosts.ini")] == [
        *(f"hosts.ini:{line}" for line in (2, 3, 4, 5, 6, 9, 10, 11, 12, 13)),
        "hosts.ini:15: [gpu:vars] fsd_gpus",
        "hosts.ini:16",
        "hosts.ini:18",
    ]


def test_an_undefined_child_is_named_with_its_parent() -> None:
    assert faults_of("a\n[p:children]\nc\n[c:vars]\nx=1\n", "hosts") == [
        ("hosts:3", "found the child 'c' of group 'p', which no section defines")
    ]
