"""Progress in vLLM's log: a recorded one as a whole, and lines of other ways to serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from flagscale_deploy.diagnosis.progress import ASKING, Progress, Start, engine_progress

LOG = Path(__file__).parent / "vllm-0.32-cpu-two-hosts.log"


def steps(lines: list[str]) -> list[tuple[str, float | None]]:
    start = Start()
    progress = [start.read(line) for line in lines]
    return [(step.stage, step.percent) for step in progress if step is not None]


def test_a_start_over_two_hosts_is_told_stage_by_stage() -> None:
    assert steps(LOG.read_text(encoding="utf-8").splitlines()) == [
        ("reading the model's configuration", None),
        ("starting the engine", None),
        ("initializing the engine", None),
        ("asking Ray for GPUs", None),
        ("starting workers", None),
        ("loading weights", 0.0),
        ("loading weights", 100.0),
        ("weights loaded", None),
        ("allocating the KV cache", None),
        ("engine initialized", None),
        ("starting the server", None),
        ("answering", None),
    ]


@pytest.mark.parametrize(
    ("line", "stage", "percent"),
    [
        ("INFO api_server.py:238] vLLM API server version 0.6.6", "reading the model's configuration", None),
        ("(APIServer pid=7) INFO [utils.py:1] Waiting for 1 local, 0 remote core engine proc(s) to start.",
         "starting the engine", None),
        ("INFO llm_engine.py:98] Initializing an LLM engine (v0.6.1) with config: model='m'",
         "initializing the engine", None),
        ("(Worker_TP1 pid=8) INFO [pynccl.py:148] vLLM is using nccl==2.27.5", "connecting ranks", None),
        ("(VllmWorkerProcess pid=9) INFO [worker.py:1] hello", "starting workers", None),
        ("Multi-thread loading shards:  40% Completed | 4/10 [00:01<00:02,  3.00it/s]", "loading weights", 40.0),
        ("Loading pt checkpoint shards:  75% Completed | 3/4 [00:01<00:00,  2.00it/s]", "loading weights", 75.0),
        ("INFO [gpu_model_runner.py:5150] Model loading took 14.2 GiB memory and 5.1 seconds", "weights loaded", None),
        ("INFO [backends.py:1167] Dynamo bytecode transform time: 6.10 s", "compiling", None),
        ("INFO [monitor.py:20] torch.compile took 25.10 s in total", "compiling", None),
        ("INFO [gpu_worker.py:760] Available KV cache memory: 53.1 GiB", "allocating the KV cache", None),
        ("INFO executor_base.py:110] # CUDA blocks: 27000, # CPU blocks: 4681", "allocating the KV cache", None),
        ("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  51%|█████     | 26/51 [00:01<00:01]",
         "capturing graphs", 51.0),
        ("INFO [entry.py:140] Starting vLLM server on http://0.0.0.0:8000", "starting the server", None),
    ],
)  # fmt: skip
def test_a_line_tells_the_stage(line: str, stage: str, percent: float | None) -> None:
    progress = engine_progress(line)
    assert progress is not None
    assert (progress.stage, progress.percent) == (stage, percent)


@pytest.mark.parametrize(
    "line",
    [
        "",
        '(APIServer pid=7) INFO: 127.0.0.1:1 - "GET /health HTTP/1.1" 200 OK',
        "(EngineCore pid=7) INFO [kernel.py:467] Final IR op priority after setting platform defaults",
        "(EngineCore pid=7) WARNING [vllm.py:1703] Enforce eager set, disabling torch.compile, CUDAGraphs",
    ],
)
def test_other_lines_tell_nothing(line: str) -> None:
    assert engine_progress(line) is None


def test_a_start_never_goes_back() -> None:
    bar = "Loading safetensors checkpoint shards:  {}% Completed | 1/4"
    lines = [bar.format(25), bar.format(0), "Starting to load model m...", bar.format(25), bar.format(50)]
    assert steps([*lines, "Loading weights took 1 seconds", bar.format(75)]) == [
        ("loading weights", 25.0),
        ("loading weights", 50.0),
        ("weights loaded", None),
    ]


def test_nothing_of_the_log_comes_after_health() -> None:
    start = Start()
    assert start.advance(ASKING) == ASKING
    assert start.advance(ASKING) is None
    assert start.read("INFO:     Application startup complete.") is None
    assert start.now == ASKING


def test_no_percentage_is_above_a_hundred() -> None:
    assert engine_progress("Loading pt checkpoint shards: 120% Completed | 6/5") == Progress(
        "loading weights", 100.0, 7
    )
