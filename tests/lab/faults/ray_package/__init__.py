"""A stand-in for the package `ray` on lab hosts, as far as the script that counts nodes uses it.

The gcs_server of `ray_stand_in.py` at RAY_ADDRESS replies.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

_place: list[tuple[str, int]] = []


def init(**_: Any) -> None:
    """Note where the cluster is, and that it answers."""
    host, _colon, port = os.environ["RAY_ADDRESS"].rpartition(":")
    _place[:] = [(host, int(port))]
    nodes()


def nodes() -> list[dict[str, Any]]:
    """Every node that is connected."""
    with socket.create_connection(_place[0], timeout=5) as gcs, gcs.makefile() as answer:
        gcs.sendall(b'{"ask": true}\n')
        listed: list[dict[str, Any]] = json.loads(answer.readline())
    return [{"NodeManagerAddress": node["node"], "Resources": {"GPU": node["gpus"]}, "Alive": True} for node in listed]


def available_resources() -> dict[str, float]:
    """All GPUs: nobody takes one."""
    return {"GPU": sum(node["Resources"]["GPU"] for node in nodes())}
