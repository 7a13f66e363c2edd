"""The files of a server's TLS on this host: whether they can be read, by whom else, and until when they are good."""

import os
import stat
from typing import Any, Dict, Iterable

LARGEST = 1 << 20
"""Bytes that are read of a file: a bundle of all the world's authorities has a quarter of that."""


def observe(paths: Iterable[str]) -> Dict[str, Dict[str, Any]]:
    """What is to be said of each path, in the shape of `observation.TlsFile`. A relative one starts at home, where
    engines run."""
    return {path: look(os.path.join(os.path.expanduser("~"), path)) for path in paths}


def look(path: str) -> Dict[str, Any]:
    """One file: {problem, mode}, and of a certificate what `certificate` says."""
    try:
        with open(path, "rb") as file:
            file.read(1)
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OSError as error:
        return {"problem": error.strerror or str(error), "mode": 0}
    return {"problem": "", "mode": mode, **certificate(path)}


def certificate(path: str) -> Dict[str, Any]:
    """Of the first certificate of a PEM file: `expires`, in Unix time; the `names` and IP addresses that it is for;
    whether it is `self_signed`; and the file's `hash`. Nothing where there is none."""
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
