"""The common part of all benchmarks: paths, options, and the output of figures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.figures import Figure, table

ROOT = Path(__file__).parent.parent
PYTHON = sys.executable
PRODUCT = [PYTHON, "-m", "flagscale_deploy"]

Measure = Callable[[bool], list[Figure]]
"""Takes figures; with True, those of a quick run."""


def bench(measure: Measure, arguments: list[str]) -> int:
    """Measure, print the table, and write JSON with `--json`; return 1 if a target is missed (`--quick`: by far)."""
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true", help="fewer rounds and hosts; fail only at twice the target")
    options.add_argument("--json", type=Path)
    parsed = options.parse_args(arguments)
    figures = measure(parsed.quick)
    sys.stdout.write(table(figures) + "\n")
    if parsed.json:
        parsed.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")
    return int(any(figure.gross if parsed.quick else not figure.met for figure in figures))
