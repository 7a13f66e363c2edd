"""The plan says which vLLM it needs, and names the hosts whose vLLM is older."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.plan.json_schema import plan_json
from flagscale_deploy.plan.versions import SINCE, is_older, needed_vllm
from flagscale_deploy.plan.vllm_flags import KNOWN
from tests.unit.plan.given import facts, faults_of, inventory, model, planned, seen, spec

TWO = inventory("gpu01", "gpu02")
DATA = {"data-parallel-size": 16, "tensor-parallel-size": 1}


def test_every_flag_of_the_table_is_one_of_vllm() -> None:
    assert set(SINCE) <= KNOWN


def test_the_page_has_the_versions_of_the_table() -> None:
    page = (Path(__file__).parents[3] / "docs" / "versions.md").read_text()
    rows = [line for line in page.partition("## Flags")[2].splitlines() if line.startswith("| ") and "`--" in line]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    written = {flag.strip("`- "): first for _, flags, first in cells for flag in flags.split(",")}
    assert written == SINCE


@pytest.mark.parametrize(
    ("engine_args", "executor", "version", "flag"),
    [
        ({"tensor-parallel-size": 16}, "mp", "0.11.1", "nnodes"),
        (DATA, "mp", "0.9.0", "data-parallel-address"),
        (DATA | {"data-parallel-hybrid-lb": True}, "mp", "0.10.0", "data-parallel-hybrid-lb"),
        (DATA | {"data-parallel-backend": "ray"}, "ray", "0.9.1", "data-parallel-backend"),
        ({"shutdown-timeout": 20}, "mp", "0.18.0", "shutdown-timeout"),
        ({"tensor-parallel-size": 16}, "ray", None, ""),
        ({}, "ray", None, ""),
    ],
)
def test_the_newest_flag_counts(engine_args: Any, executor: Any, version: str | None, flag: str) -> None:
    plan = planned(TWO, spec(model(engine_args=engine_args), executor=executor))
    need = needed_vllm(plan.instances[0].ranks)
    assert (need and need.version) == version
    assert need is None or flag in need.flags
    (written,) = json.loads(json.dumps(plan_json(plan)))["instances"]
    assert written["needs_vllm"] == version


def test_a_host_whose_vllm_is_older_is_named_with_the_flag_and_what_to_do() -> None:
    host_facts = {**seen("gpu01"), "gpu02": facts("gpu02", vllm="0.10.2")}
    (fault,) = faults_of(TWO, spec(model(tp=16), executor="mp"), host_facts)
    assert (fault.where, fault.check) == ("gpu02", "vllm-version")
    assert fault.problem == "vLLM 0.10.2, but qwen/0 needs 0.11.1 or later: --nnodes"
    assert fault.remedy == (
        "on gpu02, in its environment: pip install 'vllm>=0.11.1'; or let Ray start the ranks: deploy.executor: ray"
    )


def test_ray_needs_no_such_vllm() -> None:
    assert planned(TWO, spec(model(tp=16)), seen("gpu01", "gpu02", vllm="0.8.5")).instances


@pytest.mark.parametrize(
    ("version", "older"),
    [
        ("0.11.0", True),
        ("0.11.0.post2", True),
        ("0.9.2", True),
        ("0.10.2+cu128", True),
        ("0.11.1", False),
        ("0.11.1+cpu", False),
        ("0.32.0", False),
        ("1.0", False),
        ("0.11", True),
        ("0.1.dev1+g1234567", False),
        ("unknown", False),
        ("", False),
        (None, False),
    ],
)
def test_releases_are_compared_and_what_is_no_release_is_not(version: str | None, older: bool) -> None:
    assert is_older(version, "0.11.1") is older
