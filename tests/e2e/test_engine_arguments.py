"""Command lines read by the parser of the real vLLM, where it would serve them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.checks.types import Parsed
from flagscale_deploy.deploy.engine_arguments import parse_engine_arguments
from flagscale_deploy.deploy.probe_hosts import facts_of, observe
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.transport.fleet import Fleet
from tests.unit.plan.given import facts as sound
from tests.unit.plan.given import inventory, model, planned, spec

pytestmark = pytest.mark.e2e

SPEC = spec(
    model("good", port=4567, engine_args={"max-model-len": "8k", "gpu_memory_utilization": 0.8}),
    model("replicated", port=4600, replicas=2, engine_args={"limit-mm-per-prompt.image": 2}),
    model("typo", port=4610, engine_args={"max-model-length": 4, "tensor-paralel-size": 1, "enforce-eager": True}),
    model("wrong", port=4620, engine_args={"max-model-len": "abc"}),
    model("needs", port=4630, engine_args={"enable-auto-tool-choice": True}),
)


@pytest.fixture(scope="module")
def host(request: pytest.FixtureRequest) -> Host:
    node = os.environ.get("FSD_NODE_ENV") or request.getfixturevalue("node_env")
    return Host("gpu01", "localhost", connection="local", venv=str(node), env={"VLLM_LOGGING_LEVEL": "DEBUG"})


@pytest.fixture(scope="module")
def fleet(host: Host) -> Iterator[Fleet]:
    with Fleet([host]) as result:
        yield result


@pytest.fixture(scope="module")
def facts(fleet: Fleet) -> dict[str, Facts]:
    return facts_of(observe(fleet))


@pytest.fixture(scope="module")
def plan(host: Host) -> Plan:
    return planned(inventory(host), SPEC, {"gpu01": sound("gpu01")})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache") / "parsed"


@pytest.fixture(scope="module")
def parsed(fleet: Fleet, plan: Plan, facts: dict[str, Facts], cache: Path) -> dict[str, Parsed]:
    return parse_engine_arguments(fleet, SPEC, plan, facts, cache)


def test_a_good_command_line_is_read_without_complaint(parsed: dict[str, Parsed]) -> None:
    for name in ("good/0", "replicated/0", "replicated/1"):
        assert parsed[name] == Parsed(known=parsed["good/0"].known)
    assert {"max-model-len", "tensor-parallel-size", "no-enable-prefix-caching"} <= set(parsed["good/0"].known)


def test_flags_that_it_does_not_know_are_named_all_at_once(parsed: dict[str, Parsed]) -> None:
    assert parsed["typo/0"].unknown == ("max-model-length", "tensor-paralel-size")
    assert parsed["typo/0"].error == ""
    assert "max-model-len" in parsed["typo/0"].known


def test_a_value_that_it_refuses_is_told_in_its_own_words(parsed: dict[str, Parsed]) -> None:
    assert parsed["wrong/0"].error.startswith("argument --max-model-len: invalid ")
    assert parsed["wrong/0"].error.endswith(" value: 'abc'")


def test_what_vllm_serve_checks_before_it_starts_is_checked(parsed: dict[str, Parsed]) -> None:
    assert parsed["needs/0"].error == "Error: --enable-auto-tool-choice requires --tool-call-parser"


def test_what_was_good_is_not_asked_again(
    host: Host, plan: Plan, facts: dict[str, Facts], cache: Path, parsed: dict[str, Parsed]
) -> None:
    assert parsed["good/0"].broken == ""
    good = replace(
        plan, instances=tuple(instance for instance in plan.instances if instance.model in ("good", "replicated"))
    )
    with Fleet([replace(host, venv="/no/such/environment")]) as without_vllm:
        again = parse_engine_arguments(without_vllm, SPEC, good, facts, cache)
    assert again == {"good/0": Parsed(), "replicated/0": Parsed(), "replicated/1": Parsed()}
    kept: list[Any] = [json.loads(path.read_text()) for path in cache.iterdir()]
    assert len(kept) == 2  # the replicas have one command line
    assert "models" not in str(kept)


def test_a_vllm_that_cannot_be_imported_is_told_with_the_reason(
    host: Host, plan: Plan, facts: dict[str, Facts], tmp_path: Path
) -> None:
    package = tmp_path / "lib/vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import libcudart_of_another_release\n")
    broken = replace(SPEC, before_start=f"export PYTHONPATH={tmp_path}/lib")
    with Fleet([host]) as fleet:
        result = parse_engine_arguments(fleet, broken, plan, facts, tmp_path / "cache")
    why = "ModuleNotFoundError: No module named 'libcudart_of_another_release'"
    assert {parsed_arguments.broken for parsed_arguments in result.values()} == {why}
    assert not (tmp_path / "cache").exists()
