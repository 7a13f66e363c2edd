"""Run all benchmarks, one after the other: a table, and with --output JSON and a plot.

python -m benchmarks [--quick] [--only NAME] [--output DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.figures import Figure, table
from benchmarks.plot import plot
from benchmarks.running import PYTHON, ROOT

PARTS = {
    "tool": ["benchmarks.tool"],
    "fan-out": ["benchmarks.loopback", "benchmarks.fan_out"],
    "check": ["benchmarks.check"],
    "logs": ["benchmarks.logs"],
    "following": ["benchmarks.loopback", "benchmarks.logs"],
    "stop": ["benchmarks.stop"],
    "supervision": ["benchmarks.supervision"],
    "gate": ["benchmarks.gate"],
    "ready": ["benchmarks.ready"],
}
"""The modules to run; `loopback` runs the module after it in a network of its own."""
SLOW = ("ready",)
"""These need real vLLM; --quick leaves them out."""


def main(arguments: list[str]) -> int:
    """Run the chosen benchmarks; return 1 if a target is missed (`--quick`: by far)."""
    options = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    options.add_argument(
        "--quick", action="store_true", help="a short run of two minutes; fail only at twice the target"
    )
    options.add_argument("--only", choices=PARTS, action="append")
    options.add_argument("--output", type=Path)
    parsed = options.parse_args(arguments)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job of a shell: what is measured inherits it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    chosen = parsed.only or [name for name in PARTS if not (parsed.quick and name in SLOW)]
    figures = [figure for name in chosen for figure in _run(name, parsed.quick)]
    sys.stdout.write(table(figures) + "\n")
    if parsed.output:
        parsed.output.mkdir(parents=True, exist_ok=True)
        content = {"machine": _machine(), "figures": [asdict(figure) for figure in figures]}
        (parsed.output / "bench.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        (parsed.output / "bench.svg").write_text(plot(figures))
    return int(any(figure.gross if parsed.quick else not figure.met for figure in figures))


def _run(name: str, quick: bool) -> list[Figure]:
    """Run one benchmark in a process of its own. Raises RuntimeError where it gives no figures."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        argv = [PYTHON, "-m", *PARTS[name], *(["--quick"] if quick else []), "--json", str(path)]
        done = subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if not path.exists():
            raise RuntimeError(f"{name}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
        figures = [Figure(**values) for values in json.loads(path.read_text())]
    sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s\n")
    return figures


def _machine() -> dict[str, object]:
    system = os.uname()
    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "kernel": system.release,
        "python": sys.version.split()[0],
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
