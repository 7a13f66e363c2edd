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
_HASH = re.compile(r"([0-9a-f]{32})\$([0-9a-f]{64})")

Secrets = Mapping[str, Mapping[str, Secret]]
"""Secrets by name, of each host, and of all hosts."""


def hash_secrets(values: Secrets, salt: str | None = None) -> str:
    """Return the hash for a record, with its salt (in hex; None: a new one); "" where there are no secrets."""
    if not any(values.values()):
        return ""
    salt = secrets.token_hex(SALT_BYTES) if salt is None else salt
    revealed = {
        owner: {name: secret.reveal() for name, secret in named.items()} for owner, named in values.items() if named
    }
    content = json.dumps(revealed, sort_keys=True).encode()
    return f"{salt}${hashlib.scrypt(content, salt=bytes.fromhex(salt), **COST).hex()}"


def same_secrets(recorded: object, values: Secrets) -> bool:
    """Return whether a record's hash is of these secrets. Where it has none, only names can be compared: True."""
    match = _HASH.fullmatch(recorded) if isinstance(recorded, str) else None
    if match is None:
        return True
    return hmac.compare_digest(match[0], hash_secrets(values, match[1]))
