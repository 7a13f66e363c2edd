"""The files of a server's TLS on this host: whether they can be read, by whom else, and until when they are good."""

import os
import stat
from typing import Any, Dict, Iterable


def observe(paths: Iterable[str]) -> Dict[str, Dict[str, Any]]:
    """What is to be said of each path, in the shape of `observation.TlsFile`. A relative one starts at home, where
    engines run."""
    return {path: look(os.path.join(os.path.expanduser("~"), path)) for path in paths}


def look(path: str) -> Dict[str, Any]:
    """One file: {problem, mode, expires}, the last in Unix time, None for what is no certificate."""
    try:
        with open(path, "rb") as file:
            file.read(1)
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OSError as error:
        return {"problem": error.strerror or str(error), "mode": 0, "expires": None}
    return {"problem": "", "mode": mode, "expires": expires(path)}


def expires(path: str) -> Any:
    """When the first certificate of a PEM file ends to be good; None where there is none."""
    import ssl  # its 6 ms are not for every probe

    try:
        decoded = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]  # what Python has for it without more
        return float(ssl.cert_time_to_seconds(decoded["notAfter"]))
    except (AttributeError, KeyError, OSError, ValueError):  # ssl.SSLError is an OSError
        return None
