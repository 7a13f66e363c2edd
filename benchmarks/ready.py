"""Time `run` until Ray is complete on four hosts, and until the first token of vLLM over two.

python -m benchmarks.ready [--json FILE]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.deployment import Operator, everywhere, stood_in
from benchmarks.figures import Figure
from benchmarks.running import ROOT, bench
from benchmarks.stop import RAY_STOP
from tests.e2e import tiny
from tests.environments.build import mounts, node_environment, tiny_model
from tests.lab import Host, Lab
from tests.lab.product import stand_in

TOLERATED_SECONDS = 1.0
"""What checking, planning and counting may add to the slowest `ray start`."""
PORT = 4567
ROUNDS = 1
"""Each takes a minute or two, and varies little (docs/internals/benchmarks.md)."""
SCRIPTS = Path(__file__).parent / "peers"
VLLM_STOP = "pkill -9 -f 'VLLM::|vllm serve'; true"
"""Ends all of vLLM on a host of the lab, which has a process space of its own."""


def measure(_quick: bool) -> list[Figure]:
    """Take all figures."""
    with tempfile.TemporaryDirectory(prefix="fsd-bench-") as folder:
        place = Path(folder)
        return [*_ray_on_four(place / "four", ROUNDS), *_token_of_two(place / "two", ROUNDS)]


def _ray_on_four(place: Path, rounds: int) -> list[Figure]:
    place.mkdir()
    venv, standing = node_environment(), stand_in.build(place / "environment")
    with Lab(hosts=4, gpus=1, mounts=[*mounts(venv), *standing.mounts]) as lab:
        path = f'export PATH={standing.command}:"$PATH"'
        operator = stood_in(place, lab, venv, 1, "on", before_start=path)
        operator("check", "-q")  # vLLM's own parser reads a command line once; the result is cached
        whole, sequential, slowest = [], [], []
        for _ in range(rounds):
            whole.append(_until_ray_is_complete(operator))
            operator("stop", "-q")
            starts = [_ray_start(host, lab.hosts[0], venv) for host in lab.hosts]
            sequential.append(sum(starts))
            slowest.append(max(starts))
            everywhere(lab, RAY_STOP.format(venv=venv))
    ours, single, others = map(statistics.median, (whole, slowest, sequential))
    what = "run until Ray is complete"
    return [
        Figure("ready", f"{what}, 4 hosts / (slowest ray start + 1 s)", ours / (single + TOLERATED_SECONDS), "×", 1.3,
               f"{ours:.1f} s; {single:.1f} s"),
        Figure("ready", f"{what} / the same starts one after another", ours / others, "×", 0.5, f"{others:.1f} s"),
    ]  # fmt: skip


def _until_ray_is_complete(operator: Operator) -> float:
    began = time.time()
    operator("run", "-q")
    events = max(operator.place.glob("outputs/*/runs/*/events.jsonl"), key=lambda path: path.parent.name)
    records = [json.loads(line) for line in events.read_text().splitlines()]
    return float(max(record["at"] for record in records if record["stage"] == "ray-nodes") - began)


def _ray_start(host: Host, head: Host, venv: Path) -> float:
    """Return the seconds of one host's `ray start` over ssh, by itself."""
    role = "--head --port=6379" if host is head else f"--address={head.address}:6379"
    began = time.monotonic()
    host.ssh(
        f". {venv}/bin/activate; export RAY_AUTH_MODE=disabled; ray start {role} --node-ip-address={host.address}"
        " --num-gpus=1 --disable-usage-stats --temp-dir=/tmp/peer </dev/null >/tmp/peer.log 2>&1",
        timeout=120,
    )
    return time.monotonic() - began


def _token_of_two(place: Path, rounds: int) -> list[Figure]:
    place.mkdir()
    venv, model = node_environment(), tiny_model()
    with Lab(hosts=2, gpus=1, mounts=[*mounts(venv), model]) as lab:
        inventory = lab.inventory(place / "hosts.yaml", venv=str(venv))
        config = tiny.write(place / "bench.yaml", model, port=PORT, gpus=2, flags={"tensor-parallel-size": 2})
        operator = Operator(place, inventory, config)

        def product(executor: str) -> float:
            took = operator("run", "-q", f"deploy.executor={executor}")
            operator("stop", "-q")
            return took

        def script(name: str, stop: str) -> float:
            took = _by_hand(lab, venv, model, name)
            everywhere(lab, stop)
            return took

        product("ray")  # vLLM inspects a model's class once, 10 s, and caches it; so does our check of its flags
        operator("check", "-q", "deploy.executor=mp")
        ray, by_hand, without, beside = _in_turn(
            rounds,
            partial(product, "ray"),
            partial(script, "two_hosts.sh", RAY_STOP.format(venv=venv)),
            partial(product, "mp"),
            partial(script, "two_hosts_mp.sh", VLLM_STOP),
        )
    what = "run until the first token, 2 hosts with vLLM"
    return [
        Figure("ready", f"{what} / a shell script", ray / by_hand, "×", 1.15, f"{ray:.1f} s / {by_hand:.1f} s"),
        Figure("ready", f"{what} without Ray / two `vllm serve` by hand", without / beside, "×", 1.10,
               f"{without:.1f} s / {beside:.1f} s; over Ray {ray:.1f} s"),
    ]  # fmt: skip


def _in_turn(rounds: int, *acts: Callable[[], float]) -> list[float]:
    """Return the medians of the times of functions that are called in turn."""
    taken: list[list[float]] = [[] for _ in acts]
    for _ in range(rounds):
        for act, seconds in zip(acts, taken, strict=True):
            seconds.append(act())
    return [statistics.median(seconds) for seconds in taken]


def _by_hand(lab: Lab, venv: Path, model: Path, script: str) -> float:
    """Run a script of `peers`; return the seconds until it has its token."""
    head, worker = lab.hosts
    arguments = [head.address, worker.address, str(venv), str(model), str(PORT)]
    argv = ["bash", str(SCRIPTS / script), *arguments, *head.ssh_argv()[:-1]]
    began = time.monotonic()
    done = subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"{script}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return took


if __name__ == "__main__":
    sys.exit(bench(measure, sys.argv[1:]))
