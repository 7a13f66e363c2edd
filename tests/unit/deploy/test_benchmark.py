"""What `vllm bench serve` is given and what it leaves, whatever the version; and what counts as worse."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.deploy.benchmark import (
    METRICS,
    Load,
    Point,
    PointFigures,
    ResultError,
    command,
    points,
    read_baseline,
    read_result,
    regressions,
    script,
)
from flagscale_deploy.deploy.server_status import InstanceStatus
from flagscale_deploy.transport.base import ending_with_input
from tests.lab.product.operator import eventually

NEW = {
    "duration": 2.0, "completed": 4, "failed": 0, "request_throughput": 2.0, "request_goodput": 1.5,
    "output_throughput": 8.0, "total_token_throughput": 24.0, "max_concurrent_requests": 4,
    **{f"p{percent}_{name}_ms": float(percent) for name in ("ttft", "tpot", "itl", "e2el") for percent in (50, 90, 99)},
}  # fmt: skip
OLD = {
    "duration": 2, "completed": 3, "request_throughput": 2, "request_goodput:": 1.5, "output_throughput": 8,
    "median_ttft_ms": 50, "p99_ttft_ms": 99, "p90_ttft_ms": float("nan"), "p99_itl_ms": None,
}  # fmt: skip
LOAD = Load(num_prompts=4)
ENGINE = InstanceStatus(
    "q/0", "q", 0, "ready", "gpu01", ("gpu01",), {}, "http://h:1/v1", "qwen",
    argv=("vllm", "serve", "/m 'x", "--tokenizer=/t", "--port=1", "--trust-remote-code"),
)  # fmt: skip


def test_points_are_all_pairs_once() -> None:
    assert points((), ()) == (Point("inf", None),)
    assert points(("1", "inf", "1"), (2, 8)) == (Point("1", 2), Point("1", 8), Point("inf", 2), Point("inf", 8))


def test_the_command_has_the_engines_model_and_tokenizer_and_goals_last() -> None:
    words = command(ENGINE, "http://h:1", Load(goodput=("ttft:500", "tpot:50")), Point("2", 8))
    assert words[:3] == ["vllm", "bench", "serve"]
    assert {"--model=/m 'x", "--served-model-name=qwen", "--tokenizer=/t", "--trust-remote-code"} < {*words}
    assert {"--request-rate=2", "--max-concurrency=8", "--base-url=http://h:1"} < {*words}
    assert "--port=1" not in words
    assert words[-3:] == ["--goodput", "ttft:500", "tpot:50"]
    words = command(ENGINE, "http://h:1", Load(dataset="sharegpt", dataset_path="/d"), Point())
    assert "--dataset-path=/d" in words
    assert not any(word.startswith(("--random", "--max-concurrency", "--ignore-eos")) for word in words)


def test_results_of_new_and_old_versions_are_read() -> None:
    new = read_result(json.dumps(NEW).encode(), LOAD, Point("1", 2))
    assert set(new["metrics"]) == set(METRICS)
    assert (new["rate"], new["concurrency"], new["completed"], new["failed"]) == ("1", 2, 4, 0)
    assert (new["metrics"]["ttft_p90"], new["metrics"]["goodput"]) == (90.0, 1.5)
    old = read_result(json.dumps(OLD).encode(), LOAD, Point())
    assert old["failed"] == 1, "versions that do not count them"
    assert old["metrics"] == {
        "ttft_p50": 50.0, "ttft_p99": 99.0, "request_throughput": 2.0, "output_throughput": 8.0, "goodput": 1.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "[" * 100_000, "{}", '{"completed": true}', '{"completed": -1}', '{"completed": 1e9}',
             '{"completed": %s}' % ("9" * 5000), "\0", '"x"', '{"completed": null}'],
)  # fmt: skip
def test_what_is_no_result_is_refused(text: str) -> None:
    with pytest.raises(ResultError):
        read_result(text.encode(), LOAD, Point())


def test_hostile_values_are_left_out() -> None:
    chance = random.Random(4)
    values: list[Any] = [None, True, "1", [1], {}, 10**400, float("inf"), float("nan"), -1, 0]
    for _ in range(300):
        result = {name: chance.choice(values) for name in NEW} | {"completed": 1}
        figures = read_result(json.dumps(result).encode(), LOAD, Point())
        json.dumps(figures, allow_nan=False)
        assert set(figures["metrics"]) <= set(METRICS)


def measured(**metrics: float) -> PointFigures:
    return {"rate": "1", "concurrency": None, "duration": 1.0, "completed": 1, "failed": 0, "metrics": metrics}


def test_latencies_get_worse_upwards_and_throughput_downwards() -> None:
    before = {Point("1"): {"ttft_p99": 100.0, "output_throughput": 100.0, "itl_p50": 0.0}}
    limits = {"ttft_p99": 20.0, "output_throughput": 20.0}
    assert regressions([measured(ttft_p99=120.0, output_throughput=80.0)], before, limits) == []
    assert regressions([measured(ttft_p99=1.0, output_throughput=900.0)], before, limits) == []
    assert regressions([measured(ttft_p99=121.0, output_throughput=79.0)], before, limits) == [
        "rate 1: ttft_p99 is worse by 21.0 %: 100.00 → 121.00 (limit 20 %)",
        "rate 1: output_throughput is worse by 21.0 %: 100.00 → 79.00 (limit 20 %)",
    ]
    assert len(regressions([measured(itl_p50=1.0)], before, {"itl_p50": 500.0})) == 1
    assert regressions([measured()], before, {"ttft_p99": 1.0}) == ["rate 1: this measurement has no ttft_p99"]
    assert regressions([measured(goodput=1.0)], before, {"goodput": 1.0}) == ["rate 1: the baseline has no goodput"]


def test_a_baseline_is_what_was_written() -> None:
    text = json.dumps({"points": [measured(ttft_p99=5.0) | {"more": 1}], "schema": 1})
    assert read_baseline(text) == {Point("1"): {"ttft_p99": 5.0}}
    hostile = ["", "[]", "{}", '{"points": 1}', '{"points": [1]}', '{"points": [{"rate": 1}]}', "[" * 99_999,
               '{"points": [{"rate": 1, "concurrency": [], "metrics": {}}]}',
               '{"points": [{"rate": 1, "concurrency": 1, "metrics": []}]}']  # fmt: skip
    for wrong in hostile:
        with pytest.raises(ResultError):
            read_baseline(wrong)


def prepared(tmp_path: Path, vllm: str, environment: str = "") -> tuple[str, dict[str, str]]:
    """Return the script and variables for a home that has secrets, with a command `vllm` of this shell text."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "state/secrets").mkdir(parents=True)
    (tmp_path / "state/secrets/env").write_text("VLLM_API_KEY='sk-a b'\n")
    result_dir = "for word; do case $word in --result-dir=*) at=${word#*=};; esac; done\n"
    (tmp_path / "bin/vllm").write_text(f"#!/bin/bash\n{result_dir}{vllm}")
    (tmp_path / "bin/vllm").chmod(0o755)
    text = script(command(ENGINE, "http://h:1", Load(), Point()), "http://h:1", "state", environment)
    return text, {"HOME": str(tmp_path), "TMPDIR": str(tmp_path / "tmp"), "PATH": f"{tmp_path}/bin:/usr/bin:/bin"}


def run(tmp_path: Path, vllm: str, environment: str = "") -> subprocess.CompletedProcess[str]:
    text, variables = prepared(tmp_path, vllm, environment)
    done = subprocess.run(["bash", "-c", text], env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert list((tmp_path / "tmp").iterdir()) == []
    return done


def test_a_benchmark_that_is_interrupted_ends_and_leaves_nothing(tmp_path: Path) -> None:
    text, variables = prepared(tmp_path, 'echo $$ >"$at/pid"\nmv "$at/pid" "$at/began"\nsleep 600\n')
    words = ending_with_input(text, "bash")
    with subprocess.Popen(words, env=variables, stdin=subprocess.PIPE, start_new_session=True) as running:
        assert running.stdin is not None
        assert eventually(lambda: [*tmp_path.glob("tmp/*/began")])
        (began,) = tmp_path.glob("tmp/*/began")
        process = Path("/proc") / began.read_text().strip()
        assert process.exists()
        running.stdin.close()
        assert eventually(lambda: not process.exists() and not [*(tmp_path / "tmp").iterdir()])


def test_the_script_prints_the_result_alone_and_hands_the_key_on_in_the_environment(tmp_path: Path) -> None:
    vllm = (
        'echo noise\necho "$OPENAI_API_KEY|$no_proxy|$*" >"$HOME/given"\necho \'{"completed": 4}\' >"$at/result.json"\n'
    )
    done = run(tmp_path, vllm, "echo hook\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, '{"completed": 4}\n', "hook\n")
    key, direct, words = (tmp_path / "given").read_text().split("|")
    assert (key, direct) == ("sk-a b", "h")
    assert "--model=/m 'x" in words
    assert "sk-a" not in words


@pytest.mark.parametrize(("vllm", "code"), [("echo why\nexit 7\n", 7), ("echo why\n", 1)])
def test_a_benchmark_that_fails_or_leaves_nothing_has_its_last_words_shown(
    tmp_path: Path, vllm: str, code: int
) -> None:
    done = run(tmp_path, vllm)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "why\n")
