"""Runs in an environment that has vllm-router: the flags that its parser knows. Writes JSON to stdout."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import Any


def main() -> None:
    from vllm_router import launch_router

    seen: list[Any] = []

    def keep(parser: Any, *_args: Any, **_kwargs: Any) -> None:
        seen.append(parser)
        raise SystemExit

    argparse.ArgumentParser.parse_args = keep  # type: ignore[method-assign,assignment]
    sys.argv = ["vllm-router"]
    with contextlib.suppress(SystemExit):
        launch_router.main()
    actions = [action for action in seen[0]._actions if action.option_strings and action.dest != "help"]
    names = {action.option_strings[0][2:]: action for action in actions}
    repeated = [name for name, action in names.items() if type(action).__name__ == "_AppendAction"]
    json.dump({"flags": sorted(names), "repeated": sorted(repeated)}, sys.stdout)


if __name__ == "__main__":
    main()
