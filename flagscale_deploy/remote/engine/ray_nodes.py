"""What Ray counts, asked on its head with the script that started the cluster's count."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Dict

from flagscale_deploy.remote.deployment import state

RAY_SECONDS = 20


def look(deployment: str, host: str) -> Dict[str, Any]:
    """Ask once; half a second, for Ray has to be imported."""
    return ask(state.directory(deployment, host) / "scripts" / "ray_nodes.sh")


def ask(script: Path) -> Dict[str, Any]:
    """The same, with the script."""
    try:
        done = subprocess.run(
            ["bash", str(script), "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=RAY_SECONDS,
            cwd=os.path.expanduser("~"),
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return {"why": "Ray does not answer within %d s" % RAY_SECONDS}
    try:
        found = json.loads(done.stdout.decode("utf-8", "replace").strip().splitlines()[-1])
        return found if isinstance(found, dict) else {"why": "Ray does not answer"}
    except (IndexError, ValueError):
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return {"why": said[-1] if said else "Ray does not answer"}
