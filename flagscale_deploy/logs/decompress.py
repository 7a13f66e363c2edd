"""Decompress what a host sent (`remote/logs/compression.py`): never to more bytes than announced."""

from __future__ import annotations

import zlib
from collections.abc import Callable

NOT_AS_SAID = "it is not as large as it says"


def by_zlib(packed: bytes, size: int) -> bytes:
    """The `size` bytes that zlib makes of these. ValueError where it does not."""
    opened = zlib.decompressobj()
    try:
        content = opened.decompress(packed, size)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(content) != size or not opened.eof or opened.unused_data:
        raise ValueError(NOT_AS_SAID)
    return content


def by_zstd(packed: bytes, size: int) -> bytes:
    """The `size` bytes that zstd makes of these, which are one frame. ValueError where it does not."""
    import zstandard  # logs are seldom compressed

    try:
        if zstandard.frame_content_size(packed) != size:  # it would make room for as much as a frame says
            raise ValueError(NOT_AS_SAID)
        return zstandard.ZstdDecompressor().decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


UNPACK: dict[str, Callable[[bytes, int], bytes]] = {"zlib": by_zlib, "zstd": by_zstd}
"""By the name that comes with each piece."""
