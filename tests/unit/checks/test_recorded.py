"""Check recorded replies of the probe on a real host: healthy, and with one real fault each.

The host had real vLLM and Ray, a tiny Qwen2 and a stand-in GPU. `python -m tests.environments.record_probe` records
them again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.checks.registry import judge
from flagscale_deploy.checks.types import Context
from flagscale_deploy.facts.model import Facts, Observation
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.planner import draft
from tests.unit.plan.given import RUN, TEMPLATES, model, spec

RECORDED: Any = json.loads((Path(__file__).parent / "recorded/host.json").read_text(encoding="utf-8"))
ASKED = spec(
    model("tiny", model="/models/tiny", port=7900, engine_args={"max-model-len": 512}),
    name="checked",
    ray="on",
)


def recorded(changed: Any) -> Context:
    """Return the context of the recorded host, with these fields as in another recording."""
    facts = {"gpu01": Facts.parse(RECORDED["host"] | changed)}
    hosts = Inventory((Host("gpu01", "10.0.0.1"),), {}, "hosts.yaml")
    drafted = draft(Inputs(hosts, ASKED, facts, RUN, TEMPLATES))
    seen = {name: Observation(name, host_facts) for name, host_facts in facts.items()}
    return Context(hosts, ASKED, seen, drafted.plan, (*drafted.faults, *drafted.idle))


def complaints(context: Context) -> set[tuple[str, str, str]]:
    return {
        (verdict.check, verdict.host, verdict.state)
        for verdict in judge(context)
        if verdict.state in ("failed", "warning")
    }


def test_nothing_is_wrong_with_a_healthy_host() -> None:
    assert complaints(recorded({})) == set()
    verdicts = {verdict.check: verdict.found for verdict in judge(recorded({})) if verdict.state == "passed"}
    assert (verdicts["ray-version"], verdicts["model-parallel"]) == ("2.60.0 on 1 host", "4 heads / 1, 2 layers / 1")
    assert verdicts["model-weights"].endswith("in /models/tiny")
    assert (verdicts["gpu-driver"], verdicts["gpu-count"]) == ("580.159.03 on 1 host", "1 GPU on 1 host")
    assert "KV cache 512 tokens" in verdicts["model-memory"]


@pytest.mark.parametrize("fault", RECORDED["faults"], ids=[fault["name"] for fault in RECORDED["faults"]])
def test_a_recorded_fault_is_told_by_its_check(fault: Any) -> None:
    context = recorded(fault["changed"])
    also = {"vllm-installed"} if fault["check"] == "ray-installed" else set()  # an environment that has neither
    assert {check for check, _, _ in complaints(context)} == {fault["check"], *also}
    for verdict in judge(context):
        if verdict.check == fault["check"]:
            assert (verdict.state, verdict.host) == (fault["state"], "gpu01")
            assert verdict.found
            assert verdict.remedy
