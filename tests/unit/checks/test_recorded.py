"""Recorded answers of real hosts with real vLLM and Ray: healthy, and with one real fault each.

`python -m tests.lab.product.record` makes them anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.checks.model import Scene
from flagscale_deploy.checks.table import judge
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.observation import Facts, Observation
from flagscale_deploy.plan.planner import draft
from tests.unit.plan.given import RUN, TEMPLATES, model, spec

RECORDED: Any = json.loads((Path(__file__).parent / "recorded/lab.json").read_text(encoding="utf-8"))
ASKED = spec(model("tiny", model="/run/models/tiny", tp=4, port=7900, engine_args={"max-model-len": 512}),
             name="checked", ray="on")  # fmt: skip


def recorded(changed: Any) -> Scene:
    """The four hosts as they were seen, with these fields of some of them as they were in another look."""
    answers = {name: facts | changed.get(name, {}) for name, facts in RECORDED["hosts"].items()}
    facts = {name: Facts.parse(answer) for name, answer in answers.items()}
    hosts = Inventory(tuple(Host(name, str(each.default_address)) for name, each in facts.items()), {}, "hosts.yaml")
    found = draft(hosts, ASKED, facts, RUN, TEMPLATES)
    seen = {name: Observation(name, each) for name, each in facts.items()}
    return Scene(hosts, ASKED, seen, found.plan, (*found.faults, *found.idle))


def complaints(scene: Scene) -> list[tuple[str, str, str]]:
    return [(each.check, each.host, each.state) for each in judge(scene) if each.state in ("failed", "warning")]


def test_nothing_is_wrong_with_healthy_hosts() -> None:
    assert complaints(recorded({})) == []
    found = {each.check: each.found for each in judge(recorded({})) if each.state == "passed"}
    assert found["same-ray"] == "2.60.0 on 4 hosts"
    assert found["gpu-count"] == "1 GPU on 4 hosts"
    assert "KV cache 512 tokens" in found["model-memory"]


@pytest.mark.parametrize("fault", RECORDED["faults"], ids=[each["name"] for each in RECORDED["faults"]])
def test_a_recorded_fault_is_told_by_its_check_of_its_host(fault: Any) -> None:
    scene = recorded(fault["changed"])
    assert complaints(scene) == [(fault["check"], fault["host"], fault["state"])]
    (verdict,) = [each for each in judge(scene) if each.check == fault["check"]]
    assert verdict.found
    assert verdict.expected
    assert fault["remedy"] in verdict.remedy


def test_there_is_a_recorded_fault_of_every_kind() -> None:
    assert {each["check"] for each in RECORDED["faults"]} >= {
        "environment", "gpu-driver", "gpu-busy", "gpu-ecc", "hostname", "memory", "model-path", "model-same",
        "model-weights", "mtu", "open-files", "shared-memory",
    }  # fmt: skip
