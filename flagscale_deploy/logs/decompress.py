"""Decompress what a host sent (`remote/logs/compression.py`), never to more bytes than announced."""

from __future__ import annotations

import zlib
from collections.abc import Callable

WRONG_SIZE = "its size is not the announced one"


def by_zlib(packed: bytes, size: int) -> bytes:
    """Return the `size` bytes that were compressed by zlib. Raises ValueError where they are not."""
    decompressor = zlib.decompressobj()
    try:
        content = decompressor.decompress(packed, size)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(content) != size or not decompressor.eof or decompressor.unused_data:
        raise ValueError(WRONG_SIZE)
    return content


def by_zstd(packed: bytes, size: int) -> bytes:
    """Return the `size` bytes that were compressed by zstd into one frame. Raises ValueError where they are not."""
    import zstandard  # logs are seldom compressed

    try:
        if zstandard.frame_content_size(packed) != size:  # zstd allocates what the frame announces
            raise ValueError(WRONG_SIZE)
        return zstandard.ZstdDecompressor().decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


UNPACK: dict[str, Callable[[bytes, int], bytes]] = {"zlib": by_zlib, "zstd": by_zstd}
"""Functions by the name that comes with each piece."""
