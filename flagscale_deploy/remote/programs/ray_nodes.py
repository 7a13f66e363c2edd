"""Count Ray's nodes and GPUs, asked on the head with the script that started the cluster's count.

main({deployment, host}) answers {"nodes": {address: GPUs}, "missing": […], "available": {…}, "pending": GPUs that
placement groups wait for} or {"why": text}.
"""

from __future__ import annotations

from typing import Any, Dict

from flagscale_deploy.remote.engine.ray_nodes import look
from flagscale_deploy.remote.wire import say


def main(args: Dict[str, Any]) -> None:
    say(**look(args["deployment"], args["host"]))
