"""Every configuration in examples/ can be planned on every inventory in inventories/ that is large enough."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flagscale_deploy import api
from flagscale_deploy.api import Options, load_request
from flagscale_deploy.errors import InputError
from tests.docs.pages import REPOSITORY

INVENTORIES = sorted((REPOSITORY / "inventories").iterdir())
CONFIGURATIONS = [
    path
    for path in sorted((REPOSITORY / "examples").rglob("*.yaml"))
    if not {"ci", "serve"} & set(path.relative_to(REPOSITORY).parts)
]


def counted(inventory: Path, scratch: Path) -> Path:
    """Return the inventory with a line that says how many GPUs, which examples leave to the probe."""
    text = inventory.read_text()
    if "# gpus: 1 " not in text:
        return inventory
    copy = scratch / inventory.name
    copy.write_text(text.replace("# gpus: 1 ", "gpus: 8 "))
    return copy


@pytest.mark.parametrize("inventory", INVENTORIES, ids=lambda path: path.name)
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_an_example_can_be_planned_on_a_sample_inventory(configuration: Path, inventory: Path, tmp_path: Path) -> None:
    asked = Options(inventory=str(counted(inventory, tmp_path)), config=str(configuration))
    request = load_request(asked, environ={})
    hosts = request.inventory
    needed = {engine.label: engine.gpus_needed for engine in request.serve.engines}
    present = sum(host.gpus or 0 for host in hosts.hosts)
    if sum(needed.values()) > present:
        with pytest.raises(InputError, match=rf"needs \d+ GPUs; free GPUs: {hosts.head.name} {present}"):
            api.plan(request, offline=True)
        return
    made = api.plan(request, offline=True)
    steps = [step for stage in made.stages for step in stage.steps]
    assert {step.host for step in steps} == set(hosts.names if made.ray.enabled else made.working)
    assert all(made.scripts[step.host][step.script].startswith("#!") for step in steps)
    assert any(step.detached for step in steps), "something goes on serving"
    engines = [
        instance for instance in made.instances if instance.label in needed
    ]  # a program of one's own is no model
    for instance in engines:
        assert sum(len(indexes) for indexes in instance.gpus.values()) == needed[instance.label]


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
