from __future__ import annotations

from flagscale_deploy.inventory.load import parse_inventory
from flagscale_deploy.inventory.model import Host
from tests.unit.inventory.faults import faults_of, remedies_of

TEXT = """
hosts:
  - gpu01
  - ubuntu@gpu02:2222
  - {name: gpu03, address: 10.0.0.3, user: root, port: 22, gpus: 4, env: {A: 1}}
  - {name: "root@n[1:2]:23", node_ip: "10.1.0.[11:12]"}
defaults: {gpus: 8, user: serve, env: {B: 2}}
groups:
  head: gpu03
  rack: ["gpu[01:02]", n1]
"""


def test_entries_are_names_logins_mappings_and_ranges() -> None:
    hosts = parse_inventory(TEXT).hosts
    assert [(h.name, h.address, h.user, h.port, h.gpus, h.node_ip) for h in hosts] == [
        ("gpu01", "gpu01", "serve", None, 8, None),
        ("gpu02", "gpu02", "ubuntu", 2222, 8, None),
        ("gpu03", "10.0.0.3", "root", 22, 4, None),
        ("n1", "n1", "root", 23, 8, "10.1.0.11"),
        ("n2", "n2", "root", 23, 8, "10.1.0.12"),
    ]


def test_a_host_replaces_a_default_as_a_whole() -> None:
    inventory = parse_inventory(TEXT)
    assert (inventory["gpu01"].env, inventory["gpu03"].env) == ({"B": "2"}, {"A": "1"})


def test_a_host_undoes_a_default_with_null() -> None:
    text = "hosts: [{name: a, user: , gpus: null}]\ndefaults: {user: serve, gpus: 8}"
    assert parse_inventory(text).hosts == (Host("a", "a", vars={"user": None, "gpus": None}),)


def test_groups_name_hosts_and_head_picks_the_head() -> None:
    inventory = parse_inventory(TEXT)
    assert inventory.head.name == "gpu03"
    assert inventory.members("rack") == {"gpu01", "gpu02", "n1"}
    assert inventory.members("all") == set(inventory.names)
    assert inventory.groups["ungrouped"].hosts == ("n2",)
    assert inventory.groups["all"].vars == {"gpus": 8, "user": "serve", "env": {"B": 2}}


def test_values_are_literal_and_never_templates() -> None:
    text = "hosts: [{name: a, before_start: \"docker inspect -f '{{ .State }}' x\"}]"
    assert parse_inventory(text).hosts[0].before_start == "docker inspect -f '{{ .State }}' x"


def test_every_fault_is_reported_in_the_order_of_the_file() -> None:
    text = """hosts:
  - gpu01
  - {name: gpu01, prot: 22, gpus: -1}
  - {adress: 10.0.0.1}
  - {name: "gpu[02:04]", address: 10.0.0.1}
  - 17
defaults: {name: x, gpus: many, verv: 1}
groops: {}
groups:
  head: gpu1
  all: [gpu01]
  rack: 5
  bad: ["gpu[2:1]"]
"""
    assert faults_of(text) == [
        ("hosts.yaml:3: hosts[1]", "found host 'gpu01', which is already on line 2"),
        ("hosts.yaml:3: hosts[1].gpus", "found -1, expected a whole number of GPUs, from 0 to 9999"),
        ("hosts.yaml:3: hosts[1].prot", "found the unknown key 'prot'"),
        ("hosts.yaml:4: hosts[2]", "found no name, expected a host name as text"),
        ("hosts.yaml:4: hosts[2].adress", "found the unknown key 'adress'"),
        (
            "hosts.yaml:5: hosts[3].address",
            "found '10.0.0.1', which is 1 value, expected 3, one for each host",
        ),
        ("hosts.yaml:6: hosts[4]", "found the name 17, expected a host name as text"),
        ("hosts.yaml:7: defaults.gpus", "found 'many', expected a whole number of GPUs, from 0 to 9999"),
        ("hosts.yaml:7: defaults.name", "'name' belongs to one host"),
        ("hosts.yaml:7: defaults.verv", "found the unknown key 'verv'"),
        ("hosts.yaml:8: groops", "found the unknown key 'groops'"),
        ("hosts.yaml:10: groups.head", "found 'gpu1', which `hosts` does not name"),
        ("hosts.yaml:11: groups.all", "found 'all': a list, expected a name of your own and a list of hosts"),
        ("hosts.yaml:12: groups.rack", "found 'rack': 5, expected a name of your own and a list of hosts"),
        ("hosts.yaml:13: groups.bad", "found the range [2:1], which has no members: its end comes before its begin"),
    ]


def test_unknown_keys_are_answered_with_the_nearest_known_one() -> None:
    entries = ("{name: a, prot: 1}", "{name: b, ansible_host: x}", "{name: c, slots: 8}", "{name: d, zzz: }")
    text = "hosts:\n" + "".join(f"  - {entry}\n" for entry in entries)
    port, address, gpus, all_keys = remedies_of(text)
    assert (port, address, gpus) == ("did you mean port?", "did you mean address?", "did you mean gpus?")
    assert all_keys.startswith("known: address, before_start,")


def test_hosts_must_be_a_list_of_at_least_one() -> None:
    assert faults_of("hosts: {gpu01: }") == [("hosts.yaml:1: hosts", "found a mapping, expected a list of hosts")]
    assert faults_of("defaults: {gpus: 8}") == [("hosts.yaml:1: hosts", "found nothing, expected a list of hosts")]
    assert faults_of("hosts: []") == [("hosts.yaml", "has no hosts")]


def test_faults_of_the_yaml_are_reported_with_the_others() -> None:
    places = [where for where, _ in faults_of("hosts:\n  - {name: a, gpus: 1, gpus: x}\n")]
    assert places == ["hosts.yaml:2:24", "hosts.yaml:2: hosts[0].gpus"]
