"""Certificates that vouch for themselves, and servers that speak TLS with them."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def certificate(folder: Path, name: str, *addresses: str) -> tuple[Path, Path]:
    """A self-signed certificate for a name, and for IP addresses if any; its file and its key's."""
    written, key = folder / f"{name}.pem", folder / f"{name}.key"
    names = ",".join(f"IP:{each}" for each in addresses)
    more = ["-addext", f"subjectAltName={names}"] if names else []
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-days", "2",
         *more, "-keyout", key, "-out", written],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return written, key


@contextmanager
def serving(pair: tuple[Path, Path], handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """A server on 127.0.0.1 with a certificate and its key; its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
