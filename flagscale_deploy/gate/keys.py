"""Clients' keys: named, several, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping

from flagscale_deploy.gate.config import ConfigError

LONGEST_KEY = 4096


class Keys:
    """The keys of `{"alice": "sk-…"}`; only their hashes are kept."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._hashes = {name: _hash(key) for name, key in keys.items()}

    def name(self, key: str | None) -> str | None:
        """Return the name of a key, None if it is nobody's. The time taken tells nothing of the keys."""
        given, owner = _hash(key or ""), None
        for name, digest in self._hashes.items():
            if hmac.compare_digest(given, digest):
                owner = name
        return owner if key else None


def parse_keys(text: str) -> Keys:
    """Return the keys of a JSON object; raise ConfigError, which quotes none of them."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError("keys: not JSON") from None
    if not isinstance(document, dict):
        raise ConfigError("keys: an object with a key for each name is expected")
    for name, key in document.items():
        if not name or not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY:
            raise ConfigError(f"keys: {name!r} needs a text of 1 to {LONGEST_KEY} characters")
    return Keys(document)


def presented(authorization: list[str], api_key: list[str]) -> str | None:
    """Return the key that a request has in `Authorization: Bearer` or `x-api-key`; None if there is not exactly one."""
    if len(authorization) + len(api_key) != 1:
        return None if not authorization or len(set(authorization)) != 1 or api_key else _bearer(authorization[0])
    return _bearer(authorization[0]) if authorization else api_key[0].strip()


def _bearer(value: str) -> str | None:
    scheme, _, key = value.strip().partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
