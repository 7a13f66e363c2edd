"""Look at the files of a server's TLS: whether they can be read, by whom else, and until when they are valid."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Dict, Iterable

from flagscale_deploy.remote.system import files

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
        with files.open_regular(path, follow=True) as file:
            file.read(1)
            status = os.fstat(file.fileno())
    except OSError as error:
        return {"problem": error.strerror or str(error), "mode": 0}
    certified: Certificate = certificate(path) if status.st_size <= LARGEST else {}
    return {"problem": "", "mode": stat.S_IMODE(status.st_mode), **certified}


def certificate(path: str) -> Certificate:
    """Read the first certificate of a PEM file; nothing where there is none."""
    import hashlib
    import ssl  # its 6 ms are not for every probe

    try:
        decoded = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]  # what Python has for it without more
        digest = hashlib.sha256(files.read_start(path, LARGEST, follow=True)).hexdigest()
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
