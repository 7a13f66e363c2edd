"""Change which servers are behind the gate on this host, and see that it uses its files as they are.

The gate looks at its files each second, and goes on with what it has where they are bad. So what it says of itself
counts: which version of each file is in use, and how many requests each server has (`/state` at its metrics' port).
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import state
from flagscale_deploy.remote.engine import openai
from flagscale_deploy.remote.engine.client import Client
from flagscale_deploy.remote.system import files, json_files
from flagscale_deploy.remote.wire import cut

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.gate import RouteGateArguments, RouteGateReply

send: Callable[[RouteGateReply], None] = wire.send

POLL_SECONDS, ASK_SECONDS = 0.2, 5.0
LONGEST = 300
"""Characters of an answer that are quoted."""
SETTINGS = {"metrics_port": int, "models": {"": [str]}, "keys": (str, type(None)), "internal_key": (str, type(None))}
STATE = {"files": {"": str}, "restart_needed": bool, "open": {"": int}}


def main(args: RouteGateArguments) -> None:
    """Change the configuration; wait until it is used, and until removed servers have no request of the gate."""
    end = time.monotonic() + args["timeout"]
    path = state.directory(args["deployment"], args["host"]) / "scripts" / "gate.json"
    try:
        settings = read(path)
        change(path, settings, args)
    except (OSError, ValueError) as error:
        send({"problem": "%s: %s" % (path.name, error), "open": 0, "restart_needed": False})
        return
    client = openai.client(args["deployment"], args["host"])
    while True:
        reply = look(client, path, settings, args["remove"])
        if not (reply["problem"] or reply["open"]) or time.monotonic() >= end:
            break
        if wire.input_ended(POLL_SECONDS):
            return
    send(reply)


def read(path: Path) -> Dict[str, Any]:
    """Return the gate's configuration. Raises OSError, ValueError."""
    settings = json_files.read_object(str(path))
    missing = [key for key in ("metrics_port", "models") if key not in settings]
    problem = json_files.mismatch(settings, SETTINGS) or ("it has no %s" % missing[0] if missing else "")
    if problem:
        raise ValueError(problem)
    return settings


def change(path: Path, settings: Dict[str, Any], args: RouteGateArguments) -> None:
    """Write the configuration with other servers, if they are others. Raises OSError, ValueError for no model."""
    unknown = sorted(set(args["add"]) - set(settings["models"]))
    if unknown:
        raise ValueError("it has no model %s" % unknown[0])
    models: Dict[str, List[str]] = {}
    for name, urls in settings["models"].items():
        kept = [url for url in urls if url not in args["remove"]]
        models[name] = list(dict.fromkeys([*kept, *args["add"].get(name, [])]))
    if models != settings["models"]:
        settings["models"] = models
        files.write_atomically(path, json.dumps(settings, indent=1))


def look(client: Client, path: Path, settings: Mapping[str, Any], removed: List[str]) -> RouteGateReply:
    """Return what the gate says of itself now."""
    reply: RouteGateReply = {"problem": "", "open": 0, "restart_needed": False}
    try:
        answer = ask(client, settings["metrics_port"])
        there = {key: version(settings[key]) for key in ("keys", "internal_key") if settings.get(key)}
        there["configuration"] = version(str(path))
    except (OSError, ValueError) as error:
        reply["problem"] = "the gate: %s" % (error or type(error).__name__)
        return reply
    others = sorted(key for key in {*there, *answer["files"]} if answer["files"].get(key) != there.get(key))
    if others:
        reply["problem"] = "the gate does not use the %s that is there: see logs/gate.log" % others[0]
    reply["open"] = sum(max(0, answer["open"].get(url, 0)) for url in removed)
    reply["restart_needed"] = answer["restart_needed"]
    return reply


def ask(client: Client, port: int) -> Dict[str, Any]:
    """Return the gate's state. Raises OSError, ValueError."""
    status, text = client.request("http://127.0.0.1:%d/state" % port, timeout=ASK_SECONDS)
    if status != 200:
        raise ValueError("/state answers %d: %s" % (status, cut(text, LONGEST)))
    answer = json_files.parse_object(text)
    missing = [key for key in STATE if key not in answer]
    problem = json_files.mismatch(answer, STATE) or ("it has no %s" % missing[0] if missing else "")
    if problem:
        raise ValueError("/state: %s" % problem)
    return answer


def version(path: str) -> str:
    """Return which version of a file lies there, as the gate calls it (`gate/watched.py`). Raises OSError."""
    status = os.stat(path)
    return "%d-%d-%d" % (status.st_mtime_ns, status.st_size, status.st_ino)
