"""Ask Ray for its nodes and GPUs, on its head, with the script that started the cluster's count."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

from flagscale_deploy.remote.deployment import state
from flagscale_deploy.remote.system import json_files, subprocesses

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.run import RayNodesReply

RAY_SECONDS = 20
LINE = 1000
_NUMBER = (int, float)
_SHAPE = {"nodes": {"": _NUMBER}, "missing": [str], "available": {"": _NUMBER}, "pending": _NUMBER, "why": str}


def look(deployment: str, host: str) -> RayNodesReply:
    """Ask once; half a second, for Ray has to be imported."""
    return ask(state.directory(deployment, host) / "scripts" / "ray_nodes.sh")


def ask(script: Path) -> RayNodesReply:
    """Ask once, with this script."""
    ended = subprocesses.run(["bash", str(script), "0"], RAY_SECONDS, cwd=os.path.expanduser("~"))
    if ended.code is None:
        return {"why": "Ray does not answer within %d s" % RAY_SECONDS}
    try:
        reply = json_files.parse_object(ended.stdout.strip().splitlines()[-1])
        problem = json_files.mismatch(reply, _SHAPE)
        return {"why": "Ray's reply is malformed: %s" % problem} if problem else cast("RayNodesReply", reply)
    except (IndexError, ValueError):
        complaint = ended.stderr.strip().splitlines()
        return {"why": complaint[-1][:LINE] if complaint else "Ray does not answer"}
