"""Files that CI gets hold no secret, however large they are and wherever a secret stands in them."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.errors import HostError, UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.logs import Collected, FileSelection, collect_logs
from flagscale_deploy.logs.redact import redact_folder, redacted
from flagscale_deploy.remote.logs.sparse import BLOCK
from flagscale_deploy.secrets import HIDDEN, Redactor
from tests.fakes import FakeFleet, Output
from tests.unit.deploy.given import answering, archived

KEY = "s3cr3t-ünï-Key/0123456789=="
REDACTOR = Redactor([KEY])


def blocks_of(content: bytes) -> list[bytes]:
    return [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]


def test_a_secret_is_hidden_and_all_else_stays_byte_for_byte(tmp_path: Path) -> None:
    folder = tmp_path / "gpu01" / "logs"
    folder.mkdir(parents=True)
    before = b"\xff\x00 api_key=[" + KEY.encode() + b"] \xc3 done\r\n"
    (folder / "engine.log").write_bytes(before)
    (folder / "other.log").write_bytes(b"nothing \xff here\n")
    (folder / "engine.log").chmod(0o600)
    inode = (folder / "other.log").stat().st_ino
    assert redact_folder(tmp_path, REDACTOR) == {}
    assert (folder / "engine.log").read_bytes() == before.replace(KEY.encode(), HIDDEN.encode())
    assert (folder / "engine.log").stat().st_mode & 0o777 == 0o600
    assert (folder / "other.log").stat().st_ino == inode
    assert sorted(os.listdir(folder)) == ["engine.log", "other.log"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text(KEY)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "link").symlink_to(outside)
    (tmp_path / "logs" / "folder").symlink_to(tmp_path)
    redact_folder(tmp_path / "logs", REDACTOR)
    assert outside.read_text() == KEY


@pytest.mark.parametrize("shift", [*range(0, 40, 7), len(KEY.encode()) // 2])
@pytest.mark.parametrize("line", [b"x", b"x\n"], ids=["one line", "lines"])
def test_a_secret_across_the_end_of_a_block_is_hidden(shift: int, line: bytes) -> None:
    jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlc2lnbg"
    for secret in (KEY, jwt):
        content = (line * BLOCK)[: BLOCK - shift] + b" " + secret.encode() + b" " + (line * BLOCK)[:BLOCK] + b" end"
        text = "".join(hidden for _, hidden in redacted(blocks_of(content), REDACTOR))
        assert text.encode("utf-8", "surrogateescape") == content.replace(secret.encode(), HIDDEN.encode())


def test_a_secret_is_hidden_also_where_the_cut_would_fall(tmp_path: Path) -> None:
    """Every position around the place where the first piece ends."""
    longest = REDACTOR.longest
    for shift in range(0, 2 * len(KEY), 3):
        content = b"." * (BLOCK - longest - shift) + KEY.encode() + b"." * (2 * longest)
        text = "".join(hidden for _, hidden in redacted(blocks_of(content), REDACTOR))
        assert KEY not in text
        assert text.count(HIDDEN) == 1


def test_colours_within_a_secret_do_not_hide_it(tmp_path: Path) -> None:
    (tmp_path / "e.log").write_text("a s3cr3t-\x1b[1münï-Key/0123456789==\x1b[0m b")
    redact_folder(tmp_path, REDACTOR)
    assert (tmp_path / "e.log").read_text() == f"a {HIDDEN} b"


def test_a_file_that_cannot_be_written_anew_is_removed(tmp_path: Path) -> None:
    (tmp_path / "e.log").write_text(KEY)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        removed = redact_folder(tmp_path, REDACTOR)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(removed) == [tmp_path / "e.log"]
    assert list(tmp_path.iterdir()) == []


def test_what_a_command_has_left_that_was_killed_while_it_hid_secrets_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "e.log").write_text(f"a {KEY}")
    (tmp_path / ".e.log.redacted").write_text(KEY)
    assert redact_folder(tmp_path, REDACTOR) == {}
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "e.log": f"a {HIDDEN}", ".e.log.redacted": HIDDEN,
    }  # fmt: skip


def test_holes_are_neither_read_nor_filled(tmp_path: Path) -> None:
    """A host may announce terabytes of zeros, which cost it nothing."""
    path = tmp_path / "e.log"
    middle, size = 1 << 39, (1 << 40) - 7
    with path.open("wb") as file:
        file.write(b"a " + KEY.encode() + b"\n")
        file.seek(middle)
        file.write(KEY.encode() + b" b\n")
        file.truncate(size)
    began = time.monotonic()
    assert redact_folder(tmp_path, REDACTOR) == {}
    assert time.monotonic() - began < 10
    hidden = len(KEY.encode()) - len(HIDDEN)
    assert path.stat().st_blocks * 512 < 8 * BLOCK
    with path.open("rb") as file:
        assert file.read(64).rstrip(b"\0") == f"a {HIDDEN}\n".encode()
        file.seek(middle - BLOCK)
        assert file.read(2 * BLOCK).strip(b"\0") == f"{HIDDEN} b\n".encode()
    assert size - path.stat().st_size in (hidden, 2 * hidden)


def test_short_lines_between_holes_do_not_fill_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "e.log"
    with path.open("wb") as file:
        for at in range(100):
            file.seek(at * BLOCK)
            file.write(KEY.encode() + b"\n")
    assert redact_folder(tmp_path, REDACTOR) == {}
    assert path.stat().st_blocks * 512 <= 100 * 3 * 4096
    assert path.read_bytes().replace(b"\0", b"") == f"{HIDDEN}\n".encode() * 100


def test_zeros_around_text_stay(tmp_path: Path) -> None:
    for before, after in ((0, 5), (3, BLOCK), (BLOCK, 3 * BLOCK + 5), (2 * BLOCK - 9, 0)):
        (tmp_path / "e.log").write_bytes(bytes(before) + KEY.encode() + bytes(after))
        redact_folder(tmp_path, REDACTOR)
        assert (tmp_path / "e.log").read_bytes() == bytes(before) + HIDDEN.encode() + bytes(after)


def test_files_beyond_what_can_be_searched_are_removed(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(bytes(BLOCK) + b"x" * BLOCK)
    removed = redact_folder(tmp_path, REDACTOR, most_zeros=2 * BLOCK)
    assert removed == {tmp_path / "c": "it and the files before it hold too many zeros"}
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("ending", ["well", "lost", "early", "at a limit"])
def test_collected_logs_hold_no_secret_at_any_time(tmp_path: Path, ending: str) -> None:
    """A command that is killed hides nothing any more."""
    line = f"the key is {KEY}\n".encode()
    content = line * 3000
    clear: list[bytes] = []

    def look() -> None:
        texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        clear.extend(text for text in texts if KEY.encode() in text)

    def send(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"archive": 2}
        for name in ("logs/e.log", "logs/f.log"):
            yield {"file": name, "size": len(content), "at": 0, "mtime": 1.0}
            yield {"data": len(content)}
            for at in range(0, len(content), 8192):
                look()
                yield content[at : at + 8192]
            if ending == "lost":
                raise UnreachableError("gpu01", "gone")
            if ending == "early":
                return
            yield {"end": True, "why": ""}
            look()
        yield {"done": True, "older": 0}

    fleet = FakeFleet(answering(archive=send))
    limit = 70_000 if ending == "at a limit" else 1 << 20
    selection = FileSelection(max_total=limit, redactor=REDACTOR)
    collect_logs(fleet, "qwen", tmp_path, selection=selection)
    look()
    assert clear == []
    names = {path.name: path.read_bytes() for path in tmp_path.rglob("*.log")}
    hidden = content.replace(KEY.encode(), HIDDEN.encode())
    assert names == {
        "well": {"e.log": hidden, "f.log": hidden}, "at a limit": {"e.log": names.get("e.log", b"")},
    }.get(ending, {})  # fmt: skip
    assert not [path for path in tmp_path.rglob(".*") if path.suffix == ".new"]


def test_a_file_or_folder_whose_name_holds_a_secret_is_left_out(tmp_path: Path) -> None:
    names = ("logs/e.log", f"logs/{KEY}.log", f"logs/{KEY}/e.log")
    fleet = FakeFleet(answering(archive=lambda *_: archived(dict.fromkeys(names, b"x"))))
    collected = collect_logs(fleet, "qwen", tmp_path, selection=FileSelection(redactor=REDACTOR))["gpu01"]
    assert isinstance(collected, Collected)
    assert [name for name, _ in collected.files] == ["logs/e.log"]
    assert len([problem for problem in collected.problems if "its name holds a secret" in problem]) == 2
    assert not [path for path in tmp_path.rglob("*") if KEY in path.name]


def test_what_cannot_be_looked_through_in_time_is_left_out_and_named(tmp_path: Path) -> None:
    fleet = FakeFleet(answering(archive=lambda *_: archived({"logs/e.log": KEY.encode()})))
    selection = FileSelection(seconds=0.0, redactor=REDACTOR)
    collected = collect_logs(fleet, "qwen", tmp_path, selection=selection)["gpu01"]
    assert not list(tmp_path.rglob("*.log"))
    assert isinstance(collected, HostError) or "would take too long" in collected.problems[0]


def test_an_earlier_copy_is_kept_beside_the_new_one_and_a_link_is_not_replaced(tmp_path: Path) -> None:
    fleet = FakeFleet(answering(archive=lambda *_: archived({"logs/e.log": KEY.encode(), "logs/l.log": b"x"})))
    logs = tmp_path / "gpu01/logs"
    logs.mkdir(parents=True)
    (logs / "e.log").write_text("of an earlier run")
    (logs / "l.log").symlink_to(tmp_path / "outside")
    collected = collect_logs(fleet, "qwen", tmp_path, selection=FileSelection(redactor=REDACTOR))["gpu01"]
    assert isinstance(collected, Collected)
    assert {path.name: path.read_text() for path in logs.iterdir() if not path.is_symlink()} == {
        "e.log": HIDDEN, "e.log.kept-1": "of an earlier run",
    }  # fmt: skip
    assert any("not a plain file has its name" in problem for problem in collected.problems)
