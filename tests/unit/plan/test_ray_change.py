"""What would change about Ray: nodes that join, leave and restart by themselves, and what all of Ray restarts for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from flagscale_deploy.plan.difference import difference
from flagscale_deploy.plan.kept import KeptRun
from flagscale_deploy.plan.ray_change import node_host, node_name, ray_change
from flagscale_deploy.plan.server_change import Difference
from tests.unit.plan.given import RUN, host, inventory, seen
from tests.unit.plan.test_difference import NEXT, described

TEXT = """\
experiment: {exp_name: two, envs: {A: b}, cmds: {before_start: ulimit -n 65535}}
model_args:
  large: {model: /models/large, tensor-parallel-size: 16, port: 4567}
  small: {model: /models/small, tensor-parallel-size: 2, port: 5567}
deploy: {ray: always, executor: ray}
"""
THREE = ("gpu01", "gpu02", "gpu03")


def over(*hosts: Any, text: str = TEXT, running: KeptRun | None = None, **changes: Any) -> KeptRun:
    """Return what is kept of a run over these hosts: the large model is on two by Ray, the small one on one without."""
    names = [name if isinstance(name, str) else name.name for name in hosts]
    facts = changes.pop("facts", seen(*names))
    return described(text, NEXT if running else RUN, running, inventory=inventory(*hosts), facts=facts)


BEFORE = over(*THREE)


def changed(made: Difference) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {change.name: (change.kind, change.reasons) for change in made.changed}


def test_a_host_more_is_a_node_that_joins_and_nothing_else() -> None:
    made = difference(BEFORE, over(*THREE, "gpu04", running=BEFORE))
    assert (made.ray, changed(made)) == ((), {"Ray on gpu04": ("added", ())})
    assert made.lines == ("Ray on gpu04 would be added",)


def test_a_host_less_is_a_node_that_leaves_with_the_groups_that_may_have_processes_there() -> None:
    five = over(*THREE, "gpu04", "gpu05")
    made = difference(five, over(*THREE, "gpu04", running=five))
    assert (made.ray, changed(made)) == (
        (), {"Ray on gpu05": ("removed", ()), "large/0": ("restarted", ("Ray leaves or restarts on gpu05",))},
    )  # fmt: skip


def test_a_node_whose_gpus_change_restarts_with_the_groups_there() -> None:
    after: Any = copy.deepcopy(BEFORE)
    after["ray"]["nodes"]["gpu03"] = [0, 1, 2, 3]
    made = difference(BEFORE, after)
    assert made.ray == ()
    assert changed(made) == {
        "Ray on gpu03": ("restarted", ("GPUs 6 → 4",)),
        "large/0": ("restarted", ("Ray leaves or restarts on gpu03",)),
    }


def test_a_models_path_or_a_flag_is_no_change_of_ray() -> None:
    text = TEXT.replace("/models/small", "/models/other").replace("port: 4567", "port: 4567, max-num-seqs: 8")
    made = difference(BEFORE, over(*THREE, text=text, running=BEFORE))
    assert (made.ray, made.nodes) == ((), ())
    assert changed(made).keys() == {"large/0", "small/0"}


def test_another_version_of_a_hosts_settings_restarts_its_node_alone() -> None:
    after = over("gpu01", "gpu02", host("gpu03", cpus=4), running=BEFORE)
    made = ray_change(BEFORE, after)
    assert [(node.name, node.reasons) for node in made.nodes] == [("Ray on gpu03", ("another cpus of gpu03",))]
    assert made.whole == ()


WHOLE: dict[str, tuple[str, str, str]] = {
    "variables": ("A: b", "A: c", "another experiment.envs.A on the head gpu01"),
    "before_start": ("65535", "1024", "another experiment.cmds.before_start on the head gpu01"),
    "dashboard": ("ray: always", "ray: {mode: always, dashboard: false}", "another deploy.ray on the head gpu01"),
    "restart": ("executor: ray", "executor: ray, restart: on-failure", "another deploy.restart on the head gpu01"),
    "port": ("ray: always", "ray: {mode: always, port: 7000}", "head 10.0.0.1:6379 → 10.0.0.1:7000"),
    "off": ("ray: always, executor: ray", "ray: 'off', executor: mp", "it ends"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_the_heads_node_needs_to_start_anew_for_is_named_by_its_key(name: str) -> None:
    old, new, reason = WHOLE[name]
    assert old in TEXT
    reasons = difference(BEFORE, over(*THREE, text=TEXT.replace(old, new), running=BEFORE)).ray
    assert any(reason in text for text in reasons), reasons


def edited(change: Callable[[Any], None]) -> tuple[str, ...]:
    after = copy.deepcopy(BEFORE)
    change(after)
    return ray_change(BEFORE, after).whole


def test_another_ray_another_head_and_other_gpus_of_the_head_need_all_of_ray() -> None:
    def upgraded(run: Any) -> None:
        run["versions"]["gpu02"]["Ray"] = "2.61.0"

    def shrunk(run: Any) -> None:
        run["ray"]["nodes"]["gpu01"] = [0]

    def moved(run: Any) -> None:
        run["head"], run["ray"]["address"] = "gpu02", "10.0.0.2:6379"

    def altered(run: Any) -> None:
        run["ray"]["scripts"]["gpu01/ray_head.sh"] = "x"

    assert edited(upgraded) == ("Ray 2.60.0 → 2.61.0 on gpu02",)
    assert edited(shrunk) == ("GPUs 8 → 1 on the head gpu01",)
    assert edited(moved) == ("head 10.0.0.1:6379 → 10.0.0.2:6379",)
    assert edited(altered) == ("another script: a template, or this tool's version on the head gpu01",)


def test_no_servers_name_is_that_of_a_node() -> None:
    assert node_host(node_name("gpu01")) == "gpu01"
    assert [node_host(name) for name in ("gate", "m/0", "Ray on x/0", "Ray/router")] == [None] * 4
