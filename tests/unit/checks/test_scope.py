"""What a check says of hosts that it could not look at, that nothing runs on, or that did not answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flagscale_deploy.checks.registry import judge
from flagscale_deploy.checks.types import Verdict
from flagscale_deploy.errors import TcpError
from flagscale_deploy.facts.model import Interface, ModelFiles
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.planner import draft
from tests.unit.checks.given import ASKED, FILES, HOSTS, PATH, complaints, facts, links, make_context
from tests.unit.plan.given import RUN, TEMPLATES, host, inventory, model, planned, spec

GONE = TcpError("gpu04", "no answer from 10.0.0.4 in time", "is the host up?")
ON_ONE = spec(model(tp=8, engine_args={"max-model-len": 32768}), ray="off")
"""On gpu01 alone."""


def verdicts(context: Any) -> dict[str, Verdict]:
    return {verdict.check: verdict for verdict in judge(context)}


def test_a_model_that_is_nowhere_was_not_looked_at() -> None:
    gone = {name: {"models": (ModelFiles(PATH, "no such file or directory"),)} for name in HOSTS}
    by_check = verdicts(make_context(gone))
    assert by_check["model-path"].state == "failed"
    of_models = {
        name: (verdict.state, verdict.found) for name, verdict in by_check.items() if name.startswith("model-")
    }
    unread = ("skipped", "it can be read on no host")
    assert of_models == {
        "model-path": of_models["model-path"],
        "model-same": ("skipped", "it can be read on fewer than two hosts"),
        **dict.fromkeys(
            (
                "model-weights",
                "model-parallel",
                "model-length",
                "model-memory",
                "model-tokenizer",
                "model-code",
                "model-experts",
            ),
            unread,
        ),
    }


def test_a_model_on_one_of_its_hosts_was_not_compared() -> None:
    gone = {name: {"models": (ModelFiles(PATH, "no such file or directory"),)} for name in HOSTS[1:]}
    by_check = verdicts(make_context(gone))
    assert (by_check["model-same"].state, by_check["model-same"].found) == (
        "skipped",
        "it can be read on fewer than two hosts",
    )
    assert (by_check["model-weights"].state, by_check["model-tokenizer"].found) == ("passed", "1 host")


def test_what_a_model_does_not_tell_is_not_known() -> None:
    bare = replace(FILES, config={})
    by_check = verdicts(make_context({name: {"models": (bare,)} for name in HOSTS}))
    for name in ("model-parallel", "model-length"):
        assert by_check[name].state == "skipped"
        assert by_check[name].found.startswith("its config.json has no")


def test_what_is_in_environments_that_do_not_start_is_not_known() -> None:
    broken: dict[str, Any] = dict.fromkeys(("python", "ray", "vllm", "torch", "parser"))
    by_check = verdicts(
        make_context({name: {**broken, "environment_error": "no such file"} for name in HOSTS}, parsed={})
    )
    assert by_check["environment"].state == "failed"
    for name in (
        "ray-installed",
        "vllm-installed",
        "ray-version",
        "same-python",
        "same-ray",
        "same-vllm",
        "same-torch",
    ):
        assert by_check[name].state == "skipped", by_check[name]
    assert by_check["vllm-installed"].found == "no host has anything to look at"


def test_versions_of_what_is_nowhere_installed_are_not_known() -> None:
    by_check = verdicts(make_context({name: {"ray": None, "vllm": None} for name in HOSTS}, serve_spec=None))
    assert {
        name: (by_check[name].state, by_check[name].found) for name in ("ray-version", "same-ray", "same-vllm")
    } == {
        "ray-version": ("skipped", "no Ray was found"),
        "same-ray": ("skipped", "no Ray was found"),
        "same-vllm": ("skipped", "no vLLM was found"),
    }


def test_hosts_that_were_looked_at_are_counted_and_no_others() -> None:
    by_check = verdicts(make_context(serve_spec=spec(model(tp=16, engine_args={"max-model-len": 32768}), ray="auto")))
    assert by_check["vllm-installed"].found == "2 hosts"
    assert by_check["model-tokenizer"].found == "2 hosts"
    assert by_check["gpu-alike"].found == "2 hosts"
    assert by_check["gpu-ecc"].found == "4 hosts"


IDLE: list[dict[str, Any]] = [
    {"interfaces": (Interface("eth0", ("10.0.0.3",), 9000),)},
    {"open_files": 4096},
    {"environment_error": "no such file"},
    {"gpus": (), "gpu_error": "couldn't communicate with the driver"},
    {"disk_free": 0},
    {"ray": "2.40.0"},
]


@pytest.mark.parametrize("fault", IDLE, ids=["mtu", "open-files", "environment", "driver", "disk", "ray"])
def test_a_host_that_nothing_runs_on_stops_nothing(fault: dict[str, Any]) -> None:
    context = make_context({"gpu03": fault}, serve_spec=ON_ONE)
    assert context.plan is not None
    assert [complaint for complaint in complaints(context) if complaint.state == "failed"] == []


@pytest.mark.parametrize("fault", IDLE, ids=["mtu", "open-files", "environment", "driver", "disk", "ray"])
def test_the_same_on_a_host_that_something_runs_on_does(fault: dict[str, Any]) -> None:
    assert [complaint.host for complaint in complaints(make_context({"gpu03": fault})) if complaint.state == "failed"]


def test_a_host_that_nothing_runs_on_does_not_keep_the_plan_from_being_carried_out() -> None:
    hosts = inventory("gpu01", host("gpu02", gpus=8), host("gpu03", node_ip="10.9.9.9"))
    seen = {"gpu01": facts("gpu01"), "gpu02": facts("gpu02", gpus=()), "gpu03": facts("gpu03")}
    drafted = draft(Inputs(hosts, ON_ONE, seen, RUN, TEMPLATES))
    assert drafted.plan is not None
    assert drafted.plan.working == ("gpu01",)
    assert (drafted.faults, {fault.check for fault in drafted.idle}) == ((), {"gpu-count", "node-ip"})
    assert planned(hosts, ON_ONE, seen).hosts == hosts.names


def test_a_host_that_nothing_runs_on_has_to_be_one_that_can_be_worked_on() -> None:
    """`run` writes its record there, and takes it back."""
    context = make_context({"gpu03": {"probe_python": "3.6.8"}}, serve_spec=ON_ONE)
    assert [(complaint.check, complaint.state) for complaint in complaints(context)] == [("python", "failed")]


def test_the_others_are_looked_at_although_a_host_did_not_answer() -> None:
    """As many GPUs are asked for as all four hosts have: the plan takes the lost one for what the others are."""
    context = make_context({"gpu04": GONE})
    assert context.plan is not None
    assert context.plan.instances[0].hosts == HOSTS
    by_check = verdicts(context)
    assert [verdict.check for verdict in by_check.values() if verdict.state not in ("passed", "skipped")] == ["tcp"]
    for name in ("data-network", "ports", "placement", "model-path", "model-memory", "engine-arguments", "memory"):
        assert by_check[name].state == "passed", by_check[name]
        assert by_check[name].found.endswith("; gpu04 did not answer")
    assert by_check["writable"].found == "3 hosts"


def test_a_fault_of_another_host_is_told_although_one_did_not_answer() -> None:
    cut = {name: {"models": (replace(FILES, torn={next(iter(FILES.weights)): "is cut off"}),)} for name in ("gpu02",)}
    by_check = complaints(make_context({"gpu04": GONE, **cut}))
    assert [(verdict.check, verdict.host) for verdict in by_check] == [("tcp", "gpu04"), ("model-weights", "gpu02")]


def test_the_inventory_says_how_many_gpus_a_host_has_that_did_not_answer() -> None:
    hosts = inventory("gpu01", "gpu02", "gpu03", host("gpu04", gpus=4))
    by_check = complaints(make_context({"gpu04": GONE}, hosts=hosts))
    assert [verdict.check for verdict in by_check] == ["tcp", "placement"]
    assert "gpu04 4" in by_check[1].found


def test_a_head_that_did_not_answer_hides_nothing_of_the_others() -> None:
    lost = TcpError("gpu01", "no answer from 10.0.0.1 in time", "is the host up?")
    tried = tuple(link for link in links() if "gpu01" not in (link.source, link.target))
    by_check = verdicts(make_context({"gpu01": lost}, tried=tried, parsed={}))
    assert by_check["data-network"].state == "passed"
    assert (by_check["engine-arguments"].state, by_check["engine-arguments"].found) == (
        "skipped",
        "gpu01 did not answer",
    )


def test_where_nobody_answers_a_plan_is_missing_for_that_reason() -> None:
    by_check = verdicts(make_context(dict.fromkeys(HOSTS, GONE), serve_spec=ASKED))
    assert by_check["model-path"].found == "no host answered"
