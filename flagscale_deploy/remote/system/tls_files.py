"""Look at the files of a server's TLS: whether they can be read, by whom else, and until when they are valid."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Dict, Iterable

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.probe import Certificate, ProbedTlsFile

LARGEST = 1 << 20
"""Bytes that are read of a file: a bundle of all the world's authorities has a quarter of that."""


def observe(paths: Iterable[str]) -> Dict[str, ProbedTlsFile]:
    """Return what is known of each path. A relative one starts at home, where engines run."""
    return {path: look(os.path.join(os.path.expanduser("~"), path)) for path in paths}


def look(path: str) -> ProbedTlsFile:
    """Return what is known of one file."""
    try:
        with open(path, "rb") as file:
            file.read(1)
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OSError as error:
        return {"problem": error.strerror or str(error), "mode": 0}
    return {"problem": "", "mode": mode, **certificate(path)}


def certificate(path: str) -> Certificate:
    """Read the first certificate of a PEM file; nothing where there is none."""
    import hashlib
    import ssl  # its 6 ms are not for every probe

    try:
        decoded = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]  # what Python has for it without more
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read(LARGEST)).hexdigest()
        return {
            "hash": digest,
            "expires": float(ssl.cert_time_to_seconds(decoded["notAfter"])),
            "names": [
                value.strip() for kind, value in decoded.get("subjectAltName", ()) if kind in ("DNS", "IP Address")
            ],
            "self_signed": decoded["issuer"] == decoded["subject"],
        }
    except (AttributeError, KeyError, OSError, ValueError):  # ssl.SSLError is an OSError
        return {}
