"""The digest says whether the same was asked for: that decides whether `run` finds a deployment running already."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flagscale_deploy.config.spec import RaySpec, ServeSpec, Timeouts
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.plan.planner import digest
from flagscale_deploy.rendering.render import Templates
from flagscale_deploy.secrets import Secret
from tests.unit.plan.given import RUN, TEMPLATES, facts, host, inventory, model, planned, spec

HOSTS = inventory("gpu01", "gpu02")
SPEC = spec(model(tp=2), env={"A": "1"}, secret_env={"HF_TOKEN": Secret("one-secret")})
SAME = digest(HOSTS, SPEC, TEMPLATES)


def test_it_has_a_form() -> None:
    algorithm, _, value = SAME.partition(":")
    assert algorithm == "sha256"
    assert len(value) == 64


def test_it_is_a_plans_whatever_the_run_and_the_state_of_the_hosts() -> None:
    assert planned(HOSTS, SPEC).digest == SAME
    assert planned(HOSTS, SPEC, run_id=RUN + "x").digest == SAME
    busy = {"gpu01": facts("gpu01", busy=[0, 1]), "gpu02": facts("gpu02", 4)}
    assert planned(HOSTS, SPEC, busy, force=True).digest == SAME


@pytest.mark.parametrize(
    "changed",
    [
        replace(SPEC, timeouts=Timeouts(ready=1)),
        replace(SPEC, secret_env={"HF_TOKEN": Secret("another-one")}),
        replace(SPEC, source="elsewhere/qwen.yaml"),
    ],
    ids=["timeouts", "a secret's value", "the file's place"],
)
def test_what_changes_nothing_on_the_hosts(changed: ServeSpec) -> None:
    assert digest(HOSTS, changed, TEMPLATES) == SAME


def test_where_the_operator_keeps_his_files_changes_nothing_on_the_hosts() -> None:
    moved = replace(SPEC, exp_dir="/elsewhere", models=(model(tp=2, where="/else/where.yaml: model_args.qwen"),))
    assert digest(HOSTS, moved, TEMPLATES) == SAME


@pytest.mark.parametrize(
    "changed",
    [
        replace(SPEC, name="other"),
        replace(SPEC, models=(model(tp=4),)),
        replace(SPEC, models=(model(tp=2, port=1),)),
        replace(SPEC, models=(model(tp=2, action_args=("trust-remote-code",)),)),
        replace(SPEC, models=(*SPEC.models, model("b", port=1))),
        replace(SPEC, env={"A": "2"}),
        replace(SPEC, secret_env={"OTHER": Secret("one-secret")}),
        replace(SPEC, before_start="module load cuda"),
        replace(SPEC, ray=RaySpec("on")),
    ],
    ids=["name", "flag", "port", "action", "model", "variable", "secret's name", "before_start", "ray"],
)
def test_the_configuration_counts(changed: ServeSpec) -> None:
    assert digest(HOSTS, changed, TEMPLATES) != SAME


@pytest.mark.parametrize(
    "changed",
    [
        inventory("gpu01"),
        inventory("gpu01", "gpu02", "gpu03"),
        inventory("gpu02", "gpu01"),
        inventory("gpu01", "gpu02", head="gpu02"),
        inventory("gpu01", host("gpu02", venv="/opt/v")),
        inventory("gpu01", host("gpu02", env={"A": "3"})),
        inventory("gpu01", host("gpu02", address="10.9.9.9")),
    ],
)
def test_the_hosts_count(changed: Inventory) -> None:
    assert digest(changed, SPEC, TEMPLATES) != SAME


def test_a_host_variable_that_is_not_ours_does_not_count() -> None:
    assert digest(inventory("gpu01", host("gpu02", vars={"rack": 7})), SPEC, TEMPLATES) == SAME


def test_the_templates_count() -> None:
    changed = Templates({**TEMPLATES.sources, "ray_head.sh.j2": TEMPLATES.sources["ray_head.sh.j2"] + "\n# mine\n"})
    assert digest(HOSTS, SPEC, changed) != SAME
