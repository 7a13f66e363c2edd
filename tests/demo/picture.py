"""The picture in the README: what `make demo` typed and what `run` printed, as a terminal shows it.

`python tests/demo/picture.py RUN.TXT PICTURE.SVG`; `make picture` runs the demo first.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COMMAND = "flagscale-deploy run -i hosts.yaml -c qwen.yaml"
WIDTH = 120


def picture(printed: str) -> str:
    """Return an SVG of the command and of what it printed."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {COMMAND}", style="bold"))
    console.print(Text(printed.rstrip()), soft_wrap=False)
    svg = console.export_svg(title="flagscale-deploy", unique_id="run")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # nothing is loaded from elsewhere


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_text(picture(source.read_text(encoding="utf-8")), encoding="utf-8")
