"""An engine that is slow, and never hangs, is never restarted: half an hour of mixed load (`make faults`).

`FSD_LOAD_SECONDS` makes it shorter. Long prompts are among short ones, a client reads nothing for minutes, and there
are times without a request. `hang` is 1.5 times the longest step that was measured just before.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e import tiny
from tests.environments import build
from tests.lab import Lab
from tests.lab.product.operator import Operator

pytestmark = [pytest.mark.e2e, pytest.mark.lab, pytest.mark.timeout(3600)]

PORT, NAME = 4567, "steady"
SECONDS = float(os.environ.get("FSD_LOAD_SECONDS", "1800"))
MEASURED_SECONDS = 40.0
LEAST_HANG = 5.0
"""A step of the tiny model takes milliseconds. With 1 s it was restarted once in half an hour while other tests had the
cores: a look at the counters fails after a second."""
FLAGS = {**tiny.IN_ONE_PROCESS, "max-model-len": 1024, "max-num-batched-tokens": 1024}
WORDS = ("deploy.restart.policy=on-failure", "deploy.restart.interval=2", "deploy.ray=auto")
COUNTERS = ("vllm:iteration_tokens_total_count", "vllm:generation_tokens_total", "vllm:prompt_tokens_total")


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab], node_env: Path, tiny_model: Path) -> Lab:
    return make_lab(hosts=1, gpus=1, mounts=[*build.mounts(node_env), tiny_model])


class Load:
    """Clients of a server, until they are ended; it counts what was answered."""

    def __init__(self, url: str) -> None:
        self._url, self._over = url, threading.Event()
        self.answered, self.failures = itertools.count(), list[str]()
        self._threads = [threading.Thread(target=self._ask, args=(seed,), daemon=True) for seed in range(3)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(120)

    def _ask(self, seed: int) -> None:
        """Ask again and again: mostly short, now and then with a prompt of 800 tokens; and pause now and then."""
        chance = random.Random(seed)
        while not self._over.is_set():
            words = 200 if chance.random() < 0.2 else 10
            body = {
                "model": "tiny",
                "prompt": "a b " * words,
                "max_tokens": chance.choice((1, 16, 64)),
                "ignore_eos": True,
            }
            request = urllib.request.Request(
                f"{self._url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, timeout=120) as reply:
                    reply.read()
                next(self.answered)
            except OSError as error:
                self.failures.append(str(error))
            if chance.random() < 0.05:
                self._over.wait(chance.uniform(1, 20))


@contextlib.contextmanager
def paused_client(address: str) -> Iterator[None]:
    """Begin a long stream, and read nothing of it."""
    body = json.dumps({"model": "tiny", "prompt": "a", "max_tokens": 1000, "ignore_eos": True, "stream": True})
    with socket.create_connection((address, PORT), 10) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(
            f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        yield


def counters(url: str) -> tuple[float, float]:
    """Return the sum of the token counters, and the number of requests that run or wait."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as reply:
        lines = [line for line in reply.read().decode().splitlines() if not line.startswith("#")]
    tokens = sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(COUNTERS))
    waiting = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    return tokens, sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(waiting))


def longest_step(url: str, seconds: float) -> float:
    """Return the longest time without a new token while there was work."""
    longest, before, since = 0.0, -1.0, time.monotonic()
    end = since + seconds
    while time.monotonic() < end:
        tokens, work = counters(url)
        now = time.monotonic()
        if tokens != before or not work:
            before, since = tokens, now
        longest = max(longest, now - since)
        time.sleep(0.02)
    return longest


def test_half_an_hour_of_mixed_load_restarts_nothing(lab: Lab, operator: Operator, tiny_model: Path) -> None:
    config = tiny.write(operator.directory / f"{NAME}.yaml", tiny_model, port=PORT, gpus=1, flags=FLAGS)
    url = f"http://{lab.hosts[0].address}:{PORT}"
    operator.start("run", "-c", config, *WORDS).end(0, within=600)
    with Load(url):
        step = longest_step(url, min(MEASURED_SECONDS, SECONDS))
    operator("stop", "--name", NAME)
    hang = max(1.5 * step, LEAST_HANG)
    operator.start("run", "-c", config, *WORDS, f"deploy.restart.hang={hang:.2f}").end(0, within=600)
    with Load(url) as load, paused_client(lab.hosts[0].address):
        time.sleep(SECONDS)
    (instance,) = operator("status", "--name", NAME, "--json").json["instances"]
    assert (instance["state"], instance["restarts"], instance["evidence"]) == ("ready", 0, ""), instance
    assert load.failures == []
    print(f"{next(load.answered)} answers in {SECONDS:g} s with hang {hang:.2f} s; longest step {step:.2f} s")  # noqa: T201
    operator("cleanup", "--name", NAME)
