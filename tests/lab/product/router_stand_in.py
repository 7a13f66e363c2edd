"""A stand-in for the command `vllm-router`: it really routes, in turn, and passes streams on as they come.

`--worker-urls URL…` are its first workers; `/list_workers`, `/add_worker?url=` and `/remove_worker?url=` are as
vllm-router 0.1.17 has them (status 200 for what it does not have, 400 for what it has already, an answer to `add` once
the worker is healthy). Like it, it tries another worker where one takes no connection.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

HEALTHY_SECONDS, PIECE = 20.0, 1 << 16
PASSED_ON = ("Content-Type", "Authorization")

workers: list[str] = []
turn = [0]
changing = threading.Lock()


def main() -> None:
    words = sys.argv[1:]
    first = words.index("--worker-urls") + 1
    while first < len(words) and not words[first].startswith("--"):
        workers.append(words[first])
        first += 1
    port = next(int(word.partition("=")[2]) for word in words if word.startswith("--port="))
    server = ThreadingHTTPServer(("0.0.0.0", port), Routes)
    server.daemon_threads = True
    server.serve_forever()


def is_healthy(url: str) -> bool:
    place = urlsplit(url)
    talk = http.client.HTTPConnection(str(place.hostname), place.port, timeout=5)
    try:
        talk.request("GET", "/health")
        return talk.getresponse().status == 200
    except OSError:
        return False
    finally:
        talk.close()


class Routes(BaseHTTPRequestHandler):
    """What clients and operators ask."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self._answer(200, "OK")
        elif self.path == "/list_workers":
            with changing:
                self._answer(200, json.dumps({"urls": workers[::-1]}))
        else:
            self._pass_on(None)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        place = urlsplit(self.path)
        url = parse_qs(place.query).get("url", [""])[0]
        if place.path == "/add_worker":
            self._add(url)
        elif place.path == "/remove_worker":
            with changing:
                workers[:] = [worker for worker in workers if worker != url]
            self._answer(200, f"Successfully removed worker: {url}")
        else:
            self._pass_on(body)

    def _add(self, url: str) -> None:
        end = time.monotonic() + HEALTHY_SECONDS
        while not is_healthy(url) and time.monotonic() < end:
            time.sleep(0.2)
        with changing:
            if url in workers:
                self._answer(400, f"Worker {url} already exists")
                return
            workers.append(url)
        self._answer(200, f"Successfully added worker: {url}")

    def _pass_on(self, body: bytes | None) -> None:
        with changing:
            turn[0] += 1
            order = [workers[(turn[0] + at) % len(workers)] for at in range(len(workers))]
        for url in order:
            place = urlsplit(url)
            talk = http.client.HTTPConnection(str(place.hostname), place.port, timeout=60)
            try:
                kept = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
                talk.request(self.command, self.path, body, kept)
                reply = talk.getresponse()
            except OSError:
                continue
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.headers.get("Content-Type", "text/plain"))
            self.end_headers()
            while piece := reply.read1(PIECE):
                self.wfile.write(piece)
            talk.close()
            return
        self._answer(503, "No available workers (all circuits open or unhealthy)")

    def log_message(self, form: str, *words: Any) -> None:
        sys.stdout.write(f"{self.client_address[0]} {form % words}\n")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


if __name__ == "__main__":
    main()
