"""The shape is compared with Ansible's in tests/parity; here the contract of `hosts --json`."""

from __future__ import annotations

import json
from dataclasses import fields

from flagscale_deploy.inventory.listing import hosts_json
from flagscale_deploy.inventory.load import parse_inventory
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.inventory.patterns import limit
from flagscale_deploy.secrets import Secret

TEXT = """
all:
  vars: {day: 2026-11-02, secret: !vault cipher, raw: !unsafe "{{ x }}"}
  children:
    gpu:
      vars: {gpus: 8, ansible_become_password: s3same, env: {HF_TOKEN: s3same, LEVEL: "1"}}
      hosts: {g1: {ansible_host: 10.0.0.1}, g2: }
    head: {hosts: {g2: }}
"""


def test_the_document_has_hosts_groups_and_hostvars() -> None:
    document = hosts_json(parse_inventory(TEXT, "hosts.yaml"))
    assert json.loads(json.dumps(document)) == document
    assert (document["schema"], document["source"], document["head"]) == (1, "hosts.yaml", "g2")
    first, second = document["hosts"]
    assert list(first) == [field.name for field in fields(Host)]
    assert (first["address"], first["gpus"], second["name"], second["port"]) == ("10.0.0.1", 8, "g2", None)
    assert document["groups"]["all"]["children"] == ["ungrouped", "gpu", "head"]
    assert document["groups"]["gpu"]["hosts"] == ["g1", "g2"]
    assert document["groups"]["gpu"]["vars"]["gpus"] == 8
    assert document["_meta"]["hostvars"]["g2"] == {
        "day": "2026-11-02",
        "secret": {"__ansible_vault": "cipher"},
        "raw": {"__ansible_unsafe": "{{ x }}"},
        "ansible_become_password": "[REDACTED]",
        "env": {"HF_TOKEN": "[REDACTED]", "LEVEL": "1"},
        "gpus": 8,
    }


def test_secrets_of_hosts_are_apart_and_not_shown() -> None:
    inventory = parse_inventory(TEXT, "hosts.yaml")
    assert dict(inventory["g1"].env) == {"LEVEL": "1"}
    assert inventory["g1"].secret_env == {"HF_TOKEN": Secret("s3same")}
    assert hosts_json(inventory)["hosts"][0]["secret_env"] == {"HF_TOKEN": "[REDACTED]"}
    assert "s3same" not in json.dumps(hosts_json(inventory))


def test_a_limited_inventory_lists_what_is_left() -> None:
    document = hosts_json(limit(parse_inventory(TEXT), "g1"))
    assert [host["name"] for host in document["hosts"]] == ["g1"]
    assert document["head"] == "g1"
    assert "head" not in document["groups"]
    assert set(document["_meta"]["hostvars"]) == {"g1"}
