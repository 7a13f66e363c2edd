"""Command lines that hosts' own parsers read before anything starts, by SSH; the parser is the stand-in's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flagscale_deploy.checks.types import Parsed
from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.deploy.engine_arguments import parse_engine_arguments
from flagscale_deploy.deploy.probe_hosts import facts_of, observe
from flagscale_deploy.inventory.load import load_inventory
from flagscale_deploy.transport.fleet import Fleet
from tests.lab import Lab
from tests.lab.product.stand_in import StandIn
from tests.lab.product.test_hostile_values import HOSTILE
from tests.unit.plan.given import model, planned, spec

Parse = Callable[..., dict[str, Parsed]]


@pytest.fixture
def parse(lab: Lab, stand_in: StandIn, tmp_path: Path) -> Iterator[Parse]:
    inventory = load_inventory(lab.inventory(tmp_path / "hosts.yaml", venv=str(stand_in.environment)))
    with Fleet(inventory.hosts) as fleet:
        facts = facts_of(observe(fleet))
        able = {name: replace(host_facts, ray="2.60.0") for name, host_facts in facts.items()}

        def ask(*models: ModelSpec) -> dict[str, Parsed]:
            asked = spec(*models)
            return parse_engine_arguments(fleet, asked, planned(inventory, asked, able), facts, tmp_path / "cache")

        yield ask


def test_what_hosts_would_refuse_is_known_before_it_is_started(parse: Parse) -> None:
    parsed = parse(
        model("good", port=4567, engine_args={"max-model-len": "8k"}, action_args=("enforce-eager",)),
        model("typo", port=4568, engine_args={"no-such-flag": "x"}),
        model("wrong", port=4569, engine_args={"max-model-len": "abc"}),
    )
    assert {name: (arguments.error, arguments.unknown, arguments.broken) for name, arguments in parsed.items()} == {
        "good/0": ("", (), ""),
        "typo/0": ("", ("no-such-flag",), ""),
        "wrong/0": ("argument --max-model-len: invalid length value: 'abc'", (), ""),
    }


def test_hostile_values_are_values_there_too(parse: Parse, lab: Lab) -> None:
    flags = {f"hostile-{at}": value for at, value in enumerate(HOSTILE)}
    assert [(parsed.error, parsed.unknown) for parsed in parse(model(port=4567, engine_args=flags)).values()] == [
        ("", ())
    ]
    for host in lab.hosts:
        assert "pwned" not in host.run("ls /tmp").stdout
