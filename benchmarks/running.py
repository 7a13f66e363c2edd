"""What benchmarks have in common: where they are, and what becomes of their figures."""

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
"""Takes its figures; with True those of a reduced run, in seconds."""


def bench(measure: Measure, arguments: list[str]) -> int:
    """Measure, print the table, write JSON where it is asked for. 1 where a target is missed (`--quick`: by far)."""
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true", help="fewer rounds and hosts; fail at twice the target only")
    options.add_argument("--json", type=Path)
    asked = options.parse_args(arguments)
    figures = measure(asked.quick)
    sys.stdout.write(table(figures) + "\n")
    if asked.json:
        asked.json.write_text(json.dumps([asdict(each) for each in figures], indent=2) + "\n")
    return int(any(each.gross if asked.quick else not each.met for each in figures))
