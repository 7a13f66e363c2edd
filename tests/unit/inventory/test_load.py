from __future__ import annotations

from pathlib import Path

import pytest

from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.load import load_inventory, local_inventory, parse_inventory

SAMPLES = Path(__file__).parents[3] / "inventories"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hosts: [a]", "x"),
        ("# short\n\nhosts:\n- a\n", "x"),
        ("---\ndefaults: {gpus: 8}\nhosts: [{name: a, before_start: 'mpirun -H a slots=8'}]", "x"),
        ('{"hosts": ["a"]}', "x.json"),
        ("all:\n  hosts:\n    a:\n", "x"),
        ("gpu: {hosts: {a: }}", "x"),
        ("'gpu':\n  hosts: a\n", "x"),
        ('{"gpu": {"hosts": {"a": {}}}}', "x"),
        ("a", "hosts"),
        ("a:22", "hosts"),
        ("a ansible_ssh_common_args='-o User: x'", "hosts"),
        ("; ini\n[gpu]\na slots=8\n", "hosts.yaml"),
        ("a slots=8", "x"),
        ("a slots=8", "x.yaml"),
        ("# first\na   slots=8 type=gpu\n", "hosts.ini"),
    ],
)
def test_the_form_is_told_by_the_content(text: str, source: str) -> None:
    assert parse_inventory(text, source).names == ("a",)


@pytest.mark.parametrize(
    ("text", "source", "problem"),
    [
        ("", "x.yaml", "found nothing"),
        ("# nothing\n", "x.ini", "has no hosts"),
        ("- a\n- b\n", "x", "found a list, expected `hosts:` or groups"),
        ("a\n", "x.yaml", "found one value, expected `hosts:` or groups"),
        ("#!/bin/sh\necho {}", "x", "found a program"),
        ("plugin: aws_ec2\n", "x.yaml", "inventory plugin"),
        ('{"_meta": {"hostvars": {}}}', "x.json", "inventory plugin"),
        ("$ANSIBLE_VAULT;1.1;AES256\n61", "x", "encrypted with ansible-vault"),
        ("all:\n  hosts: {a: ,\n", "x.yaml", "this is not YAML"),
        ("all:\n", "x.yaml", "has no hosts"),
    ],
)
def test_what_is_no_inventory_is_refused(text: str, source: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        parse_inventory(text, source)
    assert str(caught.value).startswith(source)
    assert caught.value.exit_code == 2


def test_a_path_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"hosts: [\xff]")
    for path, problem in [
        (tmp_path, "found a directory"),
        (tmp_path / "none.yaml", "does not exist\n.*correct the path"),
        (tmp_path / "bytes.yaml", "is not text in UTF-8: .* at byte 8"),
        (tmp_path / "bytes.yaml" / "x", "cannot be read"),
    ]:
        with pytest.raises(InputError, match=problem):
            load_inventory(path)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "h").write_bytes(b"\xef\xbb\xbfgpu1 slots=8")
    assert load_inventory(str(tmp_path / "h")).names == ("gpu1",)


def test_no_inventory_is_this_machine_alone() -> None:
    inventory = load_inventory(None)
    assert inventory == local_inventory()
    assert [(host.name, host.connection) for host in inventory.hosts] == [("localhost", "local")]
    assert inventory.members("all") == {"localhost"}


EXPECTED = {
    "ansible.ini": (17, "gpu01"),
    "ansible.yaml": (17, "gpu01"),
    "heterogeneous.yaml": (4, "a100-01"),
    "hostfile.txt": (2, "10.0.0.1"),
    "local.yaml": (1, "localhost"),
    "short.yaml": (6, "gpu01"),
}


def test_every_sample_is_known_to_this_test() -> None:
    assert {path.name for path in SAMPLES.iterdir()} == set(EXPECTED)


@pytest.mark.parametrize("sample", EXPECTED)
def test_every_sample_loads(sample: str) -> None:
    inventory = load_inventory(SAMPLES / sample)
    assert (len(inventory.hosts), inventory.head.name) == EXPECTED[sample]


def test_the_samples_of_one_cluster_connect_alike() -> None:
    yaml, ini = load_inventory(SAMPLES / "ansible.yaml"), load_inventory(SAMPLES / "ansible.ini")
    for mine, its in zip(yaml.hosts, ini.hosts, strict=True):
        assert (mine.name, mine.address, mine.port, mine.user) == (its.name, its.address, its.port, its.user)
        assert (mine.proxy_jump, mine.gpus, mine.venv, mine.type) == (its.proxy_jump, its.gpus, its.venv, its.type)


def test_localhost_is_this_machine_without_ssh() -> None:
    assert load_inventory("localhost") == load_inventory(None)
    assert load_inventory("localhost").hosts[0].connection == "local"
