"""Thousands of groups and hosts in a small file: the time grows with their number, not with its square."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from flagscale_deploy.cli import cli
from flagscale_deploy.inventory.load import parse_inventory

SECONDS = 20.0
"""Processor time; 1 to 2 s were seen, and minutes before."""
COUNT = 6000
MANY = {
    "groups.ini": f"h[1:{COUNT}]\n" + "".join(f"[g{number}]\n" for number in range(COUNT)),
    "children.ini": "h1\n[top:children]\n"
    + "".join(f"g{number}\n" for number in range(2 * COUNT))
    + "".join(f"[g{number}]\n" for number in range(2 * COUNT)),
    "hosts.ini": f"h[1:{COUNT}]\n",
    "groups.yaml": f"hosts: ['h[1:{COUNT}]']\ngroups:\n" + "".join(f"  g{number}: h1\n" for number in range(COUNT)),
    "members.yaml": "hosts: ['gpu-node-rack[1:20000]']\ngroups: {g: ["
    + ", ".join(f"gpu-node-rak{number}" for number in range(100))
    + "]}\n",
}


@pytest.mark.parametrize("name", MANY)
def test_hosts_lists_many_soon(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(MANY[name], encoding="utf-8")
    began = time.process_time()
    result = CliRunner().invoke(cli, ["hosts", "-i", str(tmp_path / name)])
    assert time.process_time() - began < SECONDS
    assert result.exit_code == (2 if name == "members.yaml" else 0), result.output[-500:]
    assert len(result.output) < 5_000_000


def test_groups_of_a_template_are_in_the_order_of_the_file() -> None:
    text = "b\na\nc\n[y]\nc\na\n[x:children]\ny\n[all:vars]\nfsd_env={'A': '{{ groups | tojson }}'}\n"
    assert parse_inventory(text, "hosts.ini")["a"].env["A"] == (
        '{"all": ["b", "a", "c"], "ungrouped": ["b"], "x": ["a", "c"], "y": ["a", "c"]}'
    )
