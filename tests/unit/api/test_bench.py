"""`bench` over hosts that are functions: what it runs and writes, what it refuses, and how it says what failed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flagscale_deploy import api
from flagscale_deploy.api.benchmarking import BenchOptions, BenchReport, bench_json
from flagscale_deploy.cli import cli
from flagscale_deploy.deploy.benchmark import Load, Point
from flagscale_deploy.errors import BusyError, FaultsError, InputError, RemoteError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.output.bench import show_bench
from flagscale_deploy.output.console import Console
from tests.fakes import Exit, Output, Stderr
from tests.unit.api.world import World

RESULT = {"completed": 2, "failed": 0, "duration": 1.0, "output_throughput": 50.0, "p50_ttft_ms": 10.0,
          "p99_ttft_ms": 20.0, "request_goodput": 1.0}  # fmt: skip
OPTIONS = BenchOptions((Point("1"), Point("inf")), Load(num_prompts=2))
IDLE = {"running": 0.0, "waiting": 0.0}


class Bench:
    """A deployment that runs, and what its hosts do when a benchmark is started there."""

    def __init__(self, directory: Path) -> None:
        self.world = World(directory)
        api.run(self.world.request())
        self.metrics: dict[str, float] | None = IDLE
        self.outputs: list[Output] = [json.dumps(RESULT).encode()]
        self.world.alter = self.altered

    def altered(self, _host: Host, module: str, outputs: Iterable[Output]) -> Iterable[Output]:
        if module == "":
            return self.outputs
        if module == "inspect":
            given = [output for output in outputs if isinstance(output, dict)]
            return [
                {**reply, "instances": {"qwen/0": {**reply["instances"]["qwen/0"], "metrics": self.metrics}}}
                for reply in given
            ]
        return outputs

    def __call__(self, options: BenchOptions = OPTIONS) -> BenchReport:
        self.world.calls.clear()
        return api.bench(self.world.request(), options)

    @property
    def started(self) -> list[tuple[str, str]]:
        """Return on which hosts benchmarks were started, and how."""
        return [(call.host, call.args["command"]) for call in self.world.calls if call.module == ""]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_points_are_measured_one_after_the_other_and_written(bench: Bench) -> None:
    report = bench()
    assert [(point["rate"], point["completed"]) for point in report.points] == [("1", 2), ("inf", 2)]
    assert [host for host, _ in bench.started] == ["gpu01", "gpu01"]
    assert report.exit_code == 0
    assert json.loads((report.folder / "bench.json").read_text()) == json.loads(json.dumps(bench_json(report)))
    assert [host for host, _ in (bench(BenchOptions((Point(),), source="gpu02")), bench.started)[1]] == ["gpu02"]


def test_a_models_own_code_runs_where_the_configuration_says_so_and_not_by_the_word_of_a_host(bench: Bench) -> None:
    for record in bench.world.records.values():
        record["instances"][0]["argv"].append("--trust-remote-code")
    bench()
    assert not any("--trust-remote-code" in command for _, command in bench.started)
    request = bench.world.request()
    (model,) = request.serve.models
    trusting = replace(request.serve, models=(replace(model, action_args=("trust-remote-code",)),))
    bench.world.calls.clear()
    api.bench(replace(request, spec=trusting), OPTIONS)
    assert all("--trust-remote-code" in command for _, command in bench.started)


def test_the_table_has_the_percentiles_of_each_point(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    show_bench(Console(), bench())
    shown = capsys.readouterr().out
    assert "10.0/-/20.0" in shown
    assert "written to " in shown


@pytest.mark.parametrize(
    ("metrics", "problem"),
    [({"running": 1.0, "waiting": 2.0}, "has 3 requests of others"), (None, "does not count its requests")],
)
def test_others_are_not_disturbed_unless_forced(bench: Bench, metrics: dict[str, float] | None, problem: str) -> None:
    bench.metrics = metrics
    with pytest.raises(BusyError, match=problem):
        bench()
    assert bench.started == []
    assert len(bench(BenchOptions((Point(),), force=True)).points) == 1


def test_a_baseline_that_is_better_than_its_limit_allows_exits_with_1(bench: Bench, tmp_path: Path) -> None:
    first = bench()
    limits = {"ttft_p99": 20.0, "output_throughput": 20.0}
    for baseline in (str(first.folder), str(first.folder / "bench.json"), first.folder.name):
        again = bench(BenchOptions(OPTIONS.points, OPTIONS.load, baseline=baseline, limits=limits))
        assert (again.exit_code, again.regressions) == (0, ())
    bench.outputs = [json.dumps(RESULT | {"p99_ttft_ms": 25.0}).encode()]
    worse = bench(BenchOptions(OPTIONS.points, OPTIONS.load, baseline=str(first.folder), limits=limits))
    assert worse.exit_code == 1
    assert worse.regressions[0] == "rate 1: ttft_p99 is worse by 25.0 %: 20.00 → 25.00 (limit 20 %)"
    with pytest.raises(InputError, match=r"does not have the point rate 7\n.*it has: rate 1; rate inf"):
        bench(BenchOptions((Point("7"),), baseline=str(first.folder), limits=limits))
    (tmp_path / "wrong.json").write_text("[]")
    for wrong in (tmp_path / "wrong.json", tmp_path / "nosuch"):
        with pytest.raises(InputError, match=r"--baseline|nosuch"):
            bench(BenchOptions((Point("1"),), baseline=str(wrong), limits=limits))
    assert bench.started == []


def test_requests_that_failed_exit_with_1(bench: Bench) -> None:
    bench.outputs = [json.dumps(RESULT | {"completed": 1, "failed": 1}).encode()]
    assert bench().exit_code == 1
    bench.outputs = [json.dumps(RESULT | {"completed": 0, "failed": 2}).encode()]
    with pytest.raises(RemoteError, match="gpu01: not one request was answered"):
        bench()


@pytest.mark.parametrize(
    ("printed", "code", "remedy"),
    [
        ("there is no command vllm", 127, "install vLLM in the environment of gpu01"),
        ("ImportError: Please install vllm[bench] for custom datasets", 1, r"pip install 'vllm\[bench\]'"),
        ("ModuleNotFoundError: No module named 'pandas'", 1, r"pip install 'vllm\[bench\]'"),
        ("vllm: error: unrecognized arguments: --x", 2, "use a newer one"),
        ("boom", 1, "the end of what it printed"),
    ],
)
def test_a_benchmark_that_fails_says_what_to_do(bench: Bench, printed: str, code: int, remedy: str) -> None:
    bench.outputs = [Stderr(printed.encode()), Exit(code)]
    with pytest.raises(RemoteError, match=rf"(?s)exit status {code} \(rate 1\): .*{remedy}"):
        bench()


@pytest.mark.parametrize("output", [b"", b"{", b"[" * 100_000, b"\xff" * 99, b'{"completed": "2"}', b"{}"])
def test_a_result_that_is_none_is_an_error_of_its_host(bench: Bench, output: bytes) -> None:
    bench.outputs = [output]
    with pytest.raises(RemoteError, match="gpu01: the result of the benchmark cannot be read"):
        bench()


def test_what_was_measured_before_a_failure_is_kept(bench: Bench, tmp_path: Path) -> None:
    results: Iterator[list[Output]] = iter([bench.outputs, [Stderr(b"boom"), Exit(1)]])
    altered = bench.altered
    bench.world.alter = lambda host, module, given: next(results) if module == "" else altered(host, module, given)
    before = set(tmp_path.rglob("bench.json"))
    with pytest.raises(RemoteError, match="boom"):
        bench()
    (written,) = set(tmp_path.rglob("bench.json")) - before
    assert [point["rate"] for point in json.loads(written.read_text())["points"]] == ["1"]


def test_hosts_and_models_that_are_not_there_are_named(bench: Bench) -> None:
    with pytest.raises(InputError, match="--from: gpu09 is no host"):
        bench(BenchOptions((Point(),), source="gpu09"))
    with pytest.raises(InputError, match="--model: no model of this name: big"):
        bench(BenchOptions((Point(),), model="big"))
    bench.world.running = False
    with pytest.raises(FaultsError, match="nothing of it runs any more"):
        bench()


@pytest.mark.parametrize(
    "words",
    [
        ["--rate", "0"], ["--rate", "1,x"], ["--rate", "-1"], ["--rate", ""], ["--rate", "nan"], ["--concurrency", "0"],
        ["--concurrency", "1.5"], ["--goodput", "ttft"], ["--goodput", "itl:5"], ["--baseline", "x"],
        ["--max-regression", "ttft_p99=20%"], ["--max-regression", "ttft=20%", "--baseline", "x"],
        ["--max-regression", "ttft_p99=x", "--baseline", "x"], ["--max-regression", "ttft_p99", "--baseline", "x"],
        ["--rate", ",".join(map(str, range(1, 102)))], ["--num-prompts", "0"],
    ],
)  # fmt: skip
def test_bad_points_goals_and_limits_are_bad_input(words: list[str], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["bench", "-i", "localhost", "--name", "q", *words])
    assert result.exit_code == 2, result.output
    assert words[0] in result.stderr
