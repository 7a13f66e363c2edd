"""Error texts that users meet, each as the program that writes it does, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from flagscale_deploy.diagnose import Diagnosis, clean, diagnose, error_lines, signatures

EXAMPLES = {
    "bash: line 4: ray: command not found": "environment with Ray is not active",
    "/state/scripts/ray_head.sh: line 9: exec: ray: not found": "environment with Ray is not active",
    "ImportError: Failed to import Ray. Make sure it is installed": "environment with Ray is not active",
    "ModuleNotFoundError: No module named 'ray'": "environment with Ray is not active",
    "/state/scripts/vllm_serve_q_0.sh: line 12: exec: vllm: not found": "environment with vLLM is not active",
    "before_start failed: it ended this script with exit status 7": "before_start failed",
    "vllm: error: unrecognized arguments: --enable-chunked-prefil": "does not know a flag",
    "vllm serve: error: argument --dtype: invalid choice: 'fp7'": "does not know a flag",
    "RuntimeError: Version mismatch: The cluster was started with:": "Ray or Python differ between hosts",
    "ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken": "Ray's token is missing",
    "Ray's head 10.0.0.1:6379 cannot be reached from here (waited 180 s)": "cannot reach the head's Ray port",
    "RuntimeError: Failed to connect to GCS at address 10.0.0.1:6379 within 5 seconds":
        "cannot reach the head's Ray port",
    "Error: No available node types can fulfill resource request {'node:10.0.0.9': 0.001, 'GPU': 1.0}":
        "VLLM_HOST_IP differs",
    "ValueError: Cannot provide a placement group requiring 16 GPUs": "fewer GPUs free in Ray",
    "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name'": "path does not exist",
    "OSError: Can't load the configuration of '/models/Qwen'. If you were trying to load it": "path does not exist",
    "OSError: You are trying to access a gated repo. Cannot access gated repo for url": "token is missing",
    "requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url": "token is missing",
    "ValueError: The repository /m contains custom code which must be executed. Please pass the argument "
    "`trust_remote_code=True` to allow custom code to be run.": "code of its own",
    "RuntimeError: Failed to load the model config. If the model is a custom model not yet available in the library, "
    "consider setting `trust_remote_code=True` in LLM or using the `--trust-remote-code` flag":
        "code of its own",
    "ValueError: Free memory on device cuda:0 (3.1/79.1 GiB) on startup is less than desired GPU memory utilization":
        "another process holds memory",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB": "does not fit",
    "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`": "does not fit",
    "ValueError: The model's max seq len (131072) is larger than the maximum number of tokens that can be stored in KV "
    "cache (1024)": "KV cache is too small",
    "Error while creating shared memory segment /dev/shm/nccl-abc (size 9637888): No space left on device":
        "/dev/shm is too small",
    "Gloo connectFullMesh failed with [../pair.cc:144] connect remote=[127.0.0.1]:3456":
        "resolves to a loopback address",
    "[W] Unable to resolve hostname to a (local) address. Using the loopback address": "resolves to a loopback address",
    "RuntimeError: Unable to find interface for: [0.0.0.7]": "hostname is a number",
    "RuntimeError: Unable to find address for: ib7": "does not exist on this host",
    "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)": "NCCL cannot use",
    "OSError: [Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use":
        "a port is taken",
    "listen tcp 0.0.0.0:6379: bind: EADDRINUSE": "a port is taken",
    "ConnectionError: Ray is trying to start at 10.0.0.1:6379, but is already running at 10.0.0.1:6380":
        "a port is taken",
    "OSError: [Errno 24] Too many open files": "limit of open files",
    "OSError: AF_UNIX path length cannot exceed 107 bytes: /very/long": "too long a name",
    "RuntimeError: The NVIDIA driver on your system is too old (found version 11040)": "driver or the wheel",
    "RuntimeError: CUDA error: no kernel image is available for execution on the device": "driver or the wheel",
    "PermissionError: [Errno 13] Permission denied: '/tmp/ray'": "another user's",
    "TimeoutError: Timed out waiting for engine core processes to start. This is often caused by slow weights":
        "takes longer than vLLM waits",
    "OSError: [Errno 28] No space left on device": "a disk is full",
}  # fmt: skip

HARMLESS = """\
(APIServer pid=1013) INFO 11-22 11:05:09 [api_utils.py:286] non-default args: {'trust_remote_code': True}
(EngineCore pid=14) INFO 11-22 11:05:09 [core.py:90] Initializing a V1 LLM engine: trust_remote_code=True
INFO 11-22 11:05:09 [shm_broadcast.py:501] No available shared memory broadcast block found in 60 seconds.
INFO 11-22 11:05:09 [ray_utils.py:300] Waiting for creating a placement group of specs for 10 seconds.
WARNING 11-22 11:05:09 [system_utils.py:255] Found ulimit of 20000 and failed to automatically increase with error \
current limit exceeds maximum limit. This can cause fd limit errors like `OSError: [Errno 24] Too many open files`.
INFO:     Application startup complete.
Loading safetensors checkpoint shards: 100% Completed | 4/4 [00:10<00:00,  2.5s/it]
(APIServer pid=1013) INFO 11-22 11:06:09 [loggers.py:1] Avg prompt throughput: 0.0 tokens/s
""".splitlines()

CONSEQUENCES = """\
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
(APIServer pid=1) vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace above
During handling of the above exception, another exception occurred:
""".splitlines()

CAUSE = "(EngineCore pid=7) ERROR 11-22 11:05:09 [core.py:100] KeyError: 'layers.0.mlp.weight'"


def of(*lines: str, host: str = "gpu01", file: str = "engine.log") -> tuple[str, str, Iterable[str]]:
    return host, file, lines


@pytest.mark.parametrize(("line", "cause"), EXAMPLES.items(), ids=lambda text: text[:40])
def test_a_known_text_has_a_cause_and_a_remedy(line: str, cause: str) -> None:
    found = diagnose([of("INFO starting", line, *CONSEQUENCES)])
    assert found is not None
    assert found.line == line
    assert cause in found.cause
    assert found.remedy


def test_every_entry_of_the_table_is_the_first_to_match_an_example() -> None:
    winners = {next(at for at, each in enumerate(signatures()) if each.regex.search(line)) for line in EXAMPLES}
    assert [each.regex.pattern for at, each in enumerate(signatures()) if at not in winners] == []


@pytest.mark.parametrize("line", HARMLESS, ids=lambda text: text[-30:])
def test_what_a_healthy_engine_says_is_no_error(line: str) -> None:
    assert diagnose([of(line)]) is None
    assert error_lines([line]) == []


@pytest.mark.parametrize("line", CONSEQUENCES, ids=lambda text: text[:30])
def test_a_consequence_is_never_the_cause(line: str) -> None:
    assert diagnose([of(line)]) is None
    assert diagnose([of(line, CAUSE, line)]) == Diagnosis("gpu01", "engine.log", "KeyError: 'layers.0.mlp.weight'")


def test_a_known_text_wins_over_any_other_error_on_any_host() -> None:
    found = diagnose([
        of("ERROR something", CAUSE),
        of("KeyError: 'x'", "OSError: [Errno 28] No space left on device", host="gpu02", file="raylet.out"),
        of("RuntimeError: y", host="gpu03"),
    ])  # fmt: skip
    assert found is not None
    assert (found.host, found.file, found.cause) == ("gpu02", "raylet.out", "a disk is full")


def test_what_is_nearer_to_the_cause_wins_whichever_comes_first() -> None:
    near, far = "bash: line 1: ray: command not found", "OSError: [Errno 28] No space left on device"
    for lines in ((near, far), (far, near)):
        found = diagnose([of(*lines)])
        assert found is not None
        assert found.line == near


def test_an_exceptions_own_line_wins_over_what_calls_itself_an_error() -> None:
    found = diagnose([of("ERROR 11-22 11:05:09 [core.py:99] EngineCore failed to start.", CAUSE, "ValueError: later")])
    assert found is not None
    assert found.line == "KeyError: 'layers.0.mlp.weight'"


def test_nothing_wrong_is_nothing() -> None:
    assert diagnose([]) is None
    assert diagnose([of(*HARMLESS)]) is None


def test_error_lines_are_few_and_each_once() -> None:
    lines = [
        *HARMLESS,
        CAUSE,
        CAUSE,
        "RuntimeError: second",
        *CONSEQUENCES,
        *(f"ERROR number {at}" for at in range(20)),
    ]
    assert error_lines(lines)[:3] == ["KeyError: 'layers.0.mlp.weight'", "RuntimeError: second", "ERROR number 0"]
    assert len(error_lines(lines)) == 8
    assert len(error_lines(lines, most=3)) == 3


@pytest.mark.parametrize(
    ("line", "cleaned"),
    [
        (CAUSE, "KeyError: 'layers.0.mlp.weight'"),
        ("\x1b[36m(RayWorkerWrapper pid=99, ip=10.0.0.2)\x1b[0m ERROR 11-22 11:05:09 [worker.py:1] boom", "boom"),
        ("  indented", "indented"),
        ("plain", "plain"),
        ("", ""),
        ("   ", "   "),
    ],
)
def test_the_prefixes_of_vllm_and_ray_are_taken_off(line: str, cleaned: str) -> None:
    assert clean(line) == cleaned


def test_a_diagnosis_reads_well() -> None:
    assert str(Diagnosis("gpu01", "e.log", "boom", "a cause", "a remedy")) == (
        "gpu01: e.log: boom\n    cause: a cause\n    → a remedy"
    )
    assert str(Diagnosis("gpu01", "e.log", "boom")) == "gpu01: e.log: boom"


def test_what_an_exception_says_comes_before_the_traceback_that_vllm_logs_line_by_line() -> None:
    prefix = "(Worker pid=14832) ERROR 11-22 11:50:57 [multiproc_executor.py:953] "
    lines = [
        "WorkerProc failed to start.",
        "Traceback (most recent call last):",
        '  File "worker.py", line 920, in main',
    ]
    cause = "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata"
    found = error_lines(f"{prefix}{line}" for line in [*lines, cause])
    assert found[:2] == [cause, "WorkerProc failed to start."]
