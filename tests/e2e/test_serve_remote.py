"""Programs of the user's own on two real hosts with real Ray: the two examples, and one that ends by itself."""

from __future__ import annotations

import json
import stat
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import tiny
from tests.environments import build
from tests.lab import Lab
from tests.lab.keepers import REPOSITORY
from tests.lab.product.operator import Operator, Result

pytestmark = [pytest.mark.e2e, pytest.mark.lab, pytest.mark.timeout(900)]

EXAMPLES = REPOSITORY / "examples/serve-remote"
WORD_COUNT = ("-c", EXAMPLES / "word_count.yaml", tiny.WITHOUT_DASHBOARD)
READY_SECONDS = 300.0
SPREAD_SECONDS = 60.0

REPORT = """\
import json, os, socket
import ray
from flagscale import serve  # these hosts have no FlagScale

@serve.remote(name="where", num_gpus=0, num_cpus=1)
def where():
    return {
        "host": socket.gethostname(), "resources": ray.get_runtime_context().get_assigned_resources(),
        "secret": serve.task_config.experiment.envs.API_TOKEN, "logs": serve.task_config.log_dir,
    }

ray.init()
if "ENDS_WITH" in os.environ:  # at once: without a port it is ready when it has lived for 5 s
    raise SystemExit(int(os.environ["ENDS_WITH"]))
print("REPORT " + json.dumps({
    "tasks": serve.run(*[where.remote() for _ in range(2)]), "config": serve.task_config["serve"]["model_args"],
    "wrote": open(os.path.join(serve.task_config.log_dir, "note.log"), "w").write("kept"),
}))
serve.stop()
"""

REPORT_CONFIG = """\
experiment:
  exp_name: report
  task: {type: serve, entrypoint: report.py}
  envs: {API_TOKEN: open-sesame}
model_args: {any: {thing: [1, 2.5, "3"]}}
deploy:
  command-line-mode: false
  models: {where: {num_gpus: 1, num_cpus: 0.5}}
  ray: {dashboard: false}
"""


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab], node_env: Path, tiny_model: Path) -> Lab:
    return make_lab(hosts=2, gpus=1, mounts=[*build.mounts(node_env), tiny_model])


@pytest.fixture(scope="module")
def operator(lab: Lab, node_env: Path, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    desk = tmp_path_factory.mktemp("desk")
    (desk / "report.py").write_text(REPORT)
    (desk / "report.yaml").write_text(REPORT_CONFIG)
    return Operator(desk, lab.inventory(desk / "hosts.yaml", venv=str(node_env)))


def left(lab: Lab, name: str, processes: list[Any]) -> list[str]:
    return [
        f"{leftover.host}: {leftover.what}"
        for leftover in lab.leftovers(name, processes)
        if leftover.kind != "directory"
    ]


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def counting(operator: Operator) -> Result:
    return operator.start("run", *WORD_COUNT).end(0, within=READY_SECONDS)


@pytest.fixture(scope="module")
def counting_known(lab: Lab, counting: Result) -> list[Any]:
    return lab.processes("word-count")


def test_it_is_ready_when_its_port_answers(lab: Lab, counting: Result) -> None:
    assert "app/0 is ready " in counting.out
    assert f"curl http://{lab.hosts[0].address}:8123" in counting.out


def test_its_tasks_run_on_both_hosts_with_the_options_of_the_configuration(lab: Lab, counting: Result) -> None:
    """SPREAD is Ray's best effort: while one host's workers start, another's may take all of a handful of tasks."""
    hosts: set[str] = set()
    end = time.monotonic() + SPREAD_SECONDS
    while hosts != {"node1", "node2"} and time.monotonic() < end:
        answer = get(f"http://{lab.hosts[0].address}:8123/count?text=one+two+two+three&parts=8")
        assert answer["words"] == {"one": 1, "two": 2, "three": 1}
        hosts |= set(answer["hosts"])
    assert hosts == {"node1", "node2"}


def test_status_shows_it(lab: Lab, operator: Operator, counting: Result) -> None:
    status = operator("status", "--name", "word-count", "--json").json
    assert status["state"] == "ready"
    (instance,) = status["instances"]
    assert (instance["name"], instance["state"], instance["driver"]) == ("app/0", "ready", "node1")
    assert instance["endpoint"] == f"http://{lab.hosts[0].address}:8123"


def test_run_again_finds_it(operator: Operator, counting_known: list[Any]) -> None:
    assert "word-count runs already" in operator("run", *WORD_COUNT).out


def test_logs_of_the_program_and_of_its_tasks_are_collected(
    operator: Operator, counting: Result, tmp_path: Path
) -> None:
    assert "counting words at port 8123" in operator("logs", "--name", "word-count", "--tail", "50").out
    operator("logs", "--name", "word-count", "-o", tmp_path)
    assert "counting words" in (tmp_path / "node1/logs/program_app.log").read_text()
    assert list((tmp_path / "node2").rglob("worker-*.out"))


def test_stop_leaves_nothing(lab: Lab, operator: Operator, counting_known: list[Any]) -> None:
    assert {process.host for process in counting_known} == {"node1", "node2"}
    operator.start("stop", "--name", "word-count").end(0, within=120)
    assert left(lab, "word-count", counting_known) == []
    operator("cleanup", "--name", "word-count")
    assert lab.leftovers("word-count", counting_known) == []


@pytest.fixture(scope="module")
def reported(operator: Operator) -> Result:
    return operator.start("run", "-c", operator.directory / "report.yaml").end(0, within=READY_SECONDS)


@pytest.fixture(scope="module")
def report(operator: Operator, reported: Result, tmp_path_factory: pytest.TempPathFactory) -> Any:
    assert "report/0 has finished " in reported.out or "report/0 is ready " in reported.out  # as fast as its tasks are
    end = time.monotonic() + READY_SECONDS
    while operator("status", "--name", "report", "--json", exits=None).json["state"] != "finished":
        assert time.monotonic() < end
        time.sleep(1)
    into = tmp_path_factory.mktemp("logs")
    operator("logs", "--name", "report", "-o", into)
    assert (into / "node1/logs/app/note.log").read_text() == "kept"
    lines = (into / "node1/logs/program_report.log").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("REPORT ")]
    return json.loads(line.removeprefix("REPORT "))


def test_options_of_the_configuration_win(report: Any) -> None:
    assert [task["resources"] for task in report["tasks"]] == [{"GPU": 1.0, "CPU": 0.5}] * 2


def test_tasks_read_the_configuration_wherever_they_run(report: Any) -> None:
    assert {task["secret"] for task in report["tasks"]} <= {"open-sesame", "[REDACTED]"}
    assert report["config"] == {"any": {"thing": [1, 2.5, "3"]}}


def test_the_configuration_is_its_owners(lab: Lab, report: Any) -> None:
    for host in lab.hosts:
        state = host.directory / f"home/.flagscale-deploy/report/{host.name}"
        assert stat.S_IMODE((state / "secrets/config.yaml").stat().st_mode) == 0o600
        assert "open-sesame" not in (state / "record.json").read_text()


def test_it_is_finished_and_its_cluster_waits_for_stop(lab: Lab, operator: Operator, report: Any) -> None:
    status = operator("status", "--name", "report", "--json").json
    assert (status["state"], [instance["state"] for instance in status["instances"]]) == ("finished", ["finished"])
    processes = lab.processes("report")
    operator.start("stop", "--name", "report").end(0, within=120)
    assert left(lab, "report", processes) == []
    assert operator("status", "--name", "report", "--json").json["state"] == "stopped"


def test_one_that_fails_is_taken_down_with_its_error(lab: Lab, operator: Operator, report: Any) -> None:
    failed = operator.start("run", "-c", operator.directory / "report.yaml", "+experiment.envs.ENDS_WITH=7")
    output = failed.end(5, within=READY_SECONDS).said
    assert "report/0 ended" in output
    assert "with exit status 7" in output
    assert left(lab, "report", []) == []


@pytest.fixture(scope="module")
def words(tiny_model: Path) -> list[str]:
    flags = {"model-tag": tiny_model, "served-model-name": "tiny", "max-model-len": 512, "max-num-seqs": 4}
    env = tiny.environment(tiny_model) | {"FORK_ENGINE": 1}
    return [
        tiny.WITHOUT_DASHBOARD,
        *(f"++model_args.vllm_model.{name}={value}" for name, value in flags.items()),
        *(f"++experiment.envs.{name}={value}" for name, value in env.items()),
        "model_args.vllm_model.action-args=[enforce-eager]",
        "~model_args.vllm_model.gpu-memory-utilization",
    ]


@pytest.fixture(scope="module")
def serving(operator: Operator, words: list[str]) -> Result:
    return operator.start("run", "-c", EXAMPLES / "vllm_in_a_task.yaml", *words).end(0, within=READY_SECONDS)


def test_a_completion_comes_from_wherever_it_runs(operator: Operator, serving: Result) -> None:
    assert operator("call", "Say something.", "--name", "vllm-in-a-task", "--max-tokens", "8").out.strip()
    (endpoint,) = [line.split()[1] for line in serving.out.splitlines() if line.startswith("endpoint ")]
    assert get(f"{endpoint}/v1/models")["data"][0]["id"] == "tiny"


def test_stop_ends_the_server_in_the_task_too(lab: Lab, operator: Operator, serving: Result) -> None:
    processes = lab.processes("vllm-in-a-task")
    assert any("vllm serve" in process.command for process in processes)
    operator.start("stop", "--name", "vllm-in-a-task").end(0, within=120)
    assert left(lab, "vllm-in-a-task", processes) == []
