"""`smoke` on this machine alone, as a CI job on bare metal runs it: no SSH, Ray on, real vLLM."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.e2e import tiny
from tests.e2e.sight import Presence
from tests.lab.product.operator import Operator, Running, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

LIMIT_SECONDS = 600.0

UNASKED = ("--skip-check", "engine-arguments")
"""vLLM's parser is asked in one test; that takes ten seconds as well."""

WRONG = "There is no module or parameter named"
"""What vLLM says of weights with a tensor that the model has not."""


@dataclass
class Job:
    """A CI job: `smoke` with all its outputs, one deployment of its own."""

    operator: Operator
    config: Path
    port: int

    @property
    def name(self) -> str:
        return self.config.stem

    @property
    def junit(self) -> Path:
        return self.operator.directory / "reports/junit.xml"

    @property
    def artifacts(self) -> Path:
        return self.operator.directory / "artifacts"

    @property
    def run_folder(self) -> Path:
        (folder,) = (self.artifacts / "runs").iterdir()
        return folder

    def start(self, *words: str) -> Running:
        outputs = ("--junit", self.junit, "--artifacts", self.artifacts, "--json")
        return self.operator.start("smoke", "-c", self.config, *outputs, *words)

    def traces(self) -> list[str]:
        """Return what is left of the deployment in files and ports."""
        homes = (Path.home(), self.operator.directory / "operator-home")
        left = [str(home / ".flagscale-deploy") for home in homes if (home / ".flagscale-deploy" / self.name).exists()]
        for claim in Path("/tmp").glob("fsd-*/flagscale-deploy.json"):
            if json.loads(claim.read_text())["deployment"] == self.name:
                left.append(str(claim.parent))
        with socket.socket() as asking:
            return [*left, *([f"port {self.port}"] if asking.connect_ex(("127.0.0.1", self.port)) == 0 else [])]

    def cases(self) -> dict[str, ET.Element]:
        """Return the test cases of the JUnit file by name; its own counts agree with them."""
        (suite,) = ET.parse(self.junit).getroot()
        listed = suite.findall("testcase")
        cases = {case.attrib["name"]: case for case in listed}
        assert len(cases) == len(listed) == int(suite.attrib["tests"])
        assert len(suite.findall("testcase/failure")) == int(suite.attrib["failures"])
        assert len(suite.findall("testcase/skipped")) == int(suite.attrib["skipped"])
        assert sum(float(case.attrib["time"]) for case in listed) == pytest.approx(float(suite.attrib["time"]), abs=0.1)
        return cases


@pytest.fixture
def job(request: pytest.FixtureRequest, node_env: Path, tiny_model: Path, tmp_path: Path) -> Iterator[Job]:
    inventory = tmp_path / "hosts.yaml"
    here = {"name": "here", "connection": "local", "venv": str(node_env)}
    inventory.write_text(yaml.safe_dump({"hosts": [here]}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path, flags = tmp_path / f"smoke-{port}.yaml", tiny.IN_ONE_PROCESS
    config = tiny.write(path, tiny_model, port=port, gpus=0, flags=flags, forks=True)
    operator = Operator(tmp_path, inventory)
    yield Job(operator, config, port)
    for running in operator.started:
        running.abandon()
    operator("cleanup", "-c", config)  # only after a failed test is there anything to end


def test_a_smoke_that_passes_reports_every_phase_and_leaves_nothing(job: Job) -> None:
    with Presence(job.name) as presence:
        command = job.start(
            "--prompt", "Say something.", "--expect", "(?s).{4}", "--prompt", "And more.", "--min-tokens", "4"
        )
        ended = command.end(0, within=LIMIT_SECONDS)
    assert any("gcs_server" in command for command in presence.commands)
    assert any("vllm serve" in command for command in presence.commands)
    assert presence.living() == []
    assert job.traces() == []

    report = ended.json
    assert (report["passed"], report["exit_code"], report["deployment"]) == (True, 0, job.name)
    cases = job.cases()
    assert list(cases) == [
        "check [here]",
        "run [here]",
        "prompt 1",
        "prompt 2",
        "status [here]",
        "logs [here]",
        "stop [here]",
        "clean [here]",
    ]
    assert not any(len(case.findall("failure") + case.findall("skipped")) for case in cases.values())
    assert all(float(case.attrib["time"]) > 0 for case in cases.values())
    assert {case.attrib["classname"] for case in cases.values()} == {
        f"smoke.{phase}" for phase in ("check", "run", "prompt", "status", "logs", "stop", "clean")
    }

    events = [json.loads(line) for line in (job.run_folder / "events.jsonl").read_text().splitlines()]
    assert {"ray-head", "ray-nodes", "serve"} <= {event["stage"] for event in events}
    assert json.loads((job.run_folder / "plan.json").read_text())["ray"]["enabled"] is True
    logs = {path.name for path in (job.artifacts / "logs/here").rglob("*")}
    assert {"ray_head.log", "raylet.out", "vllm_serve_vllm_model_0.log"} <= logs
    assert "> Say something.\n" in (job.artifacts / "prompts.txt").read_text()


def test_a_smoke_that_cannot_load_names_the_line_keeps_the_logs_and_leaves_nothing(
    job: Job, tiny_model: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes().replace(b"embed_tokens", b"embed_tokenz", 1))  # whole, and of no Qwen2
    tiny.write(job.config, broken, port=job.port, gpus=0, flags=tiny.IN_ONE_PROCESS, forks=True)
    with Presence(job.name) as presence:
        ended = job.start(*UNASKED, "deploy.ray=never").end(5, within=LIMIT_SECONDS)
    assert presence.commands
    assert presence.living() == []
    assert job.traces() == []

    assert ended.json["exit_code"] == 5
    cases = job.cases()
    failure = cases["run [here]"].find("failure")
    assert failure is not None
    assert WRONG in (failure.text or "")
    assert [name for name, case in cases.items() if case.find("failure") is not None] == ["run [here]"]
    assert [name for name, case in cases.items() if case.find("skipped") is not None] == ["prompt", "status"]
    engine = job.run_folder / "logs/here/logs/vllm_serve_vllm_model_0.log"
    assert WRONG in engine.read_text()


def test_a_smoke_that_the_ci_runner_ends_takes_down_what_it_started(job: Job) -> None:
    with Presence(job.name) as presence:
        command = job.start(*UNASKED, tiny.WITHOUT_DASHBOARD)
        command.wait_for("serve: reading the model's configuration", within=LIMIT_SECONDS)
        assert eventually(lambda: any("vllm serve" in command for command in presence.commands))
        command.send(signal.SIGTERM)
        command.end(130, within=LIMIT_SECONDS)
    assert presence.living() == []
    assert job.traces() == []
    cases = job.cases()
    assert [name for name, case in cases.items() if case.find("failure") is not None] == ["run"]
    assert {"stop [here]", "clean [here]"} <= set(cases)
