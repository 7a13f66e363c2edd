"""List the log files of a deployment on this host.

main({deployment, host}) answers {"files": [{path, name, kind, size, mtime}]}: see `logs/logfiles.py`.
"""

from __future__ import annotations

from typing import Any, Dict

from flagscale_deploy.remote.logs.logfiles import listing
from flagscale_deploy.remote.wire import say


def main(args: Dict[str, Any]) -> None:
    """Answers with the list."""
    say(files=[each._asdict() for each in listing(args["deployment"], args["host"])])
