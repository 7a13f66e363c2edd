from __future__ import annotations

from pathlib import Path

import pytest

from flagscale_deploy.config.spec import InlineNode, RaySpec
from tests.unit.config.files import SEED, faults, load

NODES = """\
hostfile:
  nodes:
    - node: {ip: 10.0.0.2, slots: 4, type: A100, port: 2222, docker: ds}
    - master: {ip: 10.0.0.1, slots: 8, type: gpu, port: 6400}
    - node: {ip: 10.0.0.3}
"""


def nodes(text: str) -> str:
    return f"{SEED}hostfile: {{nodes: {text}}}\n"


def test_the_master_comes_first_and_its_port_is_rays(tmp_path: Path) -> None:
    spec = load(f"{SEED}{NODES}", folder=tmp_path)
    assert spec.nodes == (
        InlineNode("10.0.0.1", 8, "gpu"),
        InlineNode("10.0.0.2", 4, "A100", ssh_port=2222, docker="ds"),
        InlineNode("10.0.0.3"),
    )
    assert spec.ray == RaySpec(port=6400)


def test_deploy_ray_port_wins_over_the_masters(tmp_path: Path) -> None:
    text = f"{SEED}  ray: {{mode: auto, port: 6500}}\n{NODES}"
    assert load(text, folder=tmp_path).ray == RaySpec("auto", 6500)


def test_they_may_stand_in_a_group_or_beside_a_list(tmp_path: Path) -> None:
    indented = NODES.replace("\n", "\n  ")
    grouped = f"serve:\n  model_args: {{m: {{model: /m}}}}\n  {indented}"
    listed = f"serve: [{{serve_id: m, engine_args: {{model: /m}}}}]\n{NODES}"
    for text in (grouped, listed):
        assert [node.address for node in load(text, folder=tmp_path).nodes] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_none_are_no_nodes(tmp_path: Path) -> None:
    assert load(f"{SEED}hostfile: null\n", folder=tmp_path).nodes == ()


MASTER = "{master: {ip: 10.0.0.1, slots: 1}}"
FAULTS = {
    "nothing": ("[]", "hostfile: has no nodes"),
    "no master": ("[{node: {ip: a}}]", "hostfile.nodes: holds no master"),
    "two masters": (f"[{MASTER}, {{master: {{ip: b}}}}]", "hostfile.nodes: holds 2 master"),
    "a word": (f"[{MASTER}, b]", "hostfile.nodes.1: is neither a master nor a node"),
    "another role": (f"[{MASTER}, {{worker: {{ip: b}}}}]", "hostfile.nodes.1: is neither a master nor a node"),
    "no address": (f"[{MASTER}, {{node: {{slots: 1}}}}]", "hostfile.nodes.1.node: has no ip"),
    "one twice": (f"[{MASTER}, {{node: {{ip: 10.0.0.1}}}}]", "hostfile.nodes: holds 10.0.0.1 twice"),
    "an unknown key": (f"[{MASTER}, {{node: {{ip: b, slot: 1}}}}]", "hostfile.nodes.1.node.slot: unknown key"),
    "a port that is none": (f"[{MASTER}, {{node: {{ip: b, port: x}}}}]", "hostfile.nodes.1.node.port: 'x'"),
}


@pytest.mark.parametrize(("text", "problem"), FAULTS.values(), ids=FAULTS.keys())
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    (fault,) = faults(nodes(text), folder=tmp_path)
    assert fault.startswith(f"qwen.yaml: {problem}")
