"""A host's word counts for that host; what a deployment is, its head says."""

from __future__ import annotations

from typing import Any

import pytest

from flagscale_deploy.deploy.authority import authority
from flagscale_deploy.deploy.status import Status, summarize
from flagscale_deploy.errors import RemoteError, UnreachableError
from tests.unit.deploy.test_status import INSTANCE, NOTHING, NOW, WELL, head, record, worker

EVIL = {**INSTANCE, "driver": "gpu02", "endpoint": "http://evil:1/v1"}
LATER = 10**12
LOST = UnreachableError("gpu01", "no answer")


def status(first: Any, second: Any, third: Any = NOTHING) -> Status:
    return summarize("qwen", "gpu01", {"gpu01": first, "gpu02": second, "gpu03": third}, NOW)


@pytest.mark.parametrize(
    "changed", [{"run_id": "run-9"}, {"configuration": "u9"}, {}, {"head": "gpu02"}, {"hosts": ["gpu02"]}]
)
def test_no_workers_record_says_what_the_deployment_is_however_new_it_says_it_is(changed: dict[str, Any]) -> None:
    lie = record("engine", **{"instances": [EVIL], "started_at": LATER, "hosts": ["gpu01", "gpu02"], **changed})
    own = head(record=record("ray-head", "engine", hosts=["gpu01", "gpu02"]))
    current = status(own, worker(record=lie, ray={"nodes": {"evil": 99.0}}))
    assert (current.trusted, current.run_id, current.state) == (True, "run-1", "ready")
    assert [server.endpoint for server in current.entrances] == ["http://10.0.0.1:4567/v1"]
    assert current.ray == own["ray"]
    assert "record" in current.hosts[1].problem
    assert current.hosts[0].problem == ""


def test_without_the_heads_record_what_all_others_have_is_shown_and_nothing_is_sent_there() -> None:
    for first, why in ((LOST, "has no record"), (NOTHING, "has no record")):
        current = status(first, worker(), worker())
        assert (current.trusted, current.state, current.exit_code) == (False, "UNKNOWN", 3)
        assert [server.name for server in current.instances] == ["qwen/0"]
        assert why in current.note


APART = {**INSTANCE, "driver": "gpu02", "hosts": ["gpu02"], "gpus": {"gpu02": [0]}}
"""What runs where the head has no part."""


def test_a_head_that_has_no_part_in_it_has_the_record_that_decides() -> None:
    idle = {**NOTHING, "record": record(instances=[APART], gpus=[])}
    reply = worker(record=record("engine", instances=[APART]), instances={"qwen/0": WELL}, ranks={})
    current = status(idle, reply)
    assert (current.trusted, current.state, current.note) == (True, "ready", "")
    assert [host.state for host in current.hosts] == ["absent", "running", "absent"]
    assert not status(LOST, reply).trusted
    stopped = [{**NOTHING, "record": {**own, "stopped_at": 5.0}} for own in (idle["record"], reply["record"])]
    assert (status(*stopped).trusted, status(*stopped).state) == (True, "stopped")
    other = worker(record=record("engine", run_id="run-9", instances=[EVIL], hosts=["gpu03"]))
    assert status(idle, reply, other).entrances == current.entrances


@pytest.mark.parametrize("ray", [{"enabled": False, "address": ""}, {"enabled": True, "address": "10.0.0.2:6379"}])
@pytest.mark.parametrize(
    "changed", [{"head": "gpu02"}, {"hosts": ["gpu02"]}, {"head": "gpu02", "hosts": ["gpu02"]}, {}]
)
def test_where_the_head_has_no_record_no_host_decides_what_there_is(
    changed: dict[str, Any], ray: dict[str, Any]
) -> None:
    """After `cleanup`, on a new head, for a name that never ran."""
    lie = record("engine", instances=[{**APART, "endpoint": "http://evil:1/v1"}], ray=ray, **changed)
    current = status(NOTHING, worker(record=lie, instances={"qwen/0": WELL}, ranks={}))
    assert (current.trusted, current.state, current.exit_code) == (False, "UNKNOWN", 3)
    stopped = status(NOTHING, {**NOTHING, "record": {**lie, "stopped_at": 5.0}})
    assert (stopped.trusted, stopped.state) == (False, "stopped")


def test_others_that_do_not_agree_are_believed_nothing() -> None:
    current = status(LOST, worker(), worker(record=record("ray-worker", instances=[EVIL])))
    assert (current.trusted, current.instances) == (False, ())
    assert current.note.endswith("and those of gpu02, gpu03 do not agree")


def test_a_head_whose_run_was_stopped_is_not_outvoted_by_a_host_that_says_otherwise() -> None:
    stopped = {**NOTHING, "record": record("engine", stopped_at=5.0)}
    current = status(stopped, worker(record=record("ray-worker", run_id="run-9", instances=[EVIL])))
    assert (current.trusted, current.state) == (False, "UNKNOWN")
    assert status(stopped, {**NOTHING, "record": record("ray-worker", stopped_at=LATER)}).state == "stopped"
    assert status(stopped, worker()).state == "leftovers"  # of the very run: `stop` did not reach it


def test_a_host_that_is_of_no_account_to_the_run_may_have_an_older_record() -> None:
    old = {**NOTHING, "record": record("engine", run_id="run-0", stopped_at=5.0)}
    current = status(head(record=record("ray-head", "engine", hosts=["gpu01", "gpu02"])), worker(), old)
    assert [host.problem for host in current.hosts] == ["", "its record differs from gpu01's (hosts)", ""]


def test_nobody_has_a_record() -> None:
    assert authority("gpu01", {}).record is None
    assert status(NOTHING, NOTHING).state == "absent"
    assert status(RemoteError("gpu01", "malformed"), NOTHING).state == "UNKNOWN"
