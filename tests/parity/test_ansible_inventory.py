"""`ansible-inventory --list` and our `hosts --json` see the same hosts, groups and variables."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.plugins.filter.core import FilterModule

from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.ansible_filters import FILTERS
from flagscale_deploy.inventory.listing import hosts_json
from flagscale_deploy.inventory.load import load_inventory
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.inventory.patterns import limit
from tests.parity.ansible_listings import Listings
from tests.parity.inventories import CASES

SAMPLES = Path(__file__).parents[2] / "inventories"


@pytest.fixture(scope="module")
def ansible_inventory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listings]:
    """Provide what Ansible prints of an inventory."""
    with Listings(tmp_path_factory.mktemp("ansible")) as listings:
        yield listings


def inventory_json(inventory: Inventory) -> dict[str, Any]:
    """`hosts --json` in the shape of `ansible-inventory --list --export`."""
    listing = hosts_json(inventory)
    return {"_meta": listing["_meta"], **listing["groups"]}


def without_vars(listing: Mapping[str, Any]) -> dict[str, Any]:
    """Return the listing as Ansible prints it without `--export`: groups show no variables."""
    groups = {
        name: {key: group[key] for key in group if key != "vars"} for name, group in listing.items() if name != "_meta"
    }
    return {"_meta": listing["_meta"], **{name: group for name, group in groups.items() if group}}


def group_vars(listing: Mapping[str, Any]) -> dict[str, Any]:
    return {name: group["vars"] for name, group in listing.items() if name != "_meta" and "vars" in group}


def write(files: Mapping[str, str], directory: Path) -> Path:
    for name, text in files.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return directory / next(iter(files))


@pytest.mark.parametrize("case", CASES)
def test_hosts_groups_and_variables_agree(case: str, ansible_inventory: Listings, tmp_path: Path) -> None:
    file = write(CASES[case], tmp_path)
    ours = inventory_json(load_inventory(file))
    assert without_vars(ours) == ansible_inventory(file)
    assert group_vars(ours) == group_vars(ansible_inventory(file, "--export"))


@pytest.mark.parametrize("case", CASES)
def test_the_document_of_hosts_json_says_the_same(case: str, tmp_path: Path) -> None:
    document = hosts_json(load_inventory(write(CASES[case], tmp_path)))
    again = json.loads(json.dumps(document))
    assert again == document
    assert {host["name"] for host in document["hosts"]} >= set(document["_meta"]["hostvars"])
    listed = {name for group in document["groups"].values() for name in group.get("hosts", ())}
    assert listed == {host["name"] for host in document["hosts"]}


@pytest.mark.parametrize("sample", ["ansible.yaml", "ansible.ini", "heterogeneous.yaml"])
def test_the_samples_in_ansibles_forms_are_read_by_ansible_alike(
    sample: str, ansible_inventory: Listings, tmp_path: Path
) -> None:
    file = write({sample: (SAMPLES / sample).read_text(encoding="utf-8")}, tmp_path)
    assert without_vars(inventory_json(load_inventory(file))) == ansible_inventory(file)


PATTERNS_FILE = """
all:
  children:
    gpu: {hosts: {"gpu[01:06]": }}
    cpu: {hosts: {"cpu[1:3].example.com": }}
    rack1: {hosts: {gpu01: , gpu04: , cpu2.example.com: }}
    site: {children: {cpu: , rack1: }}
"""


@pytest.mark.parametrize(
    "pattern",
    [
        "all",
        "*",
        "gpu",
        "gpu01",
        "gpu0[12]",
        "gpu[0]",
        "gpu[-1]",
        "gpu[1:3]",
        "gpu[2:]",
        "gpu[:2]",
        "site[0:1]",
        "gpu0*[1]",
        "gpu,!rack1",
        "gpu:!rack1",
        "gpu:&rack1",
        "&rack1",
        "!gpu",
        "gpu01,gpu06,!gpu0?",
        "gpu*,cpu1*",
        "~gpu0[1-3]",
        "~(gpu|cpu)0?1",
        "cpu*",
        "rack1,gpu02",
        "r*:&gpu",
        "*.example.com",
        "cpu1.example.com",
        "ungrouped,gpu01",
    ],
)
def test_limit_picks_the_hosts_that_ansible_picks(pattern: str, ansible_inventory: Listings, tmp_path: Path) -> None:
    file = write({"hosts.yaml": PATTERNS_FILE}, tmp_path)
    theirs = ansible_inventory(file, "--limit", pattern)
    names = {name for group, entry in theirs.items() if group != "_meta" for name in entry.get("hosts", ())}
    inventory = load_inventory(file)
    if not names:
        with pytest.raises(InputError):
            limit(inventory, pattern)
        return
    ours = limit(inventory, pattern)
    assert set(ours.names) == names
    assert without_vars(inventory_json(ours)) == theirs


MAGIC_FILE = r"""
all:
  vars:
    vpn: true
    name: gpu-07
    m_python: "{{ ansible_playbook_python }}"
    m_playbook: "{{ playbook_dir }}/keys"
    m_inventory: "{{ inventory_dir }}|{{ inventory_file }}"
    m_env: "{{ lookup('env', 'PARITY_USER') }}|{{ lookup('ansible.builtin.env', 'PARITY_NONE') | default('x', true) }}"
    m_env_two: "{{ lookup('env', 'PARITY_USER', 'PARITY_OTHER') }}"
    m_split: "{{ (name | split('-')) | last }}|{{ 'a  b' | split | join('+') }}"
    m_ternary: "{{ vpn | ternary('a', 'b') }}{{ none | ternary('a', 'b', 'c') }}{{ none | ternary('a', 'b') }}"
    m_bool: "{{ 'yes' | bool }}{{ 'On' | bool }}{{ '1' | bool }}{{ 0 | bool }}{{ 'off' | bool }}{{ vpn | bool }}"
    m_default: "{{ nobody | default('d') }}{{ '' | default('e', true) }}{{ nobody.at | default('f') }}"
    m_replace: "{{ name | regex_replace('^([a-z]+)-([0-9]+)$', '\\2.\\1') }}"
    m_replace_case: "{{ name | regex_replace('GPU', 'x', ignorecase=true) }}"
    m_replace_count: "{{ 'aaa' | regex_replace('a', 'b', count=2) }}"
    m_search: "{{ name | regex_search('[0-9]+') }}{{ name | regex_search('-(.)(.)', '\\2', '\\1') | join('') }}"
    m_plain: '{{ name | regex_replace("(.)-", "\1+") }}'
    m_combine: "{{ {'a': 1, 'b': 2} | combine({'b': 3}, {'c': 4}) }}"
    m_path: "{{ '/a/b.c' | basename }}{{ '/a/b.c' | dirname }}{{ name | mandatory }}"
  hosts: {gpu01: }
"""


def test_ansibles_own_variables_lookups_and_filters_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"PARITY_USER": "ops", "PARITY_OTHER": "x y"}
    names = re.findall(r"^    (m_\w+):", MAGIC_FILE, re.MULTILINE)
    file = write({"hosts.yaml": MAGIC_FILE}, tmp_path)
    ours = {name: value_of(name, file, environ) for name in names}
    wanted = "{{ {" + ", ".join(f"'{name}': {name}" for name in names) + "} | to_json }}"
    command = [sys.executable, "-m", "ansible", "adhoc", "all", "-i", str(file), "-m", "debug", "-a", f"msg={wanted}"]
    (config := tmp_path / ".ansible.cfg").touch()
    settings = {"ANSIBLE_CONFIG": str(config), "ANSIBLE_HOME": str(tmp_path / ".ansible"), "LC_ALL": "C.UTF-8"}
    answer = subprocess.run(
        command, env={**os.environ, **settings, **environ}, capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    theirs = json.loads(answer.stdout.partition("=>")[2])["msg"]
    assert ours == (json.loads(theirs) if isinstance(theirs, str) else theirs)


def value_of(name: str, file: Path, environ: Mapping[str, str]) -> object:
    """Return a variable as `env` has it: as data, or as text."""
    text = file.read_text(encoding="utf-8").replace(
        "  hosts: {gpu01: }", f"    fsd_before_start: '{{{{ {name} | tojson }}}}'\n  hosts: {{gpu01: }}"
    )
    (beside := file.parent / "hosts.yaml").write_text(text, encoding="utf-8")
    try:
        return json.loads(load_inventory(beside, environ).hosts[0].before_start or "null")
    finally:
        beside.write_text(MAGIC_FILE, encoding="utf-8")


def test_every_filter_is_one_that_ansible_has() -> None:
    builtin = {*FilterModule().filters(), "combine"}
    assert {name.removeprefix("ansible.builtin.") for name in FILTERS} <= builtin
