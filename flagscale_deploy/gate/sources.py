"""The gate's own files, as they are sent to a host."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = "flagscale_deploy/gate"
_RUN_ALONE = """\
import os
import sys

os.umask(0o077)
from flagscale_deploy.gate.program import command

command(sys.argv[1:])
"""


def files() -> dict[str, str]:
    """Return the files of a folder that a host's Python runs: `python3 FOLDER CONFIG.json`."""
    modules = sorted(Path(__file__).parent.glob("*.py"))
    sources = {f"{_PACKAGE}/{path.name}": path.read_text(encoding="utf-8") for path in modules}
    return {"__main__.py": _RUN_ALONE, "flagscale_deploy/__init__.py": "", **sources}
