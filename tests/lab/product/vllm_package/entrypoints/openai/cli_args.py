"""The flags of vLLM 0.32 by name, with whatever values; `hostile-0` and so on are the lab's own."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

FLAGS = Path(__file__).parents[2] / "flags.txt"
"""Read out of the real parser (`known` of `flagscale_deploy.remote.engine.vllm_parser`)."""


def length(text: str) -> int:
    """Return a number that may have a suffix: 32k."""
    return int(text.rstrip("kKmM"))


NUMBERS: dict[str, Callable[[str], Any]] = {
    "max-model-len": length,
    "max-num-seqs": int,
    "tensor-parallel-size": int,
    "gpu-memory-utilization": float,
}


def make_arg_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    hostile = [f"hostile-{at}" for at in range(20)]
    present = {name for action in parser._actions for name in action.option_strings}
    for name in [*FLAGS.read_text(encoding="utf-8").split(), *hostile]:
        if f"--{name}" not in present:
            parser.add_argument(f"--{name}", nargs=None if name in NUMBERS else "*", type=NUMBERS.get(name, str))
    return parser


def validate_parsed_serve_args(args: Any) -> None:
    if args.enable_auto_tool_choice is not None and not args.tool_call_parser:
        raise TypeError("Error: --enable-auto-tool-choice requires --tool-call-parser")
