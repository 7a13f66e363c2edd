"""When pieces of logs are compressed."""

from __future__ import annotations

import os

import pytest

from flagscale_deploy.logs.decompress import UNPACK
from flagscale_deploy.remote.logs import zstd
from flagscale_deploy.remote.logs.compression import SETTLED, Compressor, packer

LINES = b"INFO [loggers.py:123] Engine 000: Avg prompt throughput: 12.3 tokens/s\n" * 5000
PIECE = len(LINES)


class Watch:
    """Compressing takes so many seconds each time."""

    def __init__(self, seconds: float) -> None:
        self._now, self._seconds = 0.0, seconds

    def __call__(self) -> float:
        self._now += self._seconds
        return self._now


def sent(compressor: Compressor, content: bytes, seconds: float, pieces: int) -> list[bool]:
    """Whether each piece was compressed; a plain one takes so many seconds to be written."""
    compressed = []
    for _ in range(pieces):
        packed = compressor.compress(content)
        compressed.append(packed is not None)
        if packed is None:
            compressor.note_plain(len(content), seconds)
        else:
            assert UNPACK[packed.by](packed.content, len(content)) == content
    return compressed


SOME = SETTLED // PIECE + 3


@pytest.mark.parametrize(("link", "expected"), [(0.01, True), (0.0001, False)])
def test_it_compresses_where_the_link_is_slower_than_it(link: float, expected: bool) -> None:
    compressed = sent(Compressor(Watch(0.001)), LINES, link, 3 * SOME)
    assert not any(compressed[: SETTLED // PIECE])
    assert compressed[-1] is expected


@pytest.mark.parametrize("named", ["zstd", "zlib"])
def test_it_packs_by_what_the_host_has(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if named == "zlib":
        monkeypatch.setattr(zstd, "LIBRARY", "libnosuch.so.1")
    compressor = packer()
    assert compressor.name == named
    for content in (b"", b"x", LINES, os.urandom(1 << 20), b"y"):
        assert UNPACK[named](compressor.compress(content), len(content)) == content


def test_what_cannot_be_packed_is_sent_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_content: bytes) -> bytes:
        raise ValueError("zstd failed")

    monkeypatch.setattr(zstd, "compressor", lambda: fails)
    assert not any(sent(Compressor(Watch(0.001)), LINES, 0.01, 3 * SOME))


def test_what_does_not_become_smaller_is_sent_as_it_is() -> None:
    compressor = Compressor(Watch(0.001))
    assert not any(sent(compressor, os.urandom(PIECE), 0.01, 2 * SOME))
    assert not any(sent(compressor, LINES, 0.01, 2))
