"""Compare the secrets of a request with those of a deployment that runs, of which its record has a salted hash.

scrypt, because a key that a person chose is guessed from a fast hash: a guess takes a tenth of a second and 16 MiB
(parameters of OWASP's Password Storage Cheat Sheet). The parameters are not read from the record, which is a host's.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping

from flagscale_deploy.secrets import Secret

COST = {"n": 1 << 14, "r": 8, "p": 5, "dklen": 32, "maxmem": 64 << 20}
SALT_BYTES = 16
_HASH = re.compile(r"([0-9a-f]{32})\$([0-9a-f]{64})(?:\$([0-9a-f]{64}))?")
GATE = "gate"
"""The owner of the keys that only the gate has: a new one restarts no server."""

Secrets = Mapping[str, Mapping[str, Secret]]
"""Secrets by name, of each host, of all hosts, and of the gate."""


def hash_secrets(values: Secrets, salt: str | None = None) -> str:
    """Return the hash for a record, with its salt (in hex; None: a new one); "" where there are no secrets.

    Where the gate has keys, their hash follows that of all others.
    """
    if not any(values.values()):
        return ""
    salt = secrets.token_hex(SALT_BYTES) if salt is None else salt
    others = {owner: named for owner, named in values.items() if owner != GATE}
    parts = [others, {GATE: values[GATE]}] if values.get(GATE) else [others]
    return "$".join((salt, *(_hash(part, salt) for part in parts)))


def differing_secrets(recorded: object, values: Secrets) -> tuple[bool, bool]:
    """Return whether a record's hash is of other secrets of servers than these, and of other keys of the gate.

    Where it has none, only names can be compared: nothing differs.
    """
    match = _HASH.fullmatch(recorded) if isinstance(recorded, str) else None
    if match is None:
        return False, False
    _, servers, *gate = hash_secrets({"": {}, **values}, match[1]).split("$") if any(values.values()) else ("", "")
    return not hmac.compare_digest(match[2], servers), not hmac.compare_digest(match[3] or "", "".join(gate))


def same_secrets(recorded: object, values: Secrets) -> bool:
    """Return whether a record's hash is of these secrets, and of these keys of the gate."""
    return not any(differing_secrets(recorded, values))


def _hash(values: Secrets, salt: str) -> str:
    revealed = {
        owner: {name: secret.reveal() for name, secret in named.items()} for owner, named in values.items() if named
    }
    content = json.dumps(revealed, sort_keys=True).encode()
    return hashlib.scrypt(content, salt=bytes.fromhex(salt), **COST).hex()
