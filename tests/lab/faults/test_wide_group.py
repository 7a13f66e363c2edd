"""512 data-parallel ranks with expert parallelism over 64 hosts of 8 GPUs: planned, started and stopped.

The engines are stand-ins. Only `make faults` runs it: 64 hosts are too much for each change.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.environments.build import mounts
from tests.lab import Lab
from tests.lab.faults.matrix import MATRIX
from tests.lab.product.operator import Operator
from tests.lab.product.stand_in import make_environment

HOSTS, GPUS = 64, 8
NAME, PORT = "wide", 7960
WITHIN = 900.0


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide an environment whose vLLM says that it is new enough for groups."""
    return make_environment(tmp_path_factory.mktemp("wide") / "environment", vllm="0.32.0")


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab], environment: Path) -> Lab:
    return make_lab(hosts=HOSTS, gpus=GPUS, mounts=mounts(environment))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    flags = {"data-parallel-size": HOSTS * GPUS, "enable-expert-parallel": True, "port": PORT}
    content = {
        "experiment": {"exp_name": NAME},
        "model_args": {"moe": {"model-tag": "lab/tiny", "served-model-name": "tiny", **flags}},
        "deploy": {"timeouts": {"connect": 60, "probe": 300, "ready": 600, "stop": 30}},
    }
    path = tmp_path / "wide.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.mark.timeout(4 * WITHIN)
def test_512_ranks_over_64_hosts_are_planned_started_and_stopped(
    lab: Lab, environment: Path, config: Path, tmp_path: Path
) -> None:
    desk = Operator(tmp_path, lab.inventory(tmp_path / "hosts.yaml", venv=str(environment)))
    took: dict[str, float] = {}

    def timed(command: str, *words: str) -> object:
        began = time.monotonic()
        result = desk.start(command, "-c", str(config), *words).end(0, within=WITHIN)
        took[command] = time.monotonic() - began
        return result.json if "--json" in words else None

    plan: object = timed("plan", "--json")
    assert isinstance(plan, dict)
    assert not plan["ray"]["enabled"]
    (instance,) = plan["instances"]
    assert [rank["role"] for rank in instance["ranks"]] == ["driver", *["follower"] * (HOSTS - 1)]
    assert sum(len(rank["gpus"]) for rank in instance["ranks"]) == HOSTS * GPUS
    assert "--data-parallel-start-rank=504" in instance["ranks"][-1]["argv"]

    # All pairs would be more neighbours (ARP) than one kernel remembers for all of these hosts: 1,024.
    timed("run", "--skip-check", "data-network")
    processes = lab.processes(NAME)
    assert {process.host for process in processes} == {host.name for host in lab.hosts}
    timed("stop")
    assert [left for left in lab.leftovers(NAME, processes) if left.kind != "directory"] == []
    MATRIX.notes.append(f"{HOSTS * GPUS} ranks, {HOSTS} hosts: {', '.join(f'{act} {took[act]:.1f} s' for act in took)}")
