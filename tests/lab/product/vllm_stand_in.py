"""A stand-in for the command `vllm`: `vllm serve MODEL --port=N …` that serves in a moment, or fails as it is told to.

It writes what it was given to /dev/shm/vllm-stand-in/<port>.json (argv, environment, pid, children), prints lines in
vLLM's words, answers /health, /v1/models, /v1/completions and /v1/chat/completions, and wants the key in VLLM_API_KEY
if there is one. With `--headless`, it answers nobody, and its port is 0.
`STAND_IN` in its environment tells it to misbehave, in words with commas between them:

    dies        ends while loading, with the line in STAND_IN_ERROR; the time is left in /dev/shm/vllm-stand-in/died
    leaks       ends while loading, and prints its environment, its flags and its secrets in every form
    hangs       never finishes loading
    stuck       says the line in STAND_IN_ERROR, and never finishes loading
    tokenless   is healthy, and fails whatever asks for tokens
    stubborn    ignores SIGTERM
    forks       starts children that are renamed and have no environment: an orphan, and one in its own session
    core        has an engine core of its own, VLLM::EngineCore: ends with the line in STAND_IN_ERROR when that ends,
                and gives no tokens while that is stopped
    streams     answers a stream word by word for a second or two, and counts its requests in /metrics
    ray         runs a task on every node of the Ray cluster in RAY_ADDRESS, which prints a line
    actors      with `ray`: keeps an actor on every node, and ends when one of them has; like vLLM's monitor of its
                workers, it looks no longer once Ray itself fails

While /dev/shm/vllm-stand-in/doomed is there, every stand-in of the host dies as with `dies`.
While there is a file /dev/shm/hold-loading it does not finish loading, and while there is /dev/shm/hold-engine it does
not end of SIGTERM. SIGUSR1 ends it with the line in STAND_IN_ERROR, SIGUSR2 makes its engine die behind it: it says
that line, answers /health with 503 from then on, and no tokens. STAND_IN_METRICS is JSON: figures by name, for
/metrics.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

PLACE = Path("/dev/shm/vllm-stand-in")
HOLD_LOADING, HOLD_ENGINE = Path("/dev/shm/hold-loading"), Path("/dev/shm/hold-engine")
WORDS = os.environ.get("STAND_IN", "").split(",")
KEY = os.environ.get("VLLM_API_KEY")
METRICS = json.loads(os.environ.get("STAND_IN_METRICS", "{}"))
LOADING = "Loading safetensors checkpoint shards: {percent}% Completed | {done}/4 [00:0{done}<00:01,  1.00it/s]"


sick, ending = threading.Event(), threading.Event()
cores: list[int] = []
at_work = [0]
counting = threading.Lock()


def bench() -> None:
    """Ask once, as `vllm bench serve` does, and leave a result; wait while there is a /dev/shm/hold-bench."""
    given = dict(word[2:].split("=", 1) for word in sys.argv[3:] if "=" in word)
    while Path("/dev/shm/hold-bench").exists():
        time.sleep(0.02)
    body = {"model": given["served-model-name"], "prompt": "hi", "max_tokens": 1}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY')}"}
    asked = Request(given["base-url"] + given["endpoint"], json.dumps(body).encode(), headers)
    with urlopen(asked) as reply:
        json.load(reply)
    result = {"completed": int(given["num-prompts"]), "failed": 0, "duration": 1.0, "p99_ttft_ms": 5.0}
    (Path(given["result-dir"]) / given["result-filename"]).write_text(json.dumps(result))


def main() -> None:
    if sys.argv[1:3] == ["bench", "serve"]:
        bench()
        return
    signal.signal(signal.SIGUSR1, die)
    signal.signal(signal.SIGUSR2, fall_ill)
    follower = "--headless" in sys.argv
    port = 0 if follower else next(int(word.partition("=")[2]) for word in sys.argv if word.startswith("--port="))
    if "stubborn" in WORDS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, end_when_let)
    children = fork_renamed() if "forks" in WORDS else start_core() if "core" in WORDS else []
    write_down(port, children)
    say(f"vLLM API server version 0.0 (a stand-in), pid {os.getpid()}")
    load()
    if "ray" in WORDS:
        use_ray()
    while follower:
        signal.pause()
    server = ThreadingHTTPServer(("0.0.0.0", port), Answers)
    say("Application startup complete.")
    server.serve_forever()


def die(_number: int, _frame: object) -> None:
    say(f"ERROR 11-22 10:00:00 [core.py:42] {os.environ['STAND_IN_ERROR']}")
    os._exit(1)


def end_when_let(_number: int, _frame: object) -> None:
    ending.set()
    while HOLD_ENGINE.exists():
        time.sleep(0.02)
    os._exit(0)


def fall_ill(_number: int, _frame: object) -> None:
    say(f"ERROR 11-22 10:00:00 [core.py:42] {os.environ['STAND_IN_ERROR']}")
    sick.set()


def fork_renamed() -> list[int]:
    """Two processes as a look at /proc finds Ray's and vLLM's: with a name of their own, their environment gone."""
    renamed = "exec -c -a VLLM::EngineCore sleep 3600"
    orphan = subprocess.check_output(["bash", "-c", f"({renamed}) >/dev/null 2>&1 & echo $!"], text=True)
    apart = subprocess.Popen(["bash", "-c", renamed], start_new_session=True)
    return [int(orphan), apart.pid]


def start_core() -> list[int]:
    """Start a process that is named like vLLM's engine core; without it there is no engine."""
    core = subprocess.Popen(["bash", "-c", "exec -a VLLM::EngineCore sleep 3600"])
    threading.Thread(target=die_with, args=(core,), daemon=True).start()
    cores.append(core.pid)
    return [core.pid]


def is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def die_with(core: subprocess.Popen[bytes]) -> None:
    core.wait()
    if not ending.wait(0.5):  # SIGTERM comes to both at the same time
        die(0, None)


def write_down(port: int, children: list[int]) -> None:
    PLACE.mkdir(exist_ok=True)
    record = {"argv": sys.argv, "environ": dict(os.environ), "pid": os.getpid(), "children": children}
    fresh = PLACE / f".{port}"
    fresh.write_text(json.dumps(record))
    fresh.rename(PLACE / f"{port}.json")


def load() -> None:
    for done in range(1, 5):
        say(LOADING.format(percent=25 * done, done=done))
        time.sleep(0.05)
        while HOLD_LOADING.exists():
            time.sleep(0.02)
        if "stuck" in WORDS:
            say(f"ERROR 11-22 10:00:00 [ray_utils.py:42] {os.environ['STAND_IN_ERROR']}")
        if "hangs" in WORDS or "stuck" in WORDS:
            signal.pause()
            time.sleep(3600)
        if "leaks" in WORDS:
            leak()
        if "dies" in WORDS or (PLACE / "doomed").exists():
            say(f"ERROR 11-22 10:00:00 [core.py:42] {os.environ['STAND_IN_ERROR']}")
            say("RuntimeError: Engine core initialization failed. See root cause above.")
            (PLACE / "died").write_text(str(time.time()))
            sys.exit(1)


def leak() -> None:
    for value in (os.environ["HF_TOKEN"], os.environ["VLLM_API_KEY"]):
        encoded = base64.b64encode(value.encode()).decode(), base64.b64encode(f"u:{value}".encode()).decode()
        shown = (value, shlex.quote(value), quote(value), quote(value, safe=""), *encoded)
        say(f"ERROR 11-22 10:00:00 [core.py:42] OSError: 401 Client Error: {' '.join(shown)}")
    say(f"ERROR 11-22 10:00:00 [core.py:42] RuntimeError: {sys.argv} {dict(os.environ)}")
    sys.exit(1)


def use_ray() -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.init(log_to_driver=False)

    def work() -> str:
        sys.stdout.write("a worker of the stand-in\n")
        sys.stdout.flush()
        return str(ray.util.get_node_ip_address())

    task = ray.remote(num_gpus=1)(work)
    nodes = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in ray.nodes() if node["Alive"]]
    results = ray.get([task.options(scheduling_strategy=node).remote() for node in nodes])
    say(f"workers on {' '.join(sorted(results))}")
    if "actors" in WORDS:
        keep_actors(nodes)


def keep_actors(nodes: list[Any]) -> None:
    import ray

    class Worker:
        def run(self) -> None:
            time.sleep(86400)

    workers = [ray.remote(num_gpus=1)(Worker).options(scheduling_strategy=node).remote() for node in nodes]
    running = [worker.run.remote() for worker in workers]

    def monitor(_kept: list[Any]) -> None:
        while True:
            try:
                ended, _ = ray.wait(running, num_returns=1, timeout=5.0)
            except Exception as error:  # noqa: BLE001 (as in vLLM)
                say(f"the monitor of workers has failed: {error}")
                return
            if ended:
                say("a worker has ended")
                os._exit(1)

    threading.Thread(target=monitor, args=(workers,), daemon=True).start()


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Answers(BaseHTTPRequestHandler):
    """The part of an OpenAI server that is asked for."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self._answer(503 if sick.is_set() else 200, {})
        elif self.path == "/metrics":
            work = {"vllm:num_requests_running": at_work[0], "vllm:num_requests_waiting": 0}
            figures = {**(work if "streams" in WORDS else {}), **METRICS}
            self._send(200, "text/plain", "".join(f'{name}{{engine="0"}} {value}\n' for name, value in figures.items()))
        elif self._may():
            self._answer(200, {"data": [{"id": "stand-in"}]} if self.path == "/v1/models" else {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._may():
            return
        while any(map(is_stopped, cores)):
            time.sleep(0.05)
        if "tokenless" in WORDS or sick.is_set():
            self._answer(500, {"error": {"message": "EngineCore encountered an issue."}})
        elif self.path == "/v1/completions":
            self._answer(200, self._completion({"text": " token"}))
        elif self.path == "/v1/chat/completions":
            reply = f"you said: {asked['messages'][-1]['content']}"
            if asked.get("stream"):
                words = [self._completion({"delta": {"content": f"{word} "}}) for word in reply.split(" ")]
                words[-1]["choices"][0]["delta"]["content"] = reply.split(" ")[-1]
                chunks = [f"data: {json.dumps(word)}\n\n" for word in words]
                if "streams" in WORDS:
                    self._stream([*chunks, "data: [DONE]\n\n"])
                    return
                self._send(200, "text/event-stream", "".join([*chunks, "data: [DONE]\n\n"]))
                return
            self._answer(200, self._completion({"message": {"role": "assistant", "content": reply}}))
        else:
            self._answer(404, {"error": {"message": "Not Found"}})

    def log_message(self, form: str, *words: Any) -> None:
        say(f"INFO:     {self.client_address[0]} - {form % words}")

    def _may(self) -> bool:
        if KEY is None or self.headers["Authorization"] == f"Bearer {KEY}":
            return True
        self._answer(401, {"error": "Unauthorized"})
        return False

    def _completion(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {"choices": [{"index": 0, **choice}], "usage": {"completion_tokens": 1}}

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(content))

    def _stream(self, chunks: list[str]) -> None:
        """Send chunks one after the other; the end of the connection is the end of the reply."""
        with counting:
            at_work[0] += 1
        try:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for chunk in chunks:
                self.wfile.write(chunk.encode())
                time.sleep(0.1)
        finally:
            with counting:
                at_work[0] -= 1

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    main()
