from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.errors import HostError, UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.logs import Collected, collect_logs, diagnose_folder, read_logs
from tests.fakes import Exit, FakeFleet, Said, Stderr
from tests.unit.acts.given import answering

Change = Callable[[tarfile.TarInfo], None]


def archive(*members: tuple[str, bytes] | tuple[str, bytes, Change]) -> bytes:
    """A tar stream as `remote/archive.py` writes it; a change may make a member something else."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w|") as tar:
        for name, content, *changes in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for change in changes:
                assert callable(change)
                change(member)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def sending(*said: Said, at_once: int = 1000) -> Any:
    def send(_host: Host, _args: dict[str, Any]) -> Iterable[Said]:
        yield {"archive": True}
        for each in said:
            if isinstance(each, bytes) and not isinstance(each, Stderr):
                yield from (each[at : at + at_once] for at in range(0, len(each), at_once))
            else:
                yield each

    return send


def collect(into: Path, *said: Said, at_once: int = 1000) -> Collected | HostError:
    return collect_logs(FakeFleet(answering(archive=sending(*said, at_once=at_once))), "qwen", into)["gpu01"]


def problem(found: Collected | HostError) -> str:
    assert isinstance(found, HostError)
    return found.problem


@pytest.mark.parametrize("at_once", [1, 511, 100_000])
def test_files_come_as_they_are_in_one_folder_a_host(tmp_path: Path, at_once: int) -> None:
    content = bytes(range(256)) * 7
    found = collect(tmp_path, archive(("logs/e.log", content), ("ray/s/logs/raylet.out", b"x")), at_once=at_once)
    assert isinstance(found, Collected)
    assert (tmp_path / "gpu01" / "logs" / "e.log").read_bytes() == content
    assert (tmp_path / "gpu01" / "ray" / "s" / "logs" / "raylet.out").read_bytes() == b"x"
    assert found.folder == tmp_path / "gpu01"
    assert found.files == (("logs/e.log", 1792), ("ray/s/logs/raylet.out", 1))
    assert (found.bytes, found.problems) == (1793, ())


def link(kind: bytes, target: str) -> Change:
    def change(member: tarfile.TarInfo) -> None:
        member.type, member.linkname, member.size = kind, target, 0

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("../outside", None),
        ("logs/../../outside", None),
        ("/abs/outside", None),
        ("logs/link", link(tarfile.SYMTYPE, "/etc/passwd")),
        ("logs/link", link(tarfile.LNKTYPE, "logs/a")),
        ("logs/fifo", link(tarfile.FIFOTYPE, "")),
        ("logs/device", link(tarfile.CHRTYPE, "")),
        ("logs", link(tarfile.DIRTYPE, "")),
    ],
)
def test_names_and_kinds_that_no_log_has_are_left_out_and_told(
    tmp_path: Path, name: str, change: Change | None
) -> None:
    bad = (name, b"evil", change) if change else (name, b"evil")
    found = collect(tmp_path / "in", archive(("logs/a", b"1"), bad, ("logs/b", b"2")))
    assert isinstance(found, Collected)
    assert [file for file, _ in found.files] == ["logs/a", "logs/b"]
    assert len(found.problems) == 1
    assert "not a plain file below the folder; left out" in found.problems[0]
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir())
    assert files == ["in/gpu01/logs/a", "in/gpu01/logs/b"]


def test_a_link_followed_by_a_file_below_it_leads_nowhere_else(tmp_path: Path) -> None:
    evil = archive(("logs/x", b"", link(tarfile.SYMTYPE, str(tmp_path))), ("logs/x/outside", b"evil"))
    collect(tmp_path / "in", evil)
    assert not (tmp_path / "outside").exists()


def test_what_did_not_come_whole_is_told(tmp_path: Path) -> None:
    errors = json.dumps([{"name": "logs/e.log", "why": "it shrank while it was read: the last 5 bytes are zeros"}])
    found = collect(tmp_path, archive(("logs/e.log", b"x"), (".errors.json", errors.encode())))
    assert isinstance(found, Collected)
    assert found.problems == ("logs/e.log: it shrank while it was read: the last 5 bytes are zeros",)
    assert not (tmp_path / "gpu01" / ".errors.json").exists()


def test_a_stream_that_breaks_off_is_an_error_and_what_came_is_kept(tmp_path: Path) -> None:
    whole = archive(("logs/a", b"1" * 600), ("logs/b", b"2" * 60_000))
    assert "logs came broken" in problem(collect(tmp_path, whole[:5000]))
    assert (tmp_path / "gpu01" / "logs" / "a").read_bytes() == b"1" * 600


def test_a_program_that_fails_behind_a_whole_stream_is_still_an_error(tmp_path: Path) -> None:
    said = problem(collect(tmp_path, archive(("logs/a", b"1")), Stderr(b"disk gone\n"), Exit(1)))
    assert said == "archive: exit status 1: disk gone"


def test_garbage_is_an_error(tmp_path: Path) -> None:
    assert "logs came broken" in problem(collect(tmp_path, b"this is no tar" * 100))


def test_a_program_that_sends_nothing_is_an_error(tmp_path: Path) -> None:
    fleet = FakeFleet(answering(archive=lambda _host, _args: []))
    assert "ended early" in problem(collect_logs(fleet, "qwen", tmp_path)["gpu01"])


def test_a_disk_of_ours_that_cannot_be_written_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = problem(collect(tmp_path / "file", archive(("logs/a", b"1"))))
    assert "logs cannot be written to" in said
    assert str(tmp_path / "file") in said


def test_a_lost_host_does_not_keep_the_others_logs_away(tmp_path: Path) -> None:
    refused = {"gpu02": UnreachableError("gpu02", "no answer")}
    fleet = FakeFleet(answering(archive=sending(archive(("logs/a", b"1")))), ["gpu01", "gpu02"], refused=refused)
    found = collect_logs(fleet, "qwen", tmp_path)
    assert isinstance(found["gpu01"], Collected)
    assert found["gpu02"] is refused["gpu02"]


def test_lines_are_handed_on_with_host_and_file() -> None:
    def follow(host: Host, args: dict[str, Any]) -> Iterable[Said]:
        yield {"file": "logs/e.log", "lines": [f"{host.name} one", "two"]}
        yield {"file": "logs/r.log", "lines": ["three"]}
        yield {"file": "logs/e.log", "lines": ["four"]}

    seen: list[tuple[str, str, str]] = []
    adding = threading.Lock()

    def show(host: str, file: str, line: str) -> None:
        with adding:
            seen.append((host, file, line))

    fleet = FakeFleet(answering(follow=follow), ["gpu01", "gpu02"])
    assert read_logs(fleet, "qwen", show, tail=10, follow=False, kinds=["engine"]) == {"gpu01": 2, "gpu02": 2}
    assert [each for each in seen if each[0] == "gpu02"] == [
        ("gpu02", "logs/e.log", "gpu02 one"), ("gpu02", "logs/e.log", "two"), ("gpu02", "logs/r.log", "three"),
        ("gpu02", "logs/e.log", "four"),
    ]  # fmt: skip
    assert {tuple(sorted(call.args)) for call in fleet.calls} == {("deployment", "follow", "host", "kinds", "tail")}


def test_all_hosts_are_followed_at_once_however_many() -> None:
    meeting = threading.Barrier(5)

    def follow(_host: Host, _args: dict[str, Any]) -> Iterable[Said]:
        meeting.wait(10)
        yield {"file": "e", "lines": ["x"]}

    fleet = FakeFleet(answering(follow=follow), [f"gpu0{at}" for at in range(5)], forks=2)
    found = read_logs(fleet, "qwen", lambda *_: None, tail=None, follow=True, kinds=None)
    assert set(found.values()) == {1}


def write(folder: Path, name: str, *lines: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def test_the_cause_is_found_in_collected_logs_of_any_host(tmp_path: Path) -> None:
    write(tmp_path, "gpu01/logs/vllm_serve_qwen_0.log", "RuntimeError: Engine core initialization failed.")
    write(
        tmp_path, "gpu02/ray/session_1/logs/worker-1-2-3.err", "INFO x", "torch.OutOfMemoryError: CUDA out of memory."
    )
    found = diagnose_folder(tmp_path)
    assert found is not None
    assert (found.host, found.file) == ("gpu02", "worker-1-2-3.err")
    assert found.cause == "the model with its KV cache does not fit"


def test_what_scripts_and_engines_say_comes_before_rays_own_logs(tmp_path: Path) -> None:
    write(tmp_path, "gpu01/ray/session_1/logs/raylet.err", "ValueError: of the raylet")
    write(tmp_path, "gpu02/logs/vllm_serve_qwen_0.log", "ValueError: of the engine")
    found = diagnose_folder(tmp_path)
    assert found is not None
    assert found.line == "ValueError: of the engine"


def test_scripts_and_earlier_runs_are_no_evidence(tmp_path: Path) -> None:
    write(tmp_path, "gpu01/scripts/ray_head.sh", "echo 'ERROR: No space left on device'")
    write(tmp_path, "gpu01/logs/vllm_serve_qwen_0.previous.log", "OSError: No space left on device")
    write(tmp_path, "gpu01/ray/previous-session_1/logs/raylet.out", "OSError: No space left on device")
    assert diagnose_folder(tmp_path) is None


def test_only_the_end_of_a_huge_log_is_read_and_bytes_that_are_no_text_are_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flagscale_deploy import logs

    monkeypatch.setattr(logs, "DIAGNOSED_BYTES", 1000)
    path = tmp_path / "gpu01" / "logs" / "e.log"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"ValueError: long ago\n" + b"\xff" * 2000 + b"\nKeyError: 'now'\n")
    found = diagnose_folder(tmp_path)
    assert found is not None
    assert found.line == "KeyError: 'now'"


def test_an_empty_folder_has_no_cause(tmp_path: Path) -> None:
    assert diagnose_folder(tmp_path) is None
