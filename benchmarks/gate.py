"""Time the first token through the gate beside the same without it, and weigh the gate with many open streams.

python -m benchmarks.gate [--quick] [--json FILE]
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.running import bench
from tests.component.gate.gate import ALICE, INTERNAL, Gate
from tests.component.gate.stand_in import MODEL, StandIn
from tests.component.gate.test_streams import many

NAME = "gate"
ROUNDS, QUICK_ROUNDS = 2000, 300
STREAMS, QUICK_STREAMS = 2000, 500
WARM_UP = 50
PROMPT = "What is the answer? " * 100


class Client:
    """A connection that is kept, as clients keep theirs."""

    def __init__(self, port: int, key: str) -> None:
        body = {"model": MODEL, "stream": True, "tokens": 1, "messages": [{"role": "user", "content": PROMPT}]}
        content = json.dumps(body).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: {key}\r\nContent-Length: {len(content)}"
        )
        self._request = f"{head}\r\n\r\n".encode() + content
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def first_token(self) -> float:
        """Return the milliseconds from a request to the first token of its reply, which is read to its end."""
        began = time.perf_counter()
        self._socket.sendall(self._request)
        received = self._socket.recv(65536)
        while b"token 0" not in received:
            received += self._socket.recv(65536)
        milliseconds = 1000 * (time.perf_counter() - began)
        while not received.endswith(b"\r\n0\r\n\r\n"):
            received += self._socket.recv(65536)
        return milliseconds

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def measure(quick: bool) -> list[Figure]:
    """Take both figures before a stand-in for vLLM's server, whose first token takes no time."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * STREAMS)), hard))
    with tempfile.TemporaryDirectory(prefix="fsd-bench-") as folder, StandIn(key=INTERNAL) as server:
        with Gate(Path(folder), {MODEL: [server.url]}) as gate:
            first_token = _first_token(gate, server, QUICK_ROUNDS if quick else ROUNDS)
            return [first_token, _memory(gate, server, QUICK_STREAMS if quick else STREAMS)]


def _first_token(gate: Gate, server: StandIn, rounds: int) -> Figure:
    directly, through = Client(server.port, f"Bearer {INTERNAL}"), Client(gate.port, ALICE["Authorization"])
    times = [(directly.first_token(), through.first_token()) for _ in range(rounds + WARM_UP)][WARM_UP:]
    directly.close()
    through.close()
    without, behind = (statistics.median(column) for column in zip(*times, strict=True))
    worst = statistics.quantiles([behind for _, behind in times], n=100)[98]
    detail = f"{behind:.2f} ms behind it, {without:.2f} ms without; 99 of 100 below {worst:.2f} ms"
    return Figure(NAME, "added to the first token, median", behind - without, "ms", 1.0, detail)


def _memory(gate: Gate, server: StandIn, streams: int) -> Figure:
    before = gate.memory()
    memory, contents = asyncio.run(many(gate, server, streams))
    lost = sum(not content.endswith(b"data: [DONE]\n\n") for content in contents)
    if lost:
        raise RuntimeError(f"{lost} of {streams} streams are not whole")
    detail = f"{before:.0f} MiB before; none lost"
    return Figure(NAME, f"resident memory with {streams:,} open streams", memory, "MiB", 300, detail)


if __name__ == "__main__":
    sys.exit(bench(measure, sys.argv[1:]))
