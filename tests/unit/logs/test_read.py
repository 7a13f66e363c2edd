from __future__ import annotations

import itertools
import threading
import tracemalloc
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.errors import RemoteError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.logs import LineSelection, diagnose, diagnose_folder, read, read_logs
from tests.fakes import FakeFleet, Output, silence_until
from tests.unit.deploy.given import answering


def test_lines_are_handed_on_with_host_and_file() -> None:
    def follow(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        yield {"file": "logs/e.log", "lines": [f"{host.name} one", "two"]}
        yield {"file": "logs/r.log", "lines": ["three"]}
        yield {"file": "logs/e.log", "lines": ["four"]}

    seen: list[tuple[str, str, str]] = []
    adding = threading.Lock()

    def show(host: str, file: str, lines: Sequence[str]) -> None:
        with adding:
            seen.extend((host, file, line) for line in lines)

    fleet = FakeFleet(answering(follow=follow), ["gpu01", "gpu02"])
    assert read_logs(fleet, "qwen", show, LineSelection(10, ["engine"])).files == {"gpu01": 2, "gpu02": 2}
    assert [line for line in seen if line[0] == "gpu02"] == [
        ("gpu02", "logs/e.log", "gpu02 one"), ("gpu02", "logs/e.log", "two"), ("gpu02", "logs/r.log", "three"),
        ("gpu02", "logs/e.log", "four"),
    ]  # fmt: skip
    sent = {tuple(sorted(call.args)) for call in fleet.calls}
    assert sent == {("clock", "deployment", "follow", "host", "kinds", "tail")}


def test_all_hosts_are_followed_at_once_however_many() -> None:
    meeting = threading.Barrier(5)

    def follow(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        meeting.wait(10)
        yield {"file": "e", "lines": ["x"]}

    fleet = FakeFleet(answering(follow=follow), [f"gpu0{at}" for at in range(5)], forks=2)
    files = read_logs(fleet, "qwen", lambda *_: None, follow=True).files
    assert set(files.values()) == {1}


def write(folder: Path, name: str, *lines: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def test_the_cause_is_found_in_collected_logs_of_any_host(tmp_path: Path) -> None:
    write(tmp_path, "gpu01/logs/vllm_serve_qwen_0.log", "RuntimeError: Engine core initialization failed.")
    write(
        tmp_path, "gpu02/ray/session_1/logs/worker-1-2-3.err", "INFO x", "torch.OutOfMemoryError: CUDA out of memory."
    )
    diagnosis = diagnose_folder(tmp_path)
    assert diagnosis is not None
    assert (diagnosis.host, diagnosis.file) == ("gpu02", "worker-1-2-3.err")
    assert diagnosis.cause == "the model and its KV cache do not fit into GPU memory"


def test_what_scripts_and_engines_say_comes_before_rays_own_logs(tmp_path: Path) -> None:
    write(tmp_path, "gpu01/ray/session_1/logs/raylet.err", "ValueError: of the raylet")
    write(tmp_path, "gpu02/logs/vllm_serve_qwen_0.log", "ValueError: of the engine")
    diagnosis = diagnose_folder(tmp_path)
    assert diagnosis is not None
    assert diagnosis.line == "ValueError: of the engine"


def test_scripts_and_earlier_runs_are_no_evidence(tmp_path: Path) -> None:
    write(tmp_path, "gpu01/scripts/ray_head.sh", "echo 'ERROR: No space left on device'")
    write(tmp_path, "gpu01/logs/vllm_serve_qwen_0.previous.log", "OSError: No space left on device")
    write(tmp_path, "gpu01/ray/previous-session_1/logs/raylet.out", "OSError: No space left on device")
    write(tmp_path, "gpu01/evidence/20261130-140211-qwen-0/log.txt", "OSError: No space left on device")
    write(tmp_path, "gpu01/history.jsonl", '{"reason": "OSError: No space left on device"}')
    assert diagnose_folder(tmp_path) is None


def test_only_the_end_of_a_huge_log_is_read_and_bytes_that_are_no_text_are_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnose, "DIAGNOSED_BYTES", 1000)
    path = tmp_path / "gpu01" / "logs" / "e.log"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"ValueError: long ago\n" + b"\xff" * 2000 + b"\nKeyError: 'now'\n")
    diagnosis = diagnose_folder(tmp_path)
    assert diagnosis is not None
    assert diagnosis.line == "KeyError: 'now'"


def test_an_empty_folder_has_no_cause(tmp_path: Path) -> None:
    assert diagnose_folder(tmp_path) is None


def ever(*, longest: int = 100, lines: int = 0, renamed: bool) -> Any:
    """Return a host that makes up files without end."""

    def follow(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        mark = {"device": 1, "offset": 0, "head": "", "last": "", "skipping": False}
        for inode in itertools.count():
            name = f"{inode if renamed else 0}".rjust(longest, "x")
            yield {"file": name, "lines": ["ab"] * lines, "at": {**mark, "inode": inode}}

    return follow


@pytest.mark.parametrize("longest", [100, 4000, 5000, 1 << 20])
@pytest.mark.parametrize("renamed", [True, False])
def test_files_without_end_cost_bounded_memory(monkeypatch: pytest.MonkeyPatch, renamed: bool, longest: int) -> None:
    monkeypatch.setattr(read, "MOST_NAMES", 1 << 18)
    fleet = FakeFleet(answering(follow=ever(longest=longest, renamed=renamed)))
    tracemalloc.start()
    fault = read_logs(fleet, "qwen", lambda *_: None).files["gpu01"]
    grown = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(fault, RemoteError)
    assert "characters" in fault.problem if longest > read.LONGEST_NAME else "very long names" in fault.problem
    assert grown < 32 << 20


@pytest.mark.parametrize("look", [diagnose.diagnose_ends, diagnose.loading_stages])
def test_lines_count_for_what_they_take_in_memory(monkeypatch: pytest.MonkeyPatch, look: Any) -> None:
    monkeypatch.setattr(diagnose, "ENDS_BYTES", 1 << 20)
    taken = []

    def follow(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        for reply in ever(lines=1000, renamed=True)(host, args):
            taken.append(reply)
            yield reply

    look(FakeFleet(answering(follow=follow)), "qwen")
    assert len(taken) < 100


def test_the_last_lines_of_a_host_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "TAILS_BYTES", 1 << 16)
    monkeypatch.setattr(read, "TAIL_LINE_BYTES", 1 << 10)
    shown: list[str] = []
    fleet = FakeFleet(answering(follow=ever(lines=1000, renamed=True)))
    fault = read_logs(fleet, "qwen", lambda _host, _file, lines: shown.extend(lines), LineSelection(50)).files["gpu01"]
    assert isinstance(fault, RemoteError)
    assert fault.problem == "it sends more than 114.0 KiB as the last lines of its logs"
    assert len(shown) <= 2000


def test_a_host_that_sends_nothing_keeps_the_lines_of_others_for_two_minutes_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(read, "SILENCE_SECONDS", 0.5)

    def follow(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"file": "logs/e.log", "lines": [host.name]}
        yield from silence_until(threading.Event(), 20.0)

    silent = FakeFleet(answering(follow=follow), ["gpu01"])
    fault = read_logs(silent, "qwen", lambda *_: None).files["gpu01"]
    assert isinstance(fault, RemoteError)
    assert fault.problem == "no answer within 0.5 s"


def test_a_host_whose_program_sends_nothing_at_all_has_not_told_that_there_is_nothing() -> None:
    fleet = FakeFleet(answering(follow=lambda _host, _args: []))
    fault = read_logs(fleet, "qwen", lambda *_: None).files["gpu01"]
    assert isinstance(fault, RemoteError)
    assert fault.problem == "follow: the host program ended without a reply"
