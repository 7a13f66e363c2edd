"""A tree listed and cut, and its hashes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagscale_deploy.remote.messages.push import PushTree
from flagscale_deploy.remote.push import hashes
from flagscale_deploy.remote.push.hashes import HashCache
from flagscale_deploy.remote.push.scan import scan
from flagscale_deploy.remote.push.source import Source
from flagscale_deploy.remote.push.tree import (
    BLOCKS,
    BUNDLED,
    LARGEST,
    SMALLEST,
    block_size,
    blocks,
    bytes_of,
    checked,
    from_wire,
    pieces,
    to_wire,
)

SIZES = st.lists(st.one_of(st.integers(0, 3000), st.integers(0, 5 << 20), st.integers(0, 1 << 37)), max_size=40)


@settings(deadline=None)
@given(SIZES)
def test_pieces_hold_every_byte_once_in_order(sizes: list[int]) -> None:
    spans = [span for piece in pieces(sizes) for span in piece]
    at = dict.fromkeys(range(len(sizes)), 0)
    for span in spans:
        assert span.offset == at[span.file]
        assert span.length > 0
        at[span.file] += span.length
    assert list(at.values()) == sizes
    for piece in pieces(sizes):
        assert len(piece) == 1 or (bytes_of(piece) <= SMALLEST and len(piece) <= BUNDLED)


@given(st.integers(0, 1 << 45))
def test_blocks_are_few_and_small_enough(size: int) -> None:
    assert SMALLEST <= block_size(size) <= LARGEST
    assert block_size(size) == LARGEST or size <= BLOCKS * block_size(size)


@given(st.binary(min_size=1))
def test_any_name_travels(path: bytes) -> None:
    assert from_wire(to_wire(path)) == path


@pytest.mark.parametrize(
    "path", [b"", b"/etc/passwd", b"..", b"a/../b", b"a//b", b"a/", b"./a", b"a\0b", b".flagscale-push/x"]
)
def test_a_path_that_leads_out_is_refused(path: bytes) -> None:
    with pytest.raises(ValueError, match="not the path"):
        checked(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "sub/model.bin").write_bytes(b"x" * 10)
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o4755)
    (root / "link").symlink_to("sub/model.bin")
    (root / "away").symlink_to("../outside")
    (tmp_path / "outside").write_text("outside")
    os.mkfifo(root / "pipe")
    (root / os.fsdecode(b"\xff\n'$(x)")).touch()
    (root / ".flagscale-push").mkdir()
    return root


def by_path(scanned: PushTree) -> dict[bytes, Any]:
    return {from_wire(entry["path"]): entry for entry in scanned["entries"]}


def test_a_tree_is_listed_with_links_as_links_and_modes_without_setuid(tree: Path) -> None:
    scanned = scan(os.fsencode(tree))
    entries = by_path(scanned)
    assert list(entries) == sorted([b"sub", b"sub/model.bin", b"run.sh", b"link", b"away", b"\xff\n'$(x)"])
    assert entries[b"run.sh"]["mode"] == 0o755
    assert (entries[b"link"]["kind"], entries[b"link"]["target"]) == ("link", "sub/model.bin")
    assert (scanned["left_out"], scanned["outside"], scanned["single"]) == (["pipe"], ["away"], False)


def test_copied_links_are_what_they_lead_to_and_circles_end(tree: Path) -> None:
    (tree / "sub/up").symlink_to("..")
    entries = by_path(scan(os.fsencode(tree), copy_links=True))
    assert entries[b"link"]["size"] == 10
    assert entries[b"away"]["size"] == len("outside")
    assert entries[b"sub/up"]["kind"] == "dir"
    assert b"sub/up/sub" not in entries


def test_a_hole_is_not_read_and_hashes_as_zeros(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    size = 64 << 30
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(5)
        file.write(b"x")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        progress: list[int] = []
        at = size - (1 << 20)
        assert hashes.of_span(descriptor, at, 1 << 20, progress.append) == hashlib.sha256(bytes(1 << 20)).digest()
        assert not hashes.is_hole(descriptor, 0, 4096)
        with pytest.raises(EOFError):
            hashes.of_span(descriptor, at, 2 << 20)
    finally:
        os.close(descriptor)


def test_hashes_are_those_of_each_block(tmp_path: Path) -> None:
    content = os.urandom(SMALLEST + 5)
    (tmp_path / "file").write_bytes(content)
    digests = hashes.of_files(lambda _file: os.open(tmp_path / "file", os.O_RDONLY), [(7, len(content))])
    wanted = [hashlib.sha256(content[span.offset :][: span.length]).digest() for span in blocks(7, len(content))]
    assert digests == {7: b"".join(wanted)}
    assert hashes.from_text(hashes.to_text(digests[7])) == digests[7]


def test_hashes_are_kept_while_a_file_stays_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m").mkdir()
    path = tmp_path / "m/file"
    path.write_bytes(b"one")
    read: list[int] = []

    def digests(checksum: bool = False) -> list[bytes]:
        read.clear()
        return Source(str(path.parent), "").digests(checksum, read.append)

    first = digests()
    assert sum(read) == 3
    assert digests() == first
    assert read == []
    assert digests(checksum=True) == first
    assert sum(read) == 3
    kept = os.stat(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))  # the same size and time, and yet another file
    assert digests() != first
    assert (tmp_path / ".cache/flagscale-deploy/push").stat().st_mode & 0o777 == 0o700


def test_a_broken_cache_is_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    status = os.stat(tmp_path)
    cache = HashCache("k")
    cache.put("a", status, bytes(32))
    cache.save(["a"])
    (path,) = (tmp_path / ".cache/flagscale-deploy/push").iterdir()
    for text in ("", "[]", '{"a": 3}', '{"a": []}', '{"a": [1, 2, 3, 4, "!"]}'):
        path.write_text(text)
        assert HashCache("k").get("a", status) is None
