"""The recipe of a request, where hosts tell what GPUs they have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flagscale_deploy.api.recipes import settle
from flagscale_deploy.api.request import Options
from flagscale_deploy.errors import HostsUnreachableError, UnreachableError
from flagscale_deploy.recipes.name import Wish
from tests.unit.api.world import World
from tests.unit.plan.given import facts, gpus, host, inventory
from tests.unit.sources import ROOT

LIBRARY = str(ROOT / "tests/unit/recipes/library")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Provide two hosts, by the names of an inventory file."""
    (tmp_path / "hosts.yaml").write_text("hosts: [gpu01, gpu02]\n")
    monkeypatch.chdir(tmp_path)
    return World(tmp_path)


def options(world: World, *words: str) -> Options:
    asked = Options("hosts.yaml", "recipe:example/Dense-8B", words, recipes=LIBRARY)
    return replace(asked, connect=world.request().options.connect)


def with_h200(world: World, *counts: int) -> None:
    """Give the hosts this many GPUs each."""
    for name, count in zip(world.facts, counts, strict=True):
        named = tuple(replace(gpu, name="NVIDIA H200") for gpu in gpus(count))
        world.facts[name] = replace(facts(name), gpus=named)


def test_hosts_are_probed_for_what_is_not_named(world: World) -> None:
    with_h200(world, 1, 8)
    request, reasons = settle(world.request(options=options(world), wish=Wish("example/Dense-8B")), environ={})
    assert reasons == (
        "hardware h200: the hosts have NVIDIA H200",
        "strategy single_node_tp: gpu02 has the 2 GPUs that are needed",
    )
    assert request.serve.models[0].engine_args["tokenizer-mode"] == "mistral"
    assert [call.module for call in world.calls] == ["probe", "probe"]


def test_gpus_that_the_inventory_counts_are_those_that_count(world: World) -> None:
    with_h200(world, 8, 8)
    few = inventory(host("gpu01", gpus=1), host("gpu02", gpus=4))
    wish = Wish("example/Dense-8B", "h200")
    _, reasons = settle(world.request(options=options(world), wish=wish, inventory=few), environ={})
    assert reasons == ("strategy single_node_tp: gpu02 has the 2 GPUs that are needed",)


def test_no_host_is_contacted_where_both_are_named(world: World) -> None:
    words = ("hardware=h200", "strategy=single_node_tp")
    wish = Wish("example/Dense-8B", "h200", "single_node_tp")
    request, reasons = settle(world.request(options=options(world, *words), wish=wish), environ={})
    assert (request.wish, reasons, world.calls) == (None, (), [])


def test_a_host_that_is_not_reached_is_told(world: World) -> None:
    world.refused["gpu02"] = UnreachableError("gpu02", "no route")
    with pytest.raises(HostsUnreachableError, match="no route"):
        settle(world.request(options=options(world), wish=Wish("example/Dense-8B")), environ={})
