"""A module's lab, its operator, and configurations that are served by the stand-in."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab import Lab
from tests.lab.product import stand_in as stand_ins
from tests.lab.product.operator import Operator
from tests.lab.product.stand_in import StandIn

_ports = itertools.count(7000, 10)


@dataclass(frozen=True)
class Serve:
    """A configuration: its file, the deployment's name, and the ports of its models."""

    config: Path
    name: str
    ports: tuple[int, ...]

    @property
    def port(self) -> int:
        return self.ports[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """Provide the environment with the stand-in for vLLM; a lab has to mount `stand_in.mounts`."""
    return stand_ins.build(tmp_path_factory.mktemp("stand-in"))


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab], stand_in: StandIn) -> Lab:
    """Two hosts with two GPUs each; a module that needs another lab has its own fixture of this name."""
    return make_lab(hosts=2, gpus=2, mounts=stand_in.mounts)


@pytest.fixture
def operator(lab: Lab, stand_in: StandIn, tmp_path: Path) -> Iterator[Operator]:
    """Provide an operator with an inventory of the whole lab; commands that still run at the end are ended."""
    sits = Operator(tmp_path, lab.inventory(tmp_path / "hosts.yaml", venv=str(stand_in.environment)))
    yield sits
    for running in sits.started:
        running.abandon()


@pytest.fixture
def serve(lab: Lab, tmp_path: Path) -> Iterator[Callable[..., Serve]]:
    """Write configurations in the seed form; what a failed test leaves running of them is killed."""
    made: list[Serve] = []

    def write(
        name: str = "",
        *,
        stand_in: str = "",
        models: int = 1,
        envs: dict[str, Any] | None = None,
        flags: dict[str, Any] | None = None,
        deploy: dict[str, Any] | None = None,
    ) -> Serve:
        """`stand_in` are words for the stand-in; `flags` go to every model, `deploy` into its section."""
        first = next(_ports)
        ports = {f"model{at}": first + at for at in range(models)}
        name = name or f"d{first}"
        content = {
            "experiment": {"exp_name": name, "envs": {"STAND_IN": stand_in} | (envs or {})},
            "model_args": {
                model_name: {"model-tag": "lab/tiny", "served-model-name": "tiny", "port": port} | (flags or {})
                for model_name, port in ports.items()
            },
            "deploy": {"ray": "off", "timeouts": {"connect": 4, "ready": 20, "stop": 2}} | (deploy or {}),
        }
        path = tmp_path / f"{first}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        made.append(Serve(path, name, tuple(ports.values())))
        return made[-1]

    yield write
    for deployment in made:
        _forget(lab, deployment.name)


def _forget(lab: Lab, deployment: str) -> None:
    """Remove what the product left behind, so that it does not disturb the next test."""
    for process in lab.processes(deployment):
        host = next(host for host in lab.hosts if host.name == process.host)
        host.run(["kill", "-9", str(process.pid)], check=False)
    for host in lab.hosts:
        for path in (host.directory / "home/.flagscale-deploy", *(host.directory / "tmp").glob("fsd-*")):
            shutil.rmtree(path, ignore_errors=True)
