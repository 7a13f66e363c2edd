"""The digest of a text, by which two runs are compared without it."""

from __future__ import annotations

import hashlib


def digest_of(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, in hexadecimal; a lone surrogate stands for the byte that it was."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
