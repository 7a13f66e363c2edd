"""Compress with the zstd library that dpkg, rpm and systemd of a host bring along.

Python has it since 3.14 only. https://facebook.github.io/zstd/zstd_manual.html (simple API, explicit context)
"""

from __future__ import annotations

from typing import Any, Callable, Optional

LIBRARY = "libzstd.so.1"
LEVEL = 1


def compressor() -> Optional[Callable[[bytes], bytes]]:
    """Return what makes one frame of bytes; None without the library.

    The frame tells how long they are. It raises ValueError.
    """
    try:
        import ctypes

        library = ctypes.CDLL(LIBRARY)
        size, place, number = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
        context_of = _function(library, "ZSTD_createCCtx", place)
        bound = _function(library, "ZSTD_compressBound", size, size)
        compress = _function(library, "ZSTD_compressCCtx", size, place, place, size, ctypes.c_char_p, size, number)
        is_error = _function(library, "ZSTD_isError", ctypes.c_uint, size)
    except (ImportError, OSError, AttributeError):
        return None
    context, room = context_of(), ctypes.create_string_buffer(0)
    if not context:  # no memory
        return None

    def packed(content: bytes) -> bytes:
        nonlocal room
        most = bound(len(content))
        if len(room) < most:
            room = ctypes.create_string_buffer(most)
        length = compress(context, room, len(room), content, len(content), LEVEL)
        if is_error(length):
            raise ValueError("zstd failed")
        return ctypes.string_at(room, length)

    return packed


def _function(library: Any, name: str, gives: Any, *takes: Any) -> Any:
    function = getattr(library, name)
    function.restype, function.argtypes = gives, takes
    return function
