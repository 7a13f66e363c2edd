"""Time `stop`, from the command to the proof that everything is gone, with an engine that ends at SIGTERM at once.

python -m benchmarks.stop [--quick] [--json FILE]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.deployment import Operator, everywhere, require_gone, stood_in
from benchmarks.figures import Figure
from benchmarks.running import bench
from tests.environments.build import mounts, node_environment
from tests.lab import Lab
from tests.lab.product import stand_in

RAY_STOP = """
. {venv}/bin/activate
pkill -f 'vllm serve'
ray stop
for i in $(seq 50); do
  pids=$(pgrep -f 'vllm|ray::|raylet|gcs_server|/ray/dashboard|/ray/_private') || exit 0
  [ "$i" != 25 ] || kill -9 $pids
  sleep 0.1
done
"""
"""The usual way by hand: end the engine, `ray stop`, look, and SIGKILL what is still there."""


def measure(quick: bool) -> list[Figure]:
    """Take all figures; the quick run needs no Ray."""
    with tempfile.TemporaryDirectory(prefix="fsd-bench-") as folder:
        place = Path(folder)
        standing = stand_in.build(place / "environment")
        medians = {hosts: _without_ray(place / str(hosts), hosts, standing, 2 if quick else 3) for hosts in (2, 8)}
        figures = [
            Figure("stop", "stop, 2 hosts serving without Ray", medians[2], "s", 3.0),
            Figure("stop", "stop, 8 hosts / 2 hosts", medians[8] / medians[2], "×", 1.5, f"{medians[8]:.2f} s"),
        ]
        if not quick:
            ours, theirs = _with_ray(place / "ray", standing, 2)
            figures += [
                Figure("stop", "stop, 2 hosts serving over Ray", ours, "s", 3.0),
                Figure("stop", "stop / ray stop plus kill, 2 hosts", ours / theirs, "×", 0.5, f"{theirs:.2f} s"),
            ]
    return figures


def _without_ray(place: Path, hosts: int, standing: stand_in.StandIn, rounds: int) -> float:
    place.mkdir()
    with Lab(hosts=hosts, gpus=1, mounts=standing.mounts) as lab:
        operator = stood_in(place, lab, standing.environment, models=hosts)
        return statistics.median(_stop(operator, lab) for _ in range(rounds))


def _with_ray(place: Path, standing: stand_in.StandIn, rounds: int) -> tuple[float, float]:
    """Return the median times of our `stop` and of `ray stop` plus kill, run in turn."""
    place.mkdir()
    venv = node_environment()
    with Lab(hosts=2, gpus=1, mounts=[*mounts(venv), *standing.mounts]) as lab:
        path = f'export PATH={standing.command}:"$PATH"'
        operator = stood_in(place, lab, venv, 1, "on", "ray", before_start=path)
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(_stop(operator, lab))
            operator("run", "-q")
            theirs.append(everywhere(lab, RAY_STOP.format(venv=venv)))
            operator("stop", "-q")
    return statistics.median(ours), statistics.median(theirs)


def _stop(operator: Operator, lab: Lab) -> float:
    operator("run", "-q")
    before = lab.processes("bench")
    took = operator("stop", "-q")
    require_gone([left for left in lab.leftovers("bench", before) if left.kind != "directory"])
    return took


if __name__ == "__main__":
    sys.exit(bench(measure, sys.argv[1:]))
