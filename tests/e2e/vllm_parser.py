"""Runs in an environment that has vLLM: what its `vllm serve` parser knows, and what it makes of command lines.

Reads JSON from stdin: a list of argv, each from `serve` on. Writes JSON: `flags`, the tables of `plan/vllm_flags.py`,
and `parsed`: of each argv its values, or a text that says that it was refused.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any


def main() -> None:
    with contextlib.redirect_stdout(sys.stderr):
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        root = FlexibleArgumentParser()
        parser = make_arg_parser(root.add_subparsers(dest="subparser").add_parser("serve"))
        answer = {"flags": flags(parser), "parsed": [parse(root, argv) for argv in json.load(sys.stdin)]}
    json.dump(answer, sys.stdout, default=repr)


def flags(parser: Any) -> dict[str, Any]:
    def names(action: Any) -> list[str]:
        return [name[2:] for name in action.option_strings if name.startswith("--")]

    def of(wanted: Any) -> list[str]:
        return sorted(name for action in parser._actions if wanted(action) for name in names(action)[:1])

    return {
        "booleans": of(lambda flag: type(flag).__name__ == "BooleanOptionalAction"),
        "switches": of(lambda flag: type(flag).__name__ == "_StoreTrueAction"),
        "word_lists": of(lambda flag: flag.nargs == "+"),
        "repeated": of(lambda flag: type(flag).__name__ == "_AppendAction"),
        "known": sorted(name for action in parser._actions for name in names(action)),
        "short_names": {
            short[1:]: names(action)[0]
            for action in parser._actions
            for short in action.option_strings
            if not short.startswith("--") and short != "-h"
        },
    }


def parse(root: Any, argv: list[str]) -> Any:
    try:
        return vars(root.parse_args(argv))
    except SystemExit:
        return f"refused: {argv}"


if __name__ == "__main__":
    main()
