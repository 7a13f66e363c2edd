"""Ask Ray for its nodes and GPUs, on its head, with the script that started the cluster's count."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, cast

from flagscale_deploy.remote.deployment import state

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.run import RayNodesReply

RAY_SECONDS = 20


def look(deployment: str, host: str) -> RayNodesReply:
    """Ask once; half a second, for Ray has to be imported."""
    return ask(state.directory(deployment, host) / "scripts" / "ray_nodes.sh")


def ask(script: Path) -> RayNodesReply:
    """Ask once, with this script."""
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
        reply = json.loads(done.stdout.decode("utf-8", "replace").strip().splitlines()[-1])
        return cast("RayNodesReply", reply) if isinstance(reply, dict) else {"why": "Ray does not answer"}
    except (IndexError, ValueError):
        complaint = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return {"why": complaint[-1] if complaint else "Ray does not answer"}
