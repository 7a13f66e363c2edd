"""Pieces and digests of files, however sparse they lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagscale_deploy.remote.logs import sparse as extents

SMALL = 4096
PARTS = st.lists(st.tuples(st.booleans(), st.integers(1, 3 * SMALL)), max_size=8)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("extents")


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extents, "BLOCK", SMALL)
        patch.setattr(extents, "ZEROS", bytes(SMALL))
        yield


def write(path: Path, parts: list[tuple[bool, int]], sparse: bool) -> int:
    """Write a file of runs of bytes and zeros, holes if it is sparse; return an open descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    at = 0
    for data, length in parts:
        if data or not sparse:
            os.pwrite(descriptor, (b"x" if data else b"\0") * length, at)
        at += length
    os.ftruncate(descriptor, at)
    return descriptor


@settings(deadline=None)
@given(parts=PARTS, start=st.integers(0, 2 * SMALL))
def test_pieces_put_together_are_the_file(place: Path, parts: list[tuple[bool, int]], start: int) -> None:
    descriptor = write(place / "a", parts, sparse=True)
    try:
        size = os.fstat(descriptor).st_size
        start = min(start, size)
        read = b"".join(content or bytes(length) for length, content in extents.pieces(descriptor, start, size))
        assert read == os.pread(descriptor, size, start)
    finally:
        os.close(descriptor)


@settings(deadline=None)
@given(parts=PARTS)
def test_a_digest_is_that_of_the_bytes_and_not_of_the_holes(place: Path, parts: list[tuple[bool, int]]) -> None:
    one, other = write(place / "b", parts, sparse=True), write(place / "c", parts, sparse=False)
    try:
        size = os.fstat(one).st_size
        assert extents.digest(one, size) == extents.digest(other, size) != None  # noqa: E711 (None is neither)
        if size:
            os.pwrite(other, b"y", size // 2)
            assert extents.digest(one, size) != extents.digest(other, size)
    finally:
        os.close(one)
        os.close(other)


def test_of_a_file_that_is_shorter_there_is_no_digest_and_no_piece_more(tmp_path: Path) -> None:
    descriptor = write(tmp_path / "d", [(True, 10), (False, 3 * SMALL)], sparse=True)
    try:
        size = os.fstat(descriptor).st_size
        assert extents.digest(descriptor, size + 1) is None
        assert sum(length for length, _ in extents.pieces(descriptor, 0, size + 5 * SMALL)) == size
    finally:
        os.close(descriptor)
