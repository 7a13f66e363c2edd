"""What Ansible has no listing for: connection keys, references, faults. Groups and variables: tests/parity."""

from __future__ import annotations

from pathlib import Path

import pytest

from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.load import load_inventory, parse_inventory
from flagscale_deploy.inventory.model import Host
from tests.unit.inventory.faults import faults_of, remedies_of


def host(*variables: str) -> Host:
    lines = "".join(f"        {variable}\n" for variable in variables)
    return parse_inventory(
        f"all:\n  hosts:\n    h:\n      {{}}\n  vars:\n{lines}" if lines else "all: {hosts: {h: }}"
    ).hosts[0]


def test_connection_variables_become_our_keys() -> None:
    read_host = host(
        "ansible_host: 10.0.0.1",
        "ansible_port: 2222",
        "ansible_user: ubuntu",
        "ansible_ssh_private_key_file: ~/.ssh/k",
        "ansible_python_interpreter: /opt/python3",
        "ansible_ssh_common_args: -o ProxyJump=ops@bastion -o UserKnownHostsFile=/dev/null",
        "ansible_host_key_checking: false",
    )
    assert (read_host.address, read_host.port, read_host.user, read_host.identity_file) == (
        "10.0.0.1",
        2222,
        "ubuntu",
        "~/.ssh/k",
    )
    assert (read_host.python, read_host.proxy_jump, read_host.known_hosts) == (
        "/opt/python3",
        "ops@bastion",
        "/dev/null",
    )
    assert (read_host.host_key_checking, read_host.connection) == ("off", "ssh")


@pytest.mark.parametrize(
    ("variables", "field", "value"),
    [
        (["ansible_host: a", "ansible_ssh_host: b"], "address", "b"),
        (["ansible_private_key_file: a"], "identity_file", "a"),
        (["ansible_connection: ansible.builtin.ssh"], "connection", "ssh"),
        (["ansible_connection: paramiko_ssh"], "connection", "ssh"),
        (["ansible_connection: local"], "connection", "local"),
        (["fsd_connection: local"], "connection", "local"),
        (["ansible_python_interpreter: auto_silent"], "python", "python3"),
        (["ansible_python_interpreter: auto", "fsd_python: /opt/p"], "python", "/opt/p"),
        (["ansible_port: 1", "port: 2", "ansible_ssh_common_args: -p 3"], "port", 1),
        (["ansible_port: 1", "fsd_port: 2", "ansible_ssh_args: -p 3"], "port", 2),
        (["ansible_port: 1", "ansible_ssh_args: -p 3"], "port", 3),
        (["port: 2", "ansible_ssh_extra_args: -p 3"], "port", 3),
        (["port: 2"], "port", None),
        (["fsd_port: 2"], "port", 2),
        (
            ["ansible_host_key_checking: 'False'", "ansible_ssh_common_args: -o StrictHostKeyChecking=yes"],
            "host_key_checking",
            "off",
        ),
        (["ansible_host_key_checking: true"], "host_key_checking", "strict"),
        (["ansible_user:", "fsd_user: me"], "user", "me"),
        (["type_of_rack: 7", "gpu: 3", "foo: [1]"], "gpus", None),
    ],
)
def test_what_ansible_would_connect_with_wins(variables: list[str], field: str, value: object) -> None:
    assert getattr(host(*variables), field) == value


def test_references_are_resolved_for_what_we_read_and_shown_as_written() -> None:
    inventory = parse_inventory("""
all:
  vars:
    domain: lan
    ansible_host: "{{ fqdn }}"
    fqdn: "{{ inventory_hostname }}.{{ domain }}"
    gpus: "{{ per_node | int * 2 }}"
    per_node: "4"
    env:
      NAME: "{{ inventory_hostname_short }}/{{ group_names | join('+') }}"
      HEAD: "{{ hostvars['gpu1'].ansible_host }}"
      FIRST: "{{ groups['site'][0] }}"
      LITERAL: !unsafe "{{ kept }}"
      NUMBER: 010
    unused: "{{ lookup('file', '/etc/passwd') }}"
  children:
    site: {children: {rack: {hosts: {gpu1: , gpu2: {domain: example.com}}}}}
""")
    gpu2 = inventory["gpu2"]
    assert (gpu2.address, gpu2.gpus) == ("gpu2.example.com", 8)
    assert gpu2.env == {
        "NAME": "gpu2/rack+site",
        "HEAD": "gpu1.lan",
        "FIRST": "gpu1",
        "LITERAL": "{{ kept }}",
        "NUMBER": "010",
    }
    assert gpu2.vars["ansible_host"] == "{{ fqdn }}"


def test_a_whole_mapping_can_be_a_reference() -> None:
    assert host("common: {A: 1.50}", 'env: "{{ common }}"').env == {"A": "1.50"}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("{{ nobody }}", "'nobody' is undefined"),
        ("{{ user_name }}", "refers to itself"),
        ("x{{ nobody.name }}", "'nobody' is undefined"),
        ("{{ 'a' | ipaddr }}", "No filter named 'ipaddr'"),
        ("{{ lookup('file', '/etc/hostname') }}", "lookup('file') is not run here"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% if %}", "Expected an expression"),
        ("{{ ''.__class__ }}", "unsafe"),
        ("{{ secret }}", "encrypted with ansible-vault"),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused_where_it_stands(value: str, problem: str) -> None:
    text = """all:
  vars:
    user_name: "{{ ansible_user }}"
    secret: !vault x
    ansible_user: "VALUE"
  hosts: {h: , i: }
""".replace("VALUE", value)
    ((where, text_of_fault),) = faults_of(text)
    assert where == "hosts.yaml:5: all.vars.ansible_user"
    assert problem in text_of_fault


def test_an_encrypted_variable_matters_only_where_we_need_it() -> None:
    assert parse_inventory("all: {vars: {ansible_become_password: !vault x}, hosts: {h: }}").hosts[0].name == "h"
    assert faults_of("all: {vars: {ansible_user: !vault x}, hosts: {h: }}") == [
        ("hosts.yaml:1: all.vars.ansible_user", "found a value encrypted with ansible-vault")
    ]


def test_a_wrong_group_variable_is_one_fault_however_many_hosts_have_it() -> None:
    text = """all:
  vars:
    fsd_gpus: eight
    ansible_connection: winrm
    ansible_ssh_common_args: -o StrictHostKeyChecking=x
  hosts: {"h[1:9]": }
"""
    assert [where for where, _ in faults_of(text)] == [
        "hosts.yaml:3: all.vars.fsd_gpus",
        "hosts.yaml:4: all.vars.ansible_connection",
        "hosts.yaml:5: all.vars.ansible_ssh_common_args",
    ]


def test_every_fault_of_the_structure_is_reported() -> None:
    text = """all:
  host: {x: }
  vars: [a]
  hosts:
    7:
    bad name:
    "g[3:1]":
    c: 10.0.0.1
  children:
    all:
    a: {children: {b: {children: {a: }}}}
    list: [gpu01]
    p: {vars: {ansible_group_priority: high}}
3: {}
"""
    assert [where for where, _ in faults_of(text)] == [
        "hosts.yaml:2: all.host",
        "hosts.yaml:3: all.vars",
        "hosts.yaml:5: all.hosts.7",
        "hosts.yaml:6: all.hosts.bad name",
        "hosts.yaml:7: all.hosts.g[3:1]",
        "hosts.yaml:8: all.hosts.c",
        "hosts.yaml:10: all.children.all",
        "hosts.yaml:11: all.children.a.children.b",
        "hosts.yaml:12: all.children.list",
        "hosts.yaml:13: all.children.p.vars.ansible_group_priority",
        "hosts.yaml:14: 3",
    ]
    assert remedies_of("all: {host: {x: }}")[0] == "did you mean hosts?"


def test_the_head_is_the_first_host_or_the_one_in_group_head() -> None:
    assert parse_inventory("all: {hosts: {b: , a: }}").head.name == "b"
    assert parse_inventory("all: {hosts: {b: , a: }, children: {head: {hosts: {a: }}}}").head.name == "a"


def write(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        file = directory / name.replace("__", "/").replace("_yml", ".yml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return directory / "hosts.yml"


def test_variables_beside_the_file_reach_the_hosts_and_a_fault_names_their_file(tmp_path: Path) -> None:
    file = write(
        tmp_path, hosts_yml="gpu: {hosts: {g1: , g2: }}", group_vars__gpu_yml="gpus: 8\n", host_vars__g2="gpus: 4\n"
    )
    assert [host.gpus for host in load_inventory(file).hosts] == [8, 4]
    write(tmp_path, group_vars__all_yml="a: 1\nfsd_gpus: x\n", group_vars__gpu_yml="a: [\n", host_vars__g2="- 1\n")
    with pytest.raises(InputError) as caught:
        load_inventory(file)
    assert [fault.where.removeprefix(str(tmp_path)) for fault in caught.value.faults] == [
        "/group_vars/all.yml:2: fsd_gpus",
        "/group_vars/gpu.yml:2:1",
        "/host_vars/g2",
    ]


def test_a_file_encrypted_as_a_whole_is_named_only_where_something_is_missing(tmp_path: Path) -> None:
    vault = "$ANSIBLE_VAULT;1.1;AES256\n6162\n"
    file = write(tmp_path, hosts_yml="gpu: {hosts: {g1: }}", group_vars__gpu__vault_yml=vault)
    assert load_inventory(file).names == ("g1",)
    file.write_text('gpu: {hosts: {g1: {ansible_user: "{{ vault_user }}"}}}', encoding="utf-8")
    with pytest.raises(InputError, match=r"'vault_user' is undefined \(not read, encrypted: .*gpu/vault.yml\)"):
        load_inventory(file)


def test_parsing_a_text_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, hosts_yml="x: {}", group_vars__all_yml="gpus: 8\n")
    monkeypatch.chdir(tmp_path)
    assert parse_inventory("all: {hosts: {h: }}", "hosts.yml").hosts[0].gpus is None
