"""A place in a log that is rotated while it is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flagscale_deploy.remote.logs.tail import Held, Place, Tail


def test_a_place_is_that_of_what_was_read_also_where_the_file_was_truncated_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the copy that `copytruncate` made would be said again (seen on a busy machine)."""
    log, copy = tmp_path / "engine.log", tmp_path / "engine.log.1"
    log.write_text("one\ntwo\nthr")
    tail = Tail("engine.log", os.open(log, os.O_RDONLY), 0)
    pread = os.pread

    def read_and_rotate(descriptor: int, count: int, offset: int) -> bytes:
        data = pread(descriptor, count, offset)
        if data and not copy.exists():
            copy.write_bytes(data)
            log.write_text("four\nfive\nsix\nseven\n")
        return data

    monkeypatch.setattr(os, "pread", read_and_rotate)
    lines = next(tail.new())
    monkeypatch.undo()
    assert lines == ["one", "two"]

    held = Held("engine.log.1", os.open(copy, os.O_RDONLY))
    place = held.judged([tail], [Place("engine.log", tail.mark)])
    assert place is not None
    rest = held.tail(place)
    rest_of_it = list(rest.new())
    assert [*rest_of_it, rest.rest()] == [["thr"]]
    assert list(tail.new()) == [["four", "five", "six", "seven"]]
    assert tail.truncated is not None
    tail.close()
    rest.close()
