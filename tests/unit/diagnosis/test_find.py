"""Error texts that users meet, each as the program that writes it does, and the diagnosis made of them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pytest
import yaml

from flagscale_deploy.diagnosis.clocks import Clock
from flagscale_deploy.diagnosis.find import Diagnosis, diagnose, error_lines
from flagscale_deploy.diagnosis.log_lines import clean
from flagscale_deploy.diagnosis.table import Signature, match, signatures
from flagscale_deploy.logs import diagnose_folder

LOGS = Path(__file__).parent
QUOTED: dict[str, list[str | dict[str, str]]] = yaml.safe_load((LOGS / "samples.yaml").read_text())
SAMPLES = {name: [line if isinstance(line, str) else line["line"] for line in lines] for name, lines in QUOTED.items()}
FORMATTED = [line for lines in QUOTED.values() for line in lines if isinstance(line, dict)]
MEASURED = sorted(path.name for path in (LOGS / "recorded").iterdir())
"""Failures that were provoked with the real programs: the logs as `logs -o` collects them, in folders named like the
table's entry, or `<entry>.<what else shows it>`."""
UNRECORDED: dict[str, str] = yaml.safe_load((LOGS / "unrecorded.yaml").read_text())
"""Entries that have no recorded log, and why."""
ENGINE_LOGS = sorted(Path(__file__).parent.glob("vllm-*.log"))
LEVELS = {entry.name: entry.level for entry in signatures()}

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
During handling of the above exception, another exception occurred:
""".splitlines()

CAUSE = "(EngineCore pid=7) ERROR 11-22 11:05:09 [core.py:100] KeyError: 'layers.0.mlp.weight'"


def of(*lines: str, host: str = "gpu01", file: str = "engine.log") -> tuple[str, str, Iterable[str]]:
    return host, file, lines


def test_there_is_a_sample_for_every_entry_of_the_table() -> None:
    assert sorted(SAMPLES) == sorted(LEVELS)
    assert len(LEVELS) >= 50


@pytest.mark.parametrize(
    ("name", "line"), [(name, line) for name, lines in SAMPLES.items() for line in lines], ids=lambda text: text[:40]
)
def test_a_sample_is_its_entrys_and_no_others(name: str, line: str) -> None:
    entry = match(clean(line))
    assert entry is not None
    assert entry.name == name
    diagnosis = diagnose([of("INFO starting", line, *CONSEQUENCES)])
    if LEVELS[name] == "never":
        assert diagnosis is None
    else:
        assert diagnosis is not None
        assert (diagnosis.signature, diagnosis.line, diagnosis.source) == (name, clean(line), entry.source)
        assert diagnosis.cause
        assert diagnosis.remedy


@pytest.mark.parametrize("path", ENGINE_LOGS, ids=lambda path: path.name)
def test_an_engine_that_started_well_has_no_cause(path: Path) -> None:
    assert diagnose([of(*path.read_text().splitlines())]) is None


@pytest.mark.parametrize("sample", FORMATTED, ids=lambda sample: sample["of"])
def test_a_line_that_nobody_has_seen_is_its_format_with_values_put_in(sample: dict[str, str]) -> None:
    fixed = re.split(r"\{[^{}]*\}", sample["format"])
    assert re.fullmatch(".+".join(map(re.escape, fixed)), sample["line"])
    assert re.fullmatch(r"[\w/]+\.py:[\w.]+", sample["of"])


@pytest.mark.parametrize("entry", signatures(), ids=lambda entry: entry.name)
def test_an_entry_says_where_it_is_from(entry: Signature) -> None:
    """An issue or page, the source that writes it, a script of ours; or it was measured, and there is the log."""
    if entry.source.startswith("measured with "):
        assert entry.name in recorded_entries()
        return
    source = r"(?:vLLM 0\.32|Ray 2\.60|transformers, as vLLM 0\.32 has it): [\w/.]+"
    assert re.match(rf"https://\S+|{source}|templates/\S+|Python's traceback module", entry.source)


def entry_of(folder: str) -> str:
    return folder.partition(".")[0]


def recorded_entries() -> set[str]:
    """Entries that a line of any recorded log is, named or not."""
    files = [path for path in (LOGS / "recorded").rglob("*") if path.is_file() and path.name != "told.yaml"]
    lines = {clean(line) for path in files for line in path.read_text().splitlines()}
    return {entry.name for entry in map(match, lines) if entry is not None}


def test_every_entry_has_a_recorded_log_or_a_reason_why_not() -> None:
    """Of what is never named it is enough that it stands in a recorded log."""
    silent = {name for name in recorded_entries() if LEVELS[name] == "never"}
    recorded = {entry_of(name) for name in MEASURED} | silent
    assert recorded & UNRECORDED.keys() == set(), "these have a log: take them out of unrecorded.yaml"
    assert recorded | UNRECORDED.keys() == LEVELS.keys()
    assert all(UNRECORDED.values())


@pytest.mark.parametrize("name", MEASURED)
def test_a_failure_that_was_provoked_has_its_cause(name: str) -> None:
    expected = yaml.safe_load((LOGS / "recorded" / name / "told.yaml").read_text())
    assert expected["made"]
    diagnosis = diagnose_folder(LOGS / "recorded" / name / "logs")
    if LEVELS[entry_of(name)] == "never":
        assert diagnosis is None
        return
    assert diagnosis is not None
    assert (diagnosis.signature, diagnosis.host) == (entry_of(name), expected["host"])
    assert expected["says"] in diagnosis.line


@pytest.mark.parametrize("line", HARMLESS, ids=lambda text: text[-30:])
def test_what_a_healthy_engine_says_is_no_error(line: str) -> None:
    assert diagnose([of(line)]) is None
    assert error_lines([line]) == []


@pytest.mark.parametrize("line", CONSEQUENCES, ids=lambda text: text[:30])
def test_a_consequence_is_never_the_cause(line: str) -> None:
    assert diagnose([of(line)]) is None
    assert diagnose([of(line, CAUSE, line)]) == Diagnosis("gpu01", "engine.log", "KeyError: 'layers.0.mlp.weight'")


def test_a_known_text_wins_over_any_other_error_on_any_host() -> None:
    diagnosis = diagnose([
        of("ERROR something", CAUSE),
        of("KeyError: 'x'", "OSError: [Errno 28] No space left on device", host="gpu02", file="raylet.out"),
        of("RuntimeError: y", host="gpu03"),
    ])  # fmt: skip
    assert diagnosis is not None
    assert (diagnosis.host, diagnosis.file, diagnosis.cause) == ("gpu02", "raylet.out", "a disk is full")


def test_without_times_what_is_nearer_to_the_cause_wins_whichever_comes_first() -> None:
    near, far = "bash: line 1: ray: command not found", "OSError: [Errno 28] No space left on device"
    for lines in ((near, far), (far, near)):
        diagnosis = diagnose([of(*lines)])
        assert diagnosis is not None
        assert diagnosis.line == near


def line_of(diagnosis: Diagnosis | None) -> str:
    assert diagnosis is not None
    return diagnosis.line


FAR = "OSError: [Errno 28] No space left on device"
STAMPS = {
    "vLLM": "ERROR 11-22 10:26:0{} [core.py:1] {}",
    "vLLM, with fractions": "(Worker pid=7) ERROR 11-22 10:26:0{}.250 [core.py:1] {}",
    "Ray's daemons": "[2026-11-22 10:26:0{},123 E 7 7] (raylet) main.cc:1: {}",
    "Ray's Python": "2026-11-22 10:26:0{},123\tERROR worker.py:1 -- {}",
    "torch": "[rank0]:[E1122 10:26:0{}.408271257 ProcessGroupNCCL.cpp:607] {}",
}


@pytest.mark.parametrize("form", STAMPS.values(), ids=STAMPS.keys())
def test_the_earliest_cause_of_all_hosts_is_named_first(form: str) -> None:
    late = of(STAMPS["vLLM"].format(5, "ImportError: Failed to import Ray."), host="gpu01")
    soon = of(form.format(4, FAR), host="gpu02")
    for logs in ([late, soon], [soon, late]):
        diagnosis = diagnose(logs)
        assert diagnosis is not None
        assert (diagnosis.host, diagnosis.signature) == ("gpu02", "disk-full")
    later = diagnose([late, of(form.format(6, FAR), host="gpu02")])
    assert later is not None
    assert later.host == "gpu01"


def test_within_a_second_a_file_is_read_in_its_own_order() -> None:
    """Times of vLLM are whole seconds, those of torch and Ray are not."""
    first = "[W1123 21:01:40.769759079 socket.cpp:207] Warning: the hostname cannot be resolved"
    later = CAUSE.replace("11-22 11:05:09", "11-23 21:01:40")
    diagnosis = diagnose([of(first, "ray.exceptions.NodeDiedError: gone", later)])
    assert diagnosis is not None
    assert "NodeDiedError" in diagnosis.line


def test_a_worker_that_ended_belongs_to_the_host_that_rays_head_names() -> None:
    beginning = (
        "(gcs_server) gcs_worker_manager.cc:70: Reporting worker exit, address = 10.0.0.2, exit_type = SYSTEM_ERROR, "
    )
    line = beginning + "exit_detail = Worker unexpectedly exits with a connection error code 2. End of file."
    diagnosis = diagnose([of(line, file="gcs_server.out")], addresses={"10.0.0.2": "gpu02"})
    assert diagnosis is not None
    assert (diagnosis.host, diagnosis.signature) == ("gpu02", "worker-died")


def test_a_socket_that_rays_driver_sees_closed_is_not_named_before_the_worker_that_died() -> None:
    """Recorded: the driver's own log had it 0.1 s before Ray knew whose socket it was."""
    closed = (
        "[2026-11-23 21:22:08,130 W 1962 1990] task_manager.cc:1678: failed, status RpcError: RPC error: Socket closed"
    )
    died = (
        "(raylet) A worker died: Worker IP address: 10.0.0.2, Worker unexpectedly exits with a connection error code 2"
    )
    logs = [of("2026-11-23 21:22:09,000 INFO worker.py:1841", died), of(closed, file="python-core-driver-02_1962.log")]
    diagnosis = diagnose(logs, addresses={"10.0.0.2": "gpu02"})
    assert diagnosis is not None
    assert (diagnosis.host, diagnosis.signature) == ("gpu02", "worker-died")


def test_an_actor_that_died_belongs_to_the_host_that_stands_below_its_exception() -> None:
    lines = ["ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.",
            "\tclass_name: RayWorkerProc", "\tpid: 2653", "\tip: 10.0.0.2", "The actor is dead"]  # fmt: skip
    prefix = "(EngineCore pid=596) ERROR 11-23 21:01:40 [core.py:1510] "
    diagnosis = diagnose([of(*(prefix + line for line in lines))], addresses={"10.0.0.2": "gpu02"})
    assert diagnosis is not None
    assert (diagnosis.host, diagnosis.signature) == ("gpu02", "worker-died")


def test_a_line_without_a_time_is_as_old_as_the_one_before_it() -> None:
    logs = [
        of("INFO 11-22 10:26:04 [a.py:1] x", FAR, host="gpu02"),
        of("INFO 11-22 10:26:05 [a.py:1] x", "ray: not found", host="gpu01"),
    ]
    assert line_of(diagnose(logs)) == FAR


def test_a_clock_that_is_ahead_is_set_right() -> None:
    logs = [
        of(STAMPS["vLLM"].format(4, "x: ray: not found"), host="gpu01"),
        of(STAMPS["vLLM"].format(9, FAR), host="gpu02"),
    ]
    assert line_of(diagnose(logs)) == "x: ray: not found"
    assert line_of(diagnose(logs, clocks={"gpu02": Clock(skew=60.0)})) == FAR


def test_the_old_year_comes_before_the_new_one() -> None:
    logs = [of("ERROR 01-01 00:00:01 [a.py:1] x: ray: not found"), of(f"ERROR 12-31 23:59:59 [a.py:1] {FAR}", file="b")]
    assert line_of(diagnose(logs)) == FAR


def test_at_the_same_time_the_order_of_the_hosts_does_not_matter() -> None:
    logs = [of(STAMPS["vLLM"].format(4, FAR), host=f"gpu0{at}") for at in range(3)]
    assert {(diagnose(order) or Diagnosis("", "", "")).host for order in (logs, logs[::-1])} == {"gpu00"}


ACTOR = (
    "(EngineCore pid=1) ERROR 11-22 10:26:0{} [core.py:1] ray.exceptions.ActorDiedError: The actor died unexpectedly"
)


def test_a_consequence_is_named_only_where_nothing_earlier_is_known() -> None:
    unknown = "ERROR 11-22 10:26:05 [core.py:1] KeyError: 'x'"
    assert line_of(diagnose([of(ACTOR.format(6)), of(unknown, host="gpu02")])) == "KeyError: 'x'"
    assert "ActorDiedError" in line_of(diagnose([of(ACTOR.format(4)), of(unknown, host="gpu02")]))
    assert "ActorDiedError" in line_of(diagnose([of(ACTOR.format(4), *CONSEQUENCES)]))
    assert line_of(diagnose([of(ACTOR.format(4), f"ERROR 11-22 10:26:09 [a.py:1] {FAR}")])) == FAR


def test_a_cause_belongs_to_the_host_that_ray_says_it_came_from() -> None:
    line = (
        "\x1b[36m(RayWorkerProc pid=267, ip=10.0.0.2)\x1b[0m (Worker_TP1 pid=267) ERROR 11-22 10:26:00 [w.py:1] " + FAR
    )
    diagnosis = diagnose([of(line)], addresses={"10.0.0.2": "gpu02"})
    assert diagnosis is not None
    assert (diagnosis.host, diagnosis.line) == ("gpu02", FAR)
    unnamed = diagnose([of(line)])
    assert unnamed is not None
    assert unnamed.host == "10.0.0.2"


REMOTE = """\
(Core pid=1) ERROR 11-22 10:26:00 [core.py:1] Traceback (most recent call last):
(Core pid=1) ERROR 11-22 10:26:00 [core.py:1]   File "/opt/v/worker.py", line 7, in get
(Core pid=1) ERROR 11-22 10:26:00 [core.py:1]     raise OSError("No space left on device")
(Core pid=1) ERROR 11-22 10:26:00 [core.py:1] ray.exceptions.RayTaskError(SafetensorError): ray::RayWorkerWrapper.\
execute_method() (pid=880, ip=10.0.0.2, actor_id=9)
(Core pid=1) ERROR 11-22 10:26:00 [core.py:1]   File "/opt/v/weights.py", line 9, in load
(Core pid=1) ERROR 11-22 10:26:00 [core.py:1]     with safe_open(file) as f:  # address already in use
(Core pid=1) ERROR 11-22 10:26:00 [core.py:1] SafetensorError: Error while deserializing header: incomplete metadata
(EngineCore pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
""".splitlines()


def test_of_a_traceback_the_exceptions_line_is_quoted_and_its_frames_are_not_read() -> None:
    diagnosis = diagnose([of(*REMOTE)], addresses={"10.0.0.2": "gpu02"})
    assert diagnosis is not None
    assert diagnosis.line == "SafetensorError: Error while deserializing header: incomplete metadata"
    assert (diagnosis.host, diagnosis.signature) == ("gpu02", "weights-broken")


RECORDED = {
    "rank-killed-while-loading.log": ("gpu02", "worker-died"),
    "raylet-killed-while-serving.log": ("gpu01", "raylet-died"),
}
"""Logs of `vllm serve` (vLLM 0.32 and Ray 2.60 over two hosts), and what is told of them. What Ray prints of a raylet
bears no address."""


@pytest.mark.parametrize(("name", "expected"), RECORDED.items())
def test_recorded_failures_have_their_cause(name: str, expected: tuple[str, str]) -> None:
    lines = (Path(__file__).parent / name).read_text().splitlines()
    diagnosis = diagnose([of(*lines)], addresses={"10.77.0.11": "gpu01", "10.77.0.12": "gpu02"})
    assert diagnosis is not None
    assert (diagnosis.host, diagnosis.signature) == expected
    assert len(diagnosis.line) < 600
    assert not [line for line in error_lines(lines, most=99) if line.startswith(("class_name", "actor_id", "File"))]


GLOO = (
    "[W1123 20:48:06.1000 ProcessGroupWrapper.cpp:1] RuntimeError: [pair.cc:547] Connection closed by peer [10.77.0.11]"
)


def test_what_another_host_sees_of_an_end_gives_way_to_who_ended_whatever_the_times_are() -> None:
    """Raylet and GCS were killed on gpu01: gpu02's rank had lost its connection before Ray said anything."""
    lines = (Path(__file__).parent / "raylet-killed-while-serving.log").read_text().splitlines()
    seen = of("INFO 11-23 20:48:05 [a.py:1] x", GLOO, host="gpu02", file="worker-5276.err")
    for logs in ([of(*lines), seen], [seen, of(*lines)]):
        diagnosis = diagnose(logs, addresses={"10.77.0.11": "gpu01", "10.77.0.12": "gpu02"})
        assert diagnosis is not None
        assert (diagnosis.host, diagnosis.signature) == ("gpu01", "raylet-died")
    alone = diagnose([seen])
    assert alone is not None
    assert (alone.host, alone.signature, alone.level) == ("gpu02", "connection-lost", "echo")


def test_an_end_that_only_rays_daemons_tell_of_is_named_before_its_echo() -> None:
    exited = "Worker unexpectedly exits with a connection error code 2. End of file."
    report = (
        f"[2026-11-23 20:48:16,100 W 7 7] (gcs_server) w.cc:70: Reporting worker exit, address = 10.0.0.2, {exited}"
    )
    seen = of("INFO 11-23 20:48:05 [core.py:1] x", GLOO, host="gpu01")
    diagnosis = diagnose([seen, of(report, file="gcs_server.out")], addresses={"10.0.0.2": "gpu02"})
    assert diagnosis is not None
    assert (diagnosis.host, diagnosis.signature) == ("gpu02", "worker-died")


def test_rays_daemons_are_believed_last() -> None:
    logs = [of("RuntimeError: of the dashboard", file="dashboard.log"), of("ERROR in the engine", host="gpu02")]
    assert line_of(diagnose(logs)) == "ERROR in the engine"
    assert line_of(diagnose(logs[:1])) == "RuntimeError: of the dashboard"


def test_an_exceptions_own_line_wins_over_what_calls_itself_an_error() -> None:
    diagnosis = diagnose(
        [of("ERROR 11-22 11:05:09 [core.py:99] EngineCore failed to start.", CAUSE, "ValueError: later")]
    )
    assert diagnosis is not None
    assert diagnosis.line == "KeyError: 'layers.0.mlp.weight'"


def test_nothing_wrong_is_nothing() -> None:
    assert diagnose([]) is None
    assert diagnose([of(*HARMLESS)]) is None


def test_an_exception_that_says_nothing_is_shown_with_the_line_that_raised_it() -> None:
    prefix = "(Worker pid=7) ERROR 11-25 02:34:25 [multiproc_executor.py:953] "
    lines = [
        "Traceback (most recent call last):",
        '  File "linear.py", line 7, in __init__',
        "    assert all(size % self.tp == 0 for size in sizes)",
        "           ^^^^^^^^",
        "AssertionError",
    ]
    expected = "AssertionError: assert all(size % self.tp == 0 for size in sizes)"
    for traceback in (lines, lines[:3] + lines[4:]):
        assert line_of(diagnose([of(*(prefix + line for line in traceback))])) == expected
    assert line_of(diagnose([of(*lines[:4], "ValueError: x")])) == "ValueError: x"


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
    lines_with_errors = error_lines(f"{prefix}{line}" for line in [*lines, cause])
    assert lines_with_errors == [cause]


ANSWERS = "INFO 01-01 00:00:00 [x.py:1] Application startup complete"
COSTLY: dict[str, list[str]] = {
    "processes that err and processes that reply": [
        ANSWERS,
        *(f"(p pid={at}) ERROR x" for at in range(20_000)),
        *(f'(p pid={at}) INFO: "POST / HTTP/1.1" 200 O' for at in range(20_000)),
    ],
    "one after the other": [
        ANSWERS,
        *chain.from_iterable(
            (f"(p pid={at}) ERROR x", f'(q pid={at}) INFO: "POST / HTTP/1.1" 200 O') for at in range(20_000)
        ),
    ],
    "long lines": ["x" * 8192] * 20_000,
    "tracebacks": ["Traceback (most recent call last)", "    x", "FooError: b"] * 200_000,
}
"""What a host may write that takes minutes to read: all of it is in a few MiB."""


@pytest.mark.parametrize("lines", COSTLY.values(), ids=COSTLY.keys())
def test_no_host_makes_a_diagnosis_last(lines: list[str]) -> None:
    began = time.thread_time()
    hostile = [("gpu02", f"engine{at}.log", lines) for at in range(5)]
    diagnosis = diagnose([*hostile, of(CAUSE)], seconds=0.5)
    assert time.thread_time() - began < 10
    assert diagnosis is not None
    assert CAUSE.endswith(diagnosis.line)
    assert diagnosis.note == "logs of gpu02 take too long to read: their rest was left out"
    unhurried = diagnose([of(CAUSE)])
    assert unhurried is not None
    assert unhurried.note == ""
