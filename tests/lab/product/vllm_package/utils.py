"""The parser's class, as vLLM has it: dashes and underscores are the same."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any


class FlexibleArgumentParser(argparse.ArgumentParser):
    """Reads `--a_b.c=1` as `--a-b=…`; what the values mean is not its business."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        return super().parse_args([_plain(word) for word in (sys.argv[1:] if args is None else args)], namespace)


def _plain(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.partition(".")[0].replace("_", "-") + equals + value
