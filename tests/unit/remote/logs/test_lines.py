"""Lines out of bytes that come in any pieces."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagscale_deploy.remote.logs import lines
from flagscale_deploy.remote.logs.lines import CUT, LONGEST, Cutter, start_of_last


def cut(*pieces: bytes) -> list[str]:
    cutter = Cutter()
    texts = [line for piece in pieces for line in cutter.feed(piece)]
    return texts + cutter.rest()


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"on", b"e\ntw", b"o"], ["one", "two"]),
        ([b"one\r\n", b"two\r", b"\nthree"], ["one", "two", "three"]),
        ([b"\n\na\n"], ["", "", "a"]),
        ([b"10%\r20%\r", b"30%", b"\rdone\n"], ["10%", "20%", "30%", "done"]),
        ([b"\xff\xfe ok\n"], ["\ufffd\ufffd ok"]),
        (["ü".encode()[:1], "ü".encode()[1:] + b"\n"], ["ü"]),
        ([], []),
    ],
)
def test_lines_are_cut_at_every_kind_of_end(pieces: list[bytes], expected: list[str]) -> None:
    assert cut(*pieces) == expected


def test_a_progress_bar_is_seen_while_it_moves() -> None:
    cutter = Cutter()
    assert cutter.feed(b"Loading:  10%\r") == []
    assert cutter.feed(b"Loading:  20%\r") == ["Loading:  10%"]


def test_of_a_very_long_line_the_beginning_comes_once_and_what_follows_it_is_whole() -> None:
    long = b"x" * (LONGEST + 5)
    assert cut(long, long, b"tail\nnext\n") == ["x" * LONGEST + CUT, "next"]
    assert cut(long + b"\nnext\n") == ["x" * LONGEST + CUT, "next"]


@given(st.lists(st.binary(max_size=20).map(lambda piece: piece.replace(b"\r", b"\n")), max_size=10))
def test_the_pieces_make_no_difference(pieces: list[bytes]) -> None:
    assert cut(*pieces) == cut(b"".join(pieces))


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("block", [1, 7, 65536])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 6, 100])
def test_the_last_lines_begin_where_they_should(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, block: int, end: str
) -> None:
    monkeypatch.setattr(lines, "BLOCK", block)
    path = tmp_path / "log"
    path.write_text("a\nbb\n\nccc\ndddd" + end)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.lseek(descriptor, start_of_last(descriptor, count), os.SEEK_SET)
        last = os.read(descriptor, 100).decode().splitlines()
    finally:
        os.close(descriptor)
    assert last == ["a", "bb", "", "ccc", "dddd"][max(0, 5 - count) :]


def test_of_a_file_of_one_endless_line_not_all_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "FURTHEST", 1 << 20)
    path = tmp_path / "log"
    path.write_bytes(b"x" * (3 << 20))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert start_of_last(descriptor, 1) == 2 << 20
    finally:
        os.close(descriptor)
