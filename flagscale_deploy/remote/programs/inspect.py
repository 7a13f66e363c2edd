"""Looks at a deployment on this host: what its record says, and what of it is really there.

main({deployment, host, ask}) answers {"record": {…} | None, "processes": [{role, pid, alive, script}], "live": n,
"ranks": {part: n}, "instances": {"model/0": {"alive", "health", "token", "why", "metrics", "ready_at"}}, "ray":
{"nodes", "missing", "available", "pending"} | {"why"} | None} within about ANSWER_SECONDS. `live` counts all processes
of the deployment here, by marker, session and descent, `ranks` those of them that play a part (`ranks.py`). Of a server
with a supervisor there is "restarts" as well (`supervised`). With `ask`, servers are asked for a token and Ray for its
nodes; of a program of the user's own see `look_at_program`.
"""

import contextlib
import threading
import time
from typing import Any, Dict, List, Optional

from flagscale_deploy.remote.deployment import processes, record, restart_state
from flagscale_deploy.remote.engine import metrics, openai, program, ranks, ray_nodes
from flagscale_deploy.remote.system import oom
from flagscale_deploy.remote.system.background import Beside
from flagscale_deploy.remote.system.proc import Process, lives
from flagscale_deploy.remote.wire import say

HEALTH_SECONDS = 5
TOKEN_SECONDS = 18
ANSWER_SECONDS = 25.0
"""Nobody is waited for any longer; a socket's own deadline is for each piece of an answer."""


def main(args: Dict[str, Any]) -> None:
    known = record.read(args["deployment"], args["host"])
    found = live(args["deployment"], known)
    stopped = {each.pid for each in found if each.state in "Tt"}
    listed = [
        dict(each, alive=alive(each), stopped=each["pid"] in stopped) for each in (known or {}).get("processes", [])
    ]
    answer = {"record": known, "processes": listed, "live": len(found)}  # type: Dict[str, Any]
    answer["ranks"] = ranks.count(found)
    asked = args["ask"] and known and not known.get("stopped_at")
    questions = Questions(args, known or {}, listed, answer["ranks"]) if asked else None
    answer["instances"] = questions.instances if questions else {}
    answer["ray"] = questions.ray if questions else None
    say(**answer)


def alive(process: Dict[str, Any]) -> bool:
    """Whether a recorded process is still that process."""
    return process.get("boot_id") == record.boot_id() and lives(process["pid"], process.get("start_ticks"))


def live(deployment: str, known: Optional[Dict[str, Any]]) -> List[Process]:
    """The processes of the deployment that run here."""
    return processes.ours(processes.scan(), deployment + "/", processes.recorded(known or {}))


def look_at_program(instance: Dict[str, Any], running: bool, args: Dict[str, Any]) -> Dict[str, Any]:
    """What is said of a program of the user's own: `finished` when it ended well, `at` where it was found to serve."""
    if not running:
        status = program.exit_status(args["deployment"], args["host"])
        if status == 0:
            return {"finished": True}
        return {"why": "its process is gone" if status is None else "it ended with exit status %d" % status}
    if not instance["addresses"]:
        return {"token": True, "why": ""}
    at, why = program.answers(instance["addresses"], openai.api_key(args["deployment"], args["host"]))
    return {"token": at is not None, "at": at, "why": why}


def supervised(
    instance: Dict[str, Any], known: Dict[str, Any], leads: bool, args: Dict[str, Any]
) -> Optional[Dict[str, Any]]:
    """What its supervisor says of a server (`supervise.py`), with `supervised` and `alive`: whether the supervisor is
    there (it leads the script's session), and the server itself. None where it has none."""
    files = restart_state.of(args["deployment"], args["host"], str(known.get("run_id")), instance["script"])
    found = files.read()
    if found is None:
        return None
    here = {"pid": found.get("pid"), "start_ticks": found.get("start_ticks"), "boot_id": found.get("boot_id")}
    return dict(found, supervised=leads, alive=here["pid"] is not None and alive(here))


def with_past(said: Dict[str, Any], script: str, listed: List[Dict[str, Any]]) -> Dict[str, Any]:
    """What is said of a server, with what is known of its process: since when it was ready, whether it is stopped."""
    own = [each for each in listed if each["alive"] and each["script"] == script]
    ready_at = max((each.get("ready_at") or 0.0 for each in own), default=0.0) or None
    held = [each["pid"] for each in own if each["stopped"]]
    hint = "; process %d is stopped (kill -CONT %d lets it go on)" % (held[0], held[0]) if held else ""
    return dict(said, ready_at=ready_at, why=said["why"] + (hint if said["why"] else ""))


class Questions:
    """Asks every server and Ray of this host at the same time. Ray without its daemons would answer after minutes."""

    def __init__(self, args: Dict[str, Any], known: Dict[str, Any], listed: Any, parts: Dict[str, int]) -> None:
        self.instances = {}  # type: Dict[str, Dict[str, Any]]
        self.ray = None  # type: Optional[Dict[str, Any]]
        self._args = args
        threads = []
        for instance in known.get("instances", []) + known.get("routers", []):
            if instance["driver"] == args["host"]:
                leads = any(each["alive"] and each["script"] == instance["script"] for each in listed)
                found = supervised(instance, known, leads, args)
                running = leads if found is None else found["alive"]
                threads.append(threading.Thread(target=self._ask_server, args=(instance, running, found)))
        if any(each["role"] == "ray-head" for each in listed) and known.get("ray", {}).get("enabled"):
            gone = [name for name in ("gcs_server", "raylet") if not parts.get(name)]
            if gone:
                self.ray = {"why": "%s is gone" % " and ".join(gone)}
            else:
                threads.append(threading.Thread(target=self._ask_ray))
        end = time.monotonic() + ANSWER_SECONDS
        for thread in threads:
            thread.daemon = True
            thread.start()
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        scripts = {each["name"]: each["script"] for each in known.get("instances", []) + known.get("routers", [])}
        self.instances = {name: with_past(said, scripts[name], listed) for name, said in self.instances.items()}

    def _ask_server(self, instance: Dict[str, Any], running: bool, found: Optional[Dict[str, Any]]) -> None:
        late = "it does not answer within %d s" % ANSWER_SECONDS
        said = {"alive": running, "health": None, "token": None, "why": late, "metrics": None}  # type: Dict[str, Any]
        self.instances[instance["name"]] = said
        said["restarts"] = found
        if instance.get("engine") == "program":
            said.update({"why": ""}, **look_at_program(instance, running, self._args))
            return
        if not running:
            killed = oom.said(record.read(self._args["deployment"], self._args["host"]) or {})
            said["why"] = "its process is gone" + ("; %s" % killed if killed else "")
            return
        key = openai.api_key(self._args["deployment"], self._args["host"])
        try:
            said["health"] = openai.request(instance["local_url"] + "/health", key=key, timeout=HEALTH_SECONDS)[0]
            if said["health"] == 200:
                figures = Beside(metrics.ask, instance["local_url"], key)
                ok, text = openai.one_token(instance["local_url"], instance["served_name"], key, TOKEN_SECONDS)
                said["token"], said["why"] = ok, "" if ok else text
                with contextlib.suppress(TimeoutError):
                    said["metrics"] = figures.result(metrics.SECONDS)
            else:
                said["why"] = "/health answers %d" % said["health"]
        except (OSError, ValueError) as error:
            said["why"] = "it does not answer: %s" % error

    def _ask_ray(self) -> None:
        self.ray = ray_nodes.look(self._args["deployment"], self._args["host"])
