"""Hosts that the configuration names, where no inventory is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from flagscale_deploy.api.hosts import hosts_of
from flagscale_deploy.config.spec import InlineNode, ServeSpec
from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.model import Host
from tests.unit.config.files import write

NODES = (
    InlineNode("10.0.0.1", 8),
    InlineNode("10.0.0.2", 4, "A100", ssh_port=2222, docker="ds"),
    InlineNode("n3", 2, "cpu"),
)


def spec(**settings: object) -> ServeSpec:
    return ServeSpec("qwen", (), source="qwen.yaml", **settings)  # type: ignore[arg-type]


def said(asked: ServeSpec, path: str | None = None) -> str:
    with pytest.raises(InputError) as raised:
        hosts_of(path, asked)
    return str(raised.value)


def file(folder: Path, text: str = "gpu01 slots=8\ngpu02 slots=4 type=A100\ngpu03 slots=2\n") -> str:
    write(folder, {"hosts.txt": text})
    return str(folder / "hosts.txt")


def summary(host: Host) -> tuple[object, ...]:
    return host.name, host.gpus, host.cpus, host.type, host.port, host.container


def test_inline_nodes_are_hosts_the_master_the_head() -> None:
    inventory = hosts_of(None, spec(nodes=NODES))
    assert [summary(host) for host in inventory.hosts] == [
        ("10.0.0.1", 8, None, "gpu", None, None),
        ("10.0.0.2", 4, None, "A100", 2222, "ds"),
        ("n3", 0, 2, "cpu", None, None),
    ]
    assert inventory.head.address == "10.0.0.1"


def test_runner_settings_serve_where_a_node_is_silent() -> None:
    inventory = hosts_of(None, spec(nodes=NODES, ssh_port=22022, docker="other"))
    assert [(host.port, host.container) for host in inventory.hosts] == [
        (22022, "other"),
        (2222, "ds"),
        (22022, "other"),
    ]


def test_an_inventory_wins_over_a_hostfile_and_that_over_nodes(tmp_path: Path) -> None:
    write(tmp_path, {"mine.yaml": "hosts: [mine]"})
    asked = spec(hostfile=file(tmp_path), nodes=NODES, nnodes=1, nproc_per_node=1, device_type="npu")
    assert [(host.name, host.gpus) for host in hosts_of(str(tmp_path / "mine.yaml"), asked).hosts] == [("mine", None)]
    assert hosts_of(None, asked).names == ("gpu01",)


def test_a_hostfile_lies_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert hosts_of(None, spec(hostfile="hosts.txt")).names == ("gpu01", "gpu02", "gpu03")


def test_nnodes_and_nproc_per_node_are_upper_limits(tmp_path: Path) -> None:
    inventory = hosts_of(None, spec(hostfile=file(tmp_path), nnodes=2, nproc_per_node=6))
    assert [(host.name, host.gpus) for host in inventory.hosts] == [("gpu01", 6), ("gpu02", 4)]
    assert len(hosts_of(None, spec(hostfile=file(tmp_path), nnodes=1, host_env={"gpu03": {}})).hosts) == 1


@pytest.mark.parametrize("nodes", [NODES[:1], ()], ids=["in the file", "this machine"])
def test_more_nodes_than_there_are_hosts_are_refused(nodes: tuple[InlineNode, ...]) -> None:
    text = said(spec(nodes=nodes, nnodes=2))
    assert text.startswith("qwen.yaml: experiment.runner.nnodes: 2 hosts are wanted, but only 1 given: ")
    assert "lower nnodes" in text


@pytest.mark.parametrize("text", ["gpu01 slotss=8", "[gpu]", "hosts: [gpu01]", "gpu01"])
def test_what_the_runner_names_is_a_hostfile_whatever_it_looks_like(tmp_path: Path, text: str) -> None:
    text_of_fault = said(spec(hostfile=file(tmp_path, f"gpu02 slots=8\n{text}\n")))
    assert f"hosts.txt:2: found {text!r}, expected HOST slots=N [type=gpu|cpu|RESOURCE]" in text_of_fault


def test_slots_of_a_host_of_type_cpu_are_cpus(tmp_path: Path) -> None:
    (host,) = hosts_of(None, spec(hostfile=file(tmp_path, "gpu01 slots=8 type=cpu"))).hosts
    assert (host.gpus, host.cpus) == (0, 8)


@pytest.mark.parametrize(
    ("settings", "gpus", "kind"),
    [
        ({}, None, "gpu"),
        ({"nproc_per_node": 4}, 4, "gpu"),
        ({"nproc_per_node": 4, "device_type": "npu"}, 4, "npu"),
        ({"nproc_per_node": 4, "device_type": "cpu"}, 0, "cpu"),
    ],
)
def test_without_any_hosts_it_is_this_machine_as_the_runner_describes_it(
    settings: dict[str, object], gpus: int | None, kind: str
) -> None:
    (host,) = hosts_of(None, spec(**settings, ssh_port=2222)).hosts
    assert (host.connection, host.gpus, host.type, host.port) == ("local", gpus, kind, None)
    assert host.cpus == (settings["nproc_per_node"] if kind == "cpu" else None)


def test_variables_of_one_host_reach_it_by_name_or_address(tmp_path: Path) -> None:
    write(
        tmp_path, {"mine.yaml": "hosts: [{name: a, address: 10.0.0.1, env: {C: host}}, {name: b, node_ip: 10.1.0.2}]"}
    )
    asked = spec(host_env={"10.0.0.1": {"A": "1", "B": "1", "C": "1"}, "a": {"B": "2"}, "b": {"A": "3"}})
    first, second = hosts_of(str(tmp_path / "mine.yaml"), asked).hosts
    assert first.env == {"A": "1", "B": "2", "C": "host"}
    assert second.env == {"A": "3"}


def test_a_host_that_is_none_is_named_with_those_that_are(tmp_path: Path) -> None:
    asked = spec(hostfile=file(tmp_path), host_env={"gpu01": {}, "gpu9": {}}, host_engine_args={"10.0.0.9": {}})
    assert said(asked).splitlines()[::2] == [
        f"qwen.yaml: experiment.envs.nodes_envs.gpu9: unknown host; it is not in {tmp_path}/hosts.txt",
        f"qwen.yaml: experiment.node_args.10.0.0.9: unknown host; it is not in {tmp_path}/hosts.txt",
    ]


def test_a_hostfile_that_is_not_there_is_named_with_its_key() -> None:
    text = said(spec(hostfile="/path/to/hostfile"))
    assert text.startswith(
        "qwen.yaml: experiment.runner.hostfile: there is no file /path/to/hostfile\n    → correct the path"
    )


def test_a_device_type_needs_a_number() -> None:
    assert said(spec(device_type="npu")).startswith("qwen.yaml: experiment.runner.device_type: needs nproc_per_node")


@pytest.mark.parametrize("name", ["../x", "a b", "-oProxyCommand=x", "gpu[1:2]", "a;b"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    assert said(spec(nodes=(InlineNode(name, 1),))).startswith(f"qwen.yaml: hostfile.nodes: {name}: found ")
