"""Time the tool itself, without any host.

python -m benchmarks.tool [--quick] [--json FILE]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.pairs import Timing, time_side_by_side
from benchmarks.running import PRODUCT, PYTHON, ROOT, bench

HOSTS = 1000
CONFIG = """
experiment: {exp_name: qwen}
model_args:
  vllm_model: {model-tag: /models/Qwen, tensor-parallel-size: 8, pipeline-parallel-size: 1000, port: 4567}
deploy: {models: {vllm_model: {num_gpus: 8000}}}
"""
GROUP = """
experiment: {exp_name: v3}
model_args: {v3: {model-tag: /models/V3, data-parallel-size: 512, enable-expert-parallel: true, port: 4567}}
deploy: {executor: mp}
"""
"""A rank for each of 64 of the hosts."""
LIMITS = {"--help": 0.15, "plan --offline, 1000 hosts": 1.0, "plan --offline, 512 data-parallel ranks": 1.0}


def measure(quick: bool) -> list[Figure]:
    """Measure wall time; in the quick run CPU time, on which other load of the machine has little influence."""
    with tempfile.TemporaryDirectory(prefix="fsd-bench-") as folder:
        place = Path(folder)
        inventory, config, group = place / "hosts.yaml", place / "qwen.yaml", place / "v3.yaml"
        entries = (
            f"- {{name: gpu{at:04d}, address: 10.0.{at // 250}.{at % 250 + 1}, gpus: 8}}\n" for at in range(HOSTS)
        )
        inventory.write_text("hosts:\n" + "".join(entries))
        config.write_text(CONFIG)
        group.write_text(GROUP)
        planning = [*PRODUCT, "plan", "--offline", "-i", str(inventory), "-c"]
        commands = {
            "python -c pass": [PYTHON, "-c", "pass"],
            "--help": [*PRODUCT, "--help"],
            "plan --offline, 1000 hosts": [*planning, str(config)],
            "plan --offline, 512 data-parallel ranks": [*planning, str(group)],
        }
        env = {"PATH": os.environ["PATH"], "HOME": folder, "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
        timings = time_side_by_side(commands, 3 if quick else 9, cwd=place, env=env)
    return [_figure(timing, quick) for timing in timings.values()]


def _figure(timing: Timing, quick: bool) -> Figure:
    cpu = statistics.median(timing.cpu)
    spread = f"{min(timing.seconds):.2f} to {max(timing.seconds):.2f}, CPU {cpu:.2f}"
    return Figure("the tool", timing.name, cpu if quick else timing.median, "s", LIMITS.get(timing.name), spread)


if __name__ == "__main__":
    sys.exit(bench(measure, sys.argv[1:]))
