"""Every configuration in examples/ can be planned on every inventory in inventories/ that is large enough."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from flagscale_deploy.config.load import load_spec
from flagscale_deploy.errors import CheckError
from flagscale_deploy.inventory.load import load_inventory
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.observation import Facts, Gpu, Interface
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.planner import plan
from flagscale_deploy.render import load_templates
from tests.docs.readme import REPOSITORY

INVENTORIES = sorted((REPOSITORY / "inventories").iterdir())
CONFIGURATIONS = [
    path
    for path in sorted((REPOSITORY / "examples").rglob("*.yaml"))
    if not {"ci", "serve"} & set(path.relative_to(REPOSITORY).parts)
]


def offline(inventory: Inventory) -> Mapping[str, Facts]:
    """Nothing where the inventory counts all GPUs; what a probe would find where it leaves that to it."""
    if all(host.gpus is not None for host in inventory.hosts):
        return {}
    return {host.name: probed() for host in inventory.hosts}


def probed(gpus: int = 8) -> Facts:
    found = tuple(Gpu(at, f"GPU-{at}", "H100", 81559, 0) for at in range(gpus))
    network = (Interface("eth0", ("10.0.0.1",)),)
    return Facts(
        python="3.12.1", ray="2.60.0", vllm="0.32.0", gpus=found, interfaces=network, default_address="10.0.0.1"
    )


def planned(configuration: Path, inventory: Inventory) -> Plan:
    spec = load_spec(configuration, environ={})
    return plan(inventory, spec, offline(inventory), "20260101T000000Z-abcdef", load_templates())


@pytest.mark.parametrize("inventory", INVENTORIES, ids=lambda path: path.name)
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_an_example_can_be_planned_on_a_sample_inventory(configuration: Path, inventory: Path) -> None:
    hosts = load_inventory(inventory)
    needed = {model.name: model.gpus_needed for model in load_spec(configuration, environ={}).models}
    present = sum(8 if host.gpus is None else host.gpus for host in hosts.hosts)
    if sum(needed.values()) > present:
        with pytest.raises(CheckError, match=rf"needs \d+ GPUs; free are: {hosts.head.name} {present}"):
            planned(configuration, hosts)
        return
    made = planned(configuration, hosts)
    steps = [step for stage in made.stages for step in stage.steps]
    assert {step.host for step in steps} == set(hosts.names), "Ray runs on every host"
    assert all(made.scripts[step.host][step.script].startswith("#!") for step in steps)
    assert any(step.detached for step in steps), "something goes on serving"
    for instance in made.instances:
        assert sum(len(indexes) for indexes in instance.gpus.values()) == needed[instance.model]


def test_the_samples_are_as_many_as_they_look() -> None:
    assert len(CONFIGURATIONS) >= 6
    assert len(INVENTORIES) >= 6
    assert {path.suffix for path in INVENTORIES} == {".yaml", ".ini", ".txt"}


def test_the_jobs_for_ci_type_the_same_words() -> None:
    gitlab = yaml.safe_load((REPOSITORY / "examples/ci/gitlab-ci.yml").read_text())["smoke-deploy"]
    github = yaml.safe_load((REPOSITORY / "examples/ci/github-actions.yml").read_text())["jobs"]["smoke-deploy"]
    steps = [step["run"] for step in github["steps"] if "run" in step]
    assert [steps[1].removeprefix("exec ")] == gitlab["script"]
    assert [steps[2]] == gitlab["after_script"]
    assert gitlab["before_script"][0] == steps[0].splitlines()[0]


def test_the_jobs_for_ci_keep_what_smoke_writes_also_when_it_fails() -> None:
    gitlab = yaml.safe_load((REPOSITORY / "examples/ci/gitlab-ci.yml").read_text())["smoke-deploy"]
    github = yaml.safe_load((REPOSITORY / "examples/ci/github-actions.yml").read_text())["jobs"]["smoke-deploy"]
    written = {"smoke.xml", "smoke-artifacts"}
    assert all(f" {name}" in gitlab["script"][0] for name in written)
    kept = gitlab["artifacts"]
    assert kept["when"] == "always"
    assert {kept["reports"]["junit"], *(path.rstrip("/") for path in kept["paths"])} == written
    *_, cleanup, upload = github["steps"]
    assert cleanup["if"] == upload["if"] == "always()"
    assert {path.rstrip("/") for path in upload["with"]["path"].split()} == written
