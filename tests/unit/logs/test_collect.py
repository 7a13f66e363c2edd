"""Collected logs: what a host sends is taken as far as it makes sense. `sending` is a stand-in for the host's side."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from flagscale_deploy.errors import HostError, RemoteError, UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.logs import Collected, FileSelection, collect_logs, receive, store
from flagscale_deploy.logs import collect as collecting
from tests.fakes import Exit, FakeFleet, Output, Stderr
from tests.other_user import needs_root
from tests.unit.deploy.given import HOSTS, answering, archived

BEGIN: Output = {"archive": 2}
END: Output = {"end": True, "why": ""}
DONE: Output = {"done": True, "older": 0}


PACK: dict[str, Callable[[bytes], bytes]] = {"zlib": zlib.compress, "zstd": zstandard.ZstdCompressor().compress}
BOMBS = {by: pack(bytes(1000)) for by, pack in PACK.items()}


def file(name: str, content: bytes = b"x", **more: Any) -> list[Output]:
    """Return the messages that send a file."""
    begin = {"file": name, "size": len(content), "at": 0, "mtime": 1.0e9, **more}
    return [begin, {"data": len(content)}, content, END]


def sending(*outputs: Output, at_once: int = 1000) -> Any:
    """Return a host that sends this, whatever it is asked for."""

    def send(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        for output in outputs:
            if isinstance(output, bytes) and not isinstance(output, Stderr):
                yield from (output[at : at + at_once] for at in range(0, len(output), at_once))
            else:
                yield output

    return send


def collect(into: Path, *outputs: Output, at_once: int = 1000, **wanted: Any) -> Collected | HostError:
    fleet = FakeFleet(answering(archive=sending(*outputs, at_once=at_once)))
    return collect_logs(fleet, "qwen", into, selection=FileSelection(**wanted))["gpu01"]


def whole(into: Path, *outputs: Output, **settings: Any) -> Collected:
    """Collect from a host that begins and ends as it should."""
    collected = collect(into, BEGIN, *outputs, DONE, **settings)
    assert isinstance(collected, Collected), collected
    return collected


def problem(result: Collected | HostError) -> str:
    assert isinstance(result, HostError)
    return result.problem


def lies_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("at_once", [1, 511, 100_000])
def test_files_come_as_they_are_in_one_folder_a_host(tmp_path: Path, at_once: int) -> None:
    content = bytes(range(256)) * 7
    collected = whole(tmp_path, *file("logs/e.log", content), *file("ray/s/logs/raylet.out"), at_once=at_once)
    assert lies_in(tmp_path) == {"gpu01/logs/e.log": content, "gpu01/ray/s/logs/raylet.out": b"x"}
    assert collected.folder == tmp_path / "gpu01"
    assert collected.files == (("logs/e.log", 1792), ("ray/s/logs/raylet.out", 1))
    assert (collected.bytes, collected.received, collected.problems, collected.limit) == (1793, 1793, (), "")


@pytest.mark.parametrize("at_once", [1, 100_000])
@pytest.mark.parametrize("by", PACK)
def test_pieces_that_came_packed_are_what_they_were(tmp_path: Path, by: str, at_once: int) -> None:
    content = b"a line of a log\n" * 500
    packed = PACK[by](content)
    begin = {"file": "logs/e.log", "size": len(content) + 1, "at": 0, "mtime": 1.0}
    piece = {"data": len(content), "packed": len(packed), "by": by}
    collected = whole(tmp_path, begin, piece, packed, {"data": 1}, b"z", END, at_once=at_once)
    assert lies_in(tmp_path) == {"gpu01/logs/e.log": content + b"z"}
    assert (collected.received, collected.problems) == (len(content) + 1, ())


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    whole(tmp_path / "new" / "logs", *file("ray/s/raylet.out"))
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"new": 0o700, "logs": 0o700, "gpu01": 0o700, "ray": 0o700, "s": 0o700, "raylet.out": 0o600}


HOSTILE = {
    "a way up": "../outside",
    "a way up within": "logs/../../outside",
    "an absolute path": "/tmp/outside",
    "nothing": "",
    "a dot": "logs/./a",
    "two slashes": "logs//a",
    "a folder": "logs/",
    "NUL": "logs/a\0b",
    "the list of what was cut": ".cut.json",
    "a long name": "logs/" + "x" * 256,
    "a long path": "/".join(["x" * 200] * 30),
    "a deep path": "/".join("x" * 1000),
    "a folder where a file is": "logs/a/b",
    "a file where a folder is": "ray/s",
    "the second of a name": "logs/a",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE.keys())
def test_names_that_no_log_has_are_left_out_and_told(tmp_path: Path, name: str) -> None:
    before, behind = [*file("logs/a", b"1"), *file("ray/s/r", b"2")], file("logs/b", b"3")
    collected = whole(tmp_path / "in", *before, *file(name, b"evil"), *behind)
    assert [file for file, _ in collected.files] == ["logs/a", "ray/s/r", "logs/b"]
    assert len(collected.problems) == 1
    assert collected.problems[0].endswith("; left out")
    assert lies_in(tmp_path) == {"in/gpu01/logs/a": b"1", "in/gpu01/ray/s/r": b"2", "in/gpu01/logs/b": b"3"}


NAMES = st.binary(max_size=300) | st.lists(
    st.sampled_from([b"..", b".", b"", b"a", b"logs", b"\xff", b"x" * 255, b"a\nb", b"\x1b[2J"]), max_size=6
).map(b"/".join)


@settings(deadline=None)
@given(st.lists(NAMES, max_size=8))
def test_whatever_names_come_nothing_is_written_outside(
    tmp_path_factory: pytest.TempPathFactory, names: list[bytes]
) -> None:
    place = tmp_path_factory.mktemp("any")
    sent = itertools.chain.from_iterable(file("", b"evil", bytes=name.hex()) for name in names)
    collected = whole(place / "in", *sent)
    outside = [path for path in place.rglob("*") if path.is_file() and place / "in" / "gpu01" not in path.parents]
    assert outside == []
    assert len(collected.files) + len(collected.problems) == len(names)


@pytest.mark.parametrize("name", [b"logs/a\xff\xfe.log", b"logs/a\nb", b"logs/\\xff", "logs/ü☃".encode(), b"-rf"])
def test_names_are_what_they_are_on_the_host(tmp_path: Path, name: bytes) -> None:
    whole(tmp_path, *file("shown", bytes=name.hex()))
    assert [os.fsencode(path) for path in lies_in(tmp_path / "gpu01")] == [name]


def lay(path: Path, kind: str, outside: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "hard link":
        os.link(outside, path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder"])
def test_what_an_earlier_run_left_in_the_folder_leads_nowhere_else(tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    lay(tmp_path / "in" / "gpu01" / "logs" / "a", kind, outside)
    collected = whole(tmp_path / "in", *file("logs/a", b"evil"), *file("logs/b", b"1"))
    assert outside.read_bytes() == b"precious"
    assert (tmp_path / "in/gpu01/logs/b").read_bytes() == b"1"
    assert collected.problems, "it is said that something lay there"


@pytest.mark.parametrize("where", ["in/gpu01/logs", "in/gpu01"])
def test_a_linked_folder_leads_nowhere_else(tmp_path: Path, where: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / where).parent.mkdir(parents=True)
    (tmp_path / where).symlink_to(tmp_path / "outside")
    collect(tmp_path / "in", BEGIN, *file("logs/a", b"evil"), DONE)
    assert list((tmp_path / "outside").iterdir()) == []


@needs_root
@pytest.mark.parametrize(("there", "sent"), [(b"", b"secret\n"), (b"secret", b"secret\n")])
def test_no_file_of_another_user_is_written_to_or_read(tmp_path: Path, there: bytes, sent: bytes) -> None:
    """In /tmp they may have made the folder, and hold the file open."""
    path = tmp_path / "gpu01/logs/e.log"
    path.parent.mkdir(parents=True)
    path.write_bytes(there)
    for theirs in (path, path.parent, path.parents[1]):
        os.chown(theirs, 65534, 65534)
    fleet = FakeFleet(answering(archive=sending(BEGIN, *file("logs/e.log", sent), DONE)))
    with path.open("rb") as held:
        collect_logs(fleet, "qwen", tmp_path)
        assert held.read() == there
    assert (asked(fleet), path.stat().st_uid, path.read_bytes()) == ({}, 0, sent)


@pytest.mark.parametrize("name", [".cut.json", ".cut.json.new"])
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder", "giant", "nested", "nonsense"])
def test_what_lies_where_cut_files_are_listed_keeps_nobody_waiting(tmp_path: Path, name: str, kind: str) -> None:
    outside, path = tmp_path / "outside", tmp_path / "in/gpu01" / name
    outside.write_bytes(b"precious")
    path.parent.mkdir(parents=True)
    if kind == "giant":
        path.touch()
        os.truncate(path, 1 << 40)
    elif kind in ("nested", "nonsense"):
        path.write_text("[" * 100_000 if kind == "nested" else '{"cut": [null, {}]}')
    else:
        lay(path, kind, outside)
    begin = {"file": "logs/e.log", "size": 1006, "at": 0, "mtime": 1.0}
    parts: list[Output] = [begin, {"data": 3}, b"abc", {"cut": 1000}, {"data": 3}, b"xyz", END]
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(collect(tmp_path / "in", BEGIN, *parts, DONE)), daemon=True)
    thread.start()
    thread.join(60)
    assert done, "it waits"
    assert outside.read_bytes() == b"precious"
    if (kind, name) != ("folder", ".cut.json"):
        assert (tmp_path / "in/gpu01/logs/e.log").read_bytes().startswith(b"abc")


def test_zeros_are_holes_and_count_for_what_they_are(tmp_path: Path) -> None:
    size = 10 << 30
    begin = {"file": "logs/core", "size": size + 2, "at": 0, "mtime": 1.0}
    collected = whole(tmp_path, begin, {"data": 1}, b"a", {"zeros": size}, {"data": 1}, b"z", END, max_total=100)
    status = (tmp_path / "gpu01/logs/core").stat()
    assert status.st_size == size + 2
    assert status.st_blocks * 512 < 1 << 20
    assert collected.files == (("logs/core", size + 2),)


def test_a_middle_that_was_cut_is_told_in_the_file_and_beside_it(tmp_path: Path) -> None:
    begin = {"file": "logs/e.log", "size": 1006, "at": 0, "mtime": 1.0}
    collected = whole(tmp_path, begin, {"data": 3}, b"abc", {"cut": 1000}, {"data": 3}, b"xyz", END)
    assert (tmp_path / "gpu01/logs/e.log").read_bytes() == b"abc\n[flagscale-deploy: 1000 bytes cut]\nxyz"
    assert collected.cut == (("logs/e.log", 1000),)


def asked(fleet: FakeFleet) -> dict[str, Any]:
    return dict(fleet.sent("archive")[-1].args["have"])


def test_what_is_here_is_told_and_the_rest_of_it_is_written_behind_it(tmp_path: Path) -> None:
    whole(tmp_path, *file("logs/e.log", b"one\n"))
    more: list[Output] = [{"file": "logs/e.log", "size": 8, "at": 4, "mtime": 1.0}, {"data": 4}, b"two\n", END]
    fleet = FakeFleet(answering(archive=sending(BEGIN, *more, DONE)))
    collected = collect_logs(fleet, "qwen", tmp_path)["gpu01"]
    assert isinstance(collected, Collected)
    assert [bytes.fromhex(name) for name in asked(fleet)] == [b"logs/e.log"]
    assert lies_in(tmp_path / "gpu01") == {"logs/e.log": b"one\ntwo\n"}
    assert (collected.received, collected.bytes) == (4, 8)


def test_what_is_no_beginning_of_the_hosts_file_is_kept_beside_it(tmp_path: Path) -> None:
    whole(tmp_path, *file("logs/e.log", b"old\n"))
    collected = whole(tmp_path, *file("logs/e.log", b"new\n"))
    assert lies_in(tmp_path / "gpu01") == {"logs/e.log": b"new\n", "logs/e.log.kept-1": b"old\n"}
    assert "is not on the host any more; it is now logs/e.log.kept-1" in collected.problems[0]
    collected = whole(tmp_path, *file("logs/e.log", b"newer\n"))
    assert len(lies_in(tmp_path / "gpu01")) == 3
    assert len(collected.problems) == 1


def test_of_many_kept_files_some_are_compared_and_the_rest_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "COMPARE_SECONDS", 0.2)
    files = [message for number in range(1, 700) for message in file(f"e.log.kept-{number}", b"%06d" % number)]
    began = time.monotonic()
    whole(tmp_path, *files)
    assert time.monotonic() - began < 10  # each with all others: 60 s
    assert len(lies_in(tmp_path / "gpu01")) == 699


def test_what_was_rotated_is_not_kept_twice(tmp_path: Path) -> None:
    whole(tmp_path, *file("logs/e.log", b"old\n"))
    collected = whole(tmp_path, *file("logs/e.log", b"new\n"), *file("logs/e.log.1", b"old\nlast\n"))
    assert lies_in(tmp_path / "gpu01") == {"logs/e.log": b"new\n", "logs/e.log.1": b"old\nlast\n"}
    assert collected.problems == ()


def test_what_was_cut_is_no_beginning_and_is_replaced(tmp_path: Path) -> None:
    begin = {"file": "logs/e.log", "size": 1006, "at": 0, "mtime": 1.0}
    parts: list[Output] = [begin, {"data": 3}, b"abc", {"cut": 1000}, {"data": 3}, b"xyz", END]
    whole(tmp_path, *parts)
    fleet = FakeFleet(answering(archive=sending(BEGIN, *parts, DONE)))
    collect_logs(fleet, "qwen", tmp_path)
    assert asked(fleet) == {}
    assert set(lies_in(tmp_path / "gpu01")) == {"logs/e.log", ".cut.json"}
    whole(tmp_path, *file("logs/e.log", b"abc" + b"." * 1000 + b"xyz"))
    assert set(lies_in(tmp_path / "gpu01")) == {"logs/e.log", ".cut.json"}
    assert (tmp_path / "gpu01/logs/e.log").stat().st_size == 1006


def test_a_file_that_was_truncated_meanwhile_comes_again_and_its_rotated_copy_once(tmp_path: Path) -> None:
    half: list[Output] = [{"file": "logs/e.log", "size": 9, "at": 0, "mtime": 1.0}, {"data": 4}, b"one\n"]
    cut: Output = {"end": True, "why": "it was truncated while it was read"}
    copy, again = file("logs/e.log.1", b"one\ntwo\n"), file("logs/e.log", b"three\n", again=True)
    collected = whole(tmp_path, *half, cut, *copy, *again)
    assert lies_in(tmp_path / "gpu01") == {"logs/e.log": b"three\n", "logs/e.log.1": b"one\ntwo\n"}
    assert dict(collected.files) == {"logs/e.log": 6, "logs/e.log.1": 8}


def test_what_did_not_come_whole_is_told(tmp_path: Path) -> None:
    collected = whole(
        tmp_path, {"problem": "it could not be opened: Permission denied", "file": "logs/p"}, *file("logs/a")
    )
    assert collected.problems == ("logs/p: it could not be opened: Permission denied",)
    assert collected.files == (("logs/a", 1),)


def test_a_stream_that_breaks_off_is_an_error_and_what_came_is_kept(tmp_path: Path) -> None:
    outputs: list[Output] = [
        BEGIN,
        *file("logs/a", b"1" * 600),
        {"file": "logs/b", "size": 9000, "at": 0},
        {"data": 9000},
    ]
    assert "ended in the middle" in problem(collect(tmp_path, *outputs, b"2" * 700))
    assert lies_in(tmp_path / "gpu01") == {"logs/a": b"1" * 600, "logs/b": b"2" * 700}


SOME: Output = {"file": "a", "size": 1000, "at": 0}
NONSENSE: dict[str, list[Output]] = {
    "bytes of no file": [{"data": 1}, b"x"],
    "zeros of no file": [{"zeros": 1}],
    "a file in a file": [{"file": "a", "size": 1, "at": 0}, {"file": "b", "size": 1, "at": 0}],
    "a size beyond everything": [{"file": "a", "size": 1 << 62, "at": 0}],
    "too large a packed piece": [SOME, {"data": 2 << 20, "packed": 9, "by": "zlib"}, b"123456789"],
    "a packed piece larger than itself": [SOME, {"data": 3, "packed": 4, "by": "zlib"}, b"nope"],
    "packed in an unknown way": [SOME, {"data": 9, "packed": 4, "by": "xz"}, b"nope"],
    "packed in no way": [SOME, {"data": 9, "packed": 4}, b"nope"],
    "no end": [*file("a")],
}


for by, bomb in BOMBS.items():
    NONSENSE |= {
        f"what {by} did not pack": [SOME, {"data": 9, "packed": 4, "by": by}, b"nope"],
        f"nothing that {by} packed": [SOME, {"data": 9, "packed": 0, "by": by}, b""],
        f"a bomb of {by}": [SOME, {"data": 99, "packed": len(bomb), "by": by}, bomb],
        f"less than {by} says": [SOME, {"data": 1001, "packed": len(bomb), "by": by}, bomb],
        f"half of what {by} packed": [SOME, {"data": 1000, "packed": len(bomb) - 5, "by": by}, bomb[:-5]],
        f"something behind what {by} packed": [
            SOME, {"data": 1000, "packed": len(bomb) + 1, "by": by}, bomb + b"x"
        ],
    }  # fmt: skip


@pytest.mark.parametrize("outputs", NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_is_an_error(tmp_path: Path, outputs: list[Output]) -> None:
    assert "malformed log data" in problem(collect(tmp_path, BEGIN, *outputs))


def test_a_file_that_is_longer_than_it_said_is_not_written_further(tmp_path: Path) -> None:
    collected = whole(tmp_path, {"file": "logs/a", "size": 3, "at": 0}, {"data": 9}, b"123456789", END, *file("logs/b"))
    assert "longer than announced" in collected.problems[0]
    assert (tmp_path / "gpu01/logs/a").stat().st_size <= 3
    assert (tmp_path / "gpu01/logs/b").read_bytes() == b"x"


def test_a_program_that_fails_behind_a_whole_stream_is_still_an_error(tmp_path: Path) -> None:
    error = problem(collect(tmp_path, BEGIN, *file("logs/a", b"1"), Stderr(b"disk gone\n"), Exit(1)))
    assert error == "archive: exit status 1: disk gone"


def test_a_program_that_sends_nothing_is_an_error(tmp_path: Path) -> None:
    assert "ended early" in problem(collect(tmp_path))


def endless(*outputs: Output) -> Callable[[Host, dict[str, Any]], Iterator[Output]]:
    def send(_host: Host, _args: dict[str, Any]) -> Iterator[Output]:
        yield BEGIN
        for at in itertools.count():
            for output in outputs:
                yield {**output, "file": f"logs/{at}"} if isinstance(output, dict) and "file" in output else output

    return send


BLOCK = b"x" * (1 << 16)
ENDLESS: dict[str, tuple[list[Output], str]] = {
    "a file": ([{"file": "logs/0", "size": 1 << 49, "at": 0}, {"data": 1 << 49}, *[BLOCK] * 1000], "bytes"),
    "files": (file("", BLOCK), "bytes"),
    "tiny files": (file("", b""), "files"),
    "files that are refused": (file("", BLOCK, bytes=b"../x".hex()), "bytes"),
    "files that cannot be opened": ([{"problem": "no" * 1000, "file": ""}], "files"),
}


@pytest.mark.parametrize(("outputs", "limit"), ENDLESS.values(), ids=ENDLESS.keys())
def test_an_archive_that_never_ends_is_ended_and_what_came_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outputs: list[Output], limit: str
) -> None:
    monkeypatch.setattr(receive, "MAX_FILES", 2000)
    fleet = FakeFleet(answering(archive=endless(*outputs)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    collected = collect_logs(fleet, "qwen", tmp_path, selection=FileSelection(max_total=20 << 20))["gpu01"]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert isinstance(collected, Collected)
    assert collected.limit.startswith("collecting stopped after")
    assert limit in collected.limit
    assert sum(len(content) for content in lies_in(tmp_path).values()) <= 21 << 20
    assert len(collected.problems) <= receive.MAX_PROBLEMS + 1
    assert grown < 64 << 10, "kilobytes of memory"
    assert fleet.connections["gpu01"].running[-1].closed


LONG: Output = {"file": "logs/e.log", "size": 1 << 30, "at": 0}
PACKED: list[Output] = [
    {"data": 1 << 20, "packed": len(PACK["zlib"](bytes(1 << 20))), "by": "zlib"},
    PACK["zlib"](bytes(1 << 20)),
]
SLOW: dict[str, tuple[list[Output], list[Output]]] = {
    "nothing at all": ([], []),
    "nothing more": ([BEGIN], []),
    "a byte now and then": ([BEGIN, LONG, {"data": 1 << 30}], [b"x"]),
    "a message now and then": ([BEGIN, LONG], [{"data": 1}, b"x"]),
    "holes now and then": ([BEGIN, LONG], [{"zeros": 1}]),
    "much that was packed small": ([BEGIN, LONG], PACKED),
    "empty files now and then": ([BEGIN], file("", b"")),
}


@pytest.mark.parametrize(("first", "then"), SLOW.values(), ids=SLOW.keys())
def test_a_host_that_sends_next_to_nothing_is_given_up_and_the_others_logs_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: list[Output], then: list[Output]
) -> None:
    monkeypatch.setattr(collecting, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(receive, "ENOUGH_BYTES", 1 << 20)  # a host that pauses for 5 ms each time sends it in seconds

    def send(host: Host, _args: dict[str, Any]) -> Iterator[Output]:
        if host.name != "gpu01":
            yield from (BEGIN, *file("logs/e.log"), DONE)
            return
        yield from first
        while True:
            yield None
            yield from then

    collected = collect_logs(FakeFleet(answering(archive=send), HOSTS), "qwen", tmp_path)
    assert problem(collected.pop("gpu01")) == "next to nothing of its logs came within 0 s"
    assert collected
    assert all(isinstance(logs, Collected) and logs.files for logs in collected.values())


def test_a_host_may_hash_the_copies_that_are_here_before_it_sends_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole(tmp_path, *file("logs/e.log", b"x" * 1000))
    monkeypatch.setattr(collecting, "STALL_SECONDS", 0.0)
    monkeypatch.setattr(collecting, "HASHED_BYTES", 10)
    whole(tmp_path, *[None] * 20, {"file": "logs/e.log", "size": 1000, "at": 1000}, END)


def test_what_is_done_here_is_no_silence_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worked = [0.0]
    finish = store.IncomingFile.finish

    def slowly(self: store.IncomingFile) -> int:
        worked[0] += 2 * collecting.STALL_SECONDS
        return finish(self)

    monkeypatch.setattr(receive, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + worked[0]))
    monkeypatch.setattr(store.IncomingFile, "finish", slowly)
    assert len(whole(tmp_path, *file("logs/e.log"), *file("logs/f.log")).files) == 2
    assert worked[0] == 4 * collecting.STALL_SECONDS


def sprouting(name: str) -> Any:
    """Return a host that sends empty files without end, each in folders of its own, and is lost now and then."""
    numbers = itertools.count(1)

    def send(_host: Host, _args: dict[str, Any]) -> Iterator[Output]:
        yield BEGIN
        for number in numbers:
            if not number % 100:
                yield UnreachableError("gpu01", "the SSH connection was lost")
            yield from file(name.format(number), b"")

    return send


@pytest.mark.parametrize("name", ["{0}/" + "d/" * 60 + "f", "{0}/" + "n" * 200])
def test_folders_and_names_without_end_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """They are no bytes of a file, and take the disk and the memory all the same."""
    monkeypatch.setattr(receive, "MAX_FOLDERS", 1000)
    monkeypatch.setattr(receive, "MAX_NAMES", 1 << 14)
    fleet = FakeFleet(answering(archive=sprouting(name)))
    collected = collect_logs(fleet, "qwen", tmp_path, patience=10)["gpu01"]
    assert isinstance(collected, Collected)
    assert collected.limit.startswith("collecting stopped after ")
    assert ("folders" in collected.limit) == ("/d/" in name)
    assert sum(path.is_dir() for path in tmp_path.rglob("*")) < 1100
    assert sum(len(file) for file, _ in collected.files) <= 1 << 14


def test_a_disk_of_ours_that_cannot_be_written_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = problem(collect(tmp_path / "file", BEGIN, *file("logs/a"), DONE))
    assert "logs cannot be written to" in error
    assert str(tmp_path / "file") in error


def test_a_full_disk_is_told_with_a_remedy_and_what_is_whole_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, room = os.pwrite, itertools.count()

    def full(descriptor: int, data: bytes, at: int) -> int:
        if next(room) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data, at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        result = collect(tmp_path, BEGIN, *file("logs/a", b"1" * 600), *file("logs/b", b"2" * 9000), DONE)
    assert problem(result) == f"logs cannot be written to {tmp_path}/gpu01: No space left on device"
    assert isinstance(result, RemoteError)
    assert "free space and repeat" in result.remedy
    assert lies_in(tmp_path / "gpu01") == {"logs/a": b"1" * 600, "logs/b": b"2" * 2000}


def test_a_lost_host_does_not_keep_the_others_logs_away(tmp_path: Path) -> None:
    refused = {"gpu02": UnreachableError("gpu02", "no answer")}
    archive = sending(*archived({"logs/a": b"1"}))
    fleet = FakeFleet(answering(archive=archive), ["gpu01", "gpu02"], refused=refused)
    results = collect_logs(fleet, "qwen", tmp_path)
    assert isinstance(results["gpu01"], Collected)
    assert results["gpu02"] is refused["gpu02"]


class LosingHost:
    """A host's side that goes on from where the operator's copy ends, and is lost three times on the way."""

    content = bytes(range(256)) * 64
    losses = 3

    def __call__(self, _host: Host, args: dict[str, Any]) -> Iterator[Output]:
        at = dict(args["have"]).get(b"logs/e.log".hex(), (0, ""))[0]
        yield BEGIN
        yield {"file": "logs/e.log", "size": len(self.content), "at": at}
        if self.losses:
            self.losses -= 1
            yield {"data": 5000}
            yield self.content[at : at + 3000]
            yield UnreachableError("gpu01", "the SSH connection was lost")
        yield {"data": len(self.content) - at}
        yield self.content[at:]
        yield END
        yield DONE


def test_a_collection_goes_on_after_a_cut_and_says_so(tmp_path: Path) -> None:
    notes: list[tuple[str, str]] = []
    fleet = FakeFleet(answering(archive=LosingHost()))
    collected = collect_logs(fleet, "qwen", tmp_path, patience=10, tell=lambda *note: notes.append(note))["gpu01"]
    assert isinstance(collected, Collected)
    assert lies_in(tmp_path / "gpu01") == {"logs/e.log": LosingHost.content}
    assert collected.received == len(LosingHost.content)
    assert [host for host, _ in notes] == ["gpu01"] * 6
    assert notes[0][1].startswith("the SSH connection was lost; retrying for up to 10 s")
    assert notes[1][1] == "the connection is back"


def test_a_host_that_is_lost_again_and_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losing = LosingHost()
    losing.losses = 100
    monkeypatch.setattr("flagscale_deploy.logs.collect.LOSSES", 2)
    fleet = FakeFleet(answering(archive=losing))
    result = collect_logs(fleet, "qwen", tmp_path, patience=10)["gpu01"]
    assert "lost, 3 times" in problem(result)
    assert not isinstance(result, RemoteError)


def test_no_descriptor_is_left_whatever_comes(tmp_path: Path) -> None:
    (tmp_path / "gpu01").mkdir()
    (tmp_path / "gpu01" / "link").symlink_to(tmp_path)
    (tmp_path / "gpu01" / "pipe").mkdir()
    names = [*HOSTILE.values(), "link", "link/a", "pipe", "logs/a", "ray/s/r"]
    outputs = [output for name in names for output in file(name, b"1")]
    before = len(os.listdir("/proc/self/fd"))
    collect(tmp_path, BEGIN, *outputs, DONE)
    collect(tmp_path, BEGIN, *outputs, {"file": "logs/z", "size": 9, "at": 0}, {"data": 9}, b"1")
    collect(tmp_path, BEGIN, *outputs, max_total=10)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_of_more_zeros_than_anyone_has_is_left_out(tmp_path: Path) -> None:
    size = receive.LARGEST_FILE
    collected = whole(
        tmp_path,
        *({"file": "logs/holes", "size": size + 1, "at": 0}, {"zeros": size + 1}, END),
        *({"file": "logs/core", "size": size, "at": 0}, {"zeros": size}, END),
        *file("logs/b"),
    )
    assert collected.problems == ("logs/holes: it is larger than 1.0 TiB; left out",)
    assert sorted(path.name for path in (tmp_path / "gpu01/logs").iterdir()) == ["b", "core"]
    assert (tmp_path / "gpu01/logs/core").stat().st_blocks == 0
