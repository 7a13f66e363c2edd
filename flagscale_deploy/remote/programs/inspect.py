"""Look at a deployment on this host: what its record says, and what of it is really there.

Servers are asked for a token, and Ray for its nodes, all at the same time; the reply comes within about ANSWER_SECONDS.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Tuple

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import port_guard, processes, record, restart_permits
from flagscale_deploy.remote.engine import metrics, openai, program, ranks, ray_nodes
from flagscale_deploy.remote.system import oom
from flagscale_deploy.remote.system.background import Background
from flagscale_deploy.remote.system.proc import Process, lives

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.program import Target
    from flagscale_deploy.remote.messages.record import Record, RecordedProcess, RecordedServer
    from flagscale_deploy.remote.messages.run import RayNodesReply
    from flagscale_deploy.remote.messages.status import (
        InspectArguments,
        InspectedProcess,
        InspectedRestarts,
        InspectedServer,
        InspectReply,
    )

send: Callable[[InspectReply], None] = wire.send

HEALTH_SECONDS = 5
TOKEN_SECONDS = 18
ANSWER_SECONDS = 25.0
"""Nobody is waited for any longer; a socket's own deadline is for each piece of an answer."""
MOST_OTHERS = 100


def main(args: InspectArguments) -> None:
    """Send what is there."""
    send(look(args, processes.scan()))


def look(args: InspectArguments, everyone: List[Process]) -> InspectReply:
    """Return what is there of a deployment, from its record and a scan of all processes."""
    deployed = record.read(args["deployment"], args["host"])
    family = live(args["deployment"], deployed, everyone)
    stopped = {process.pid for process in family if process.state in "Tt"}
    listed: List[InspectedProcess] = [
        {**process, "alive": alive(process), "stopped": process["pid"] in stopped}
        for process in (deployed or {}).get("processes", [])
    ]
    parts = ranks.count(family)
    running = args["ask"] and deployed and not deployed.get("stopped_at")
    inspection = Inspection(args, deployed, listed, parts) if deployed and running else None
    reply: InspectReply = {
        "record": deployed,
        "processes": listed,
        "live": len(family),
        "ranks": parts,
        "instances": inspection.instances if inspection else {},
        "ray": inspection.ray if inspection else None,
    }
    if deployed is None:
        reply["others"] = others(args["host"])
    node = ray_node(deployed, listed, args) if deployed and running else None
    if node is not None:
        reply["ray_node"] = node
    return reply


def others(host: str) -> List[str]:
    """Return the names of the deployments that have a record here, 100 at most."""
    names = {deployed.get("deployment", "") for deployed in record.of_this_machine(host)} - {""}
    return sorted(names)[:MOST_OTHERS]


def alive(process: RecordedProcess) -> bool:
    """Return whether a recorded process is still that process."""
    return is_here(process.get("boot_id"), process["pid"], process.get("start_ticks"))


def is_here(boot_id: Optional[str], pid: int, start_ticks: Optional[int]) -> bool:
    """Return whether a process of some boot still runs."""
    return boot_id == record.boot_id() and lives(pid, start_ticks)


def live(deployment: str, deployed: Optional[Record], everyone: List[Process]) -> List[Process]:
    """Return the processes of the deployment that run here."""
    return processes.ours(everyone, deployment + "/", processes.recorded(deployed or {}))


def look_at_program(server: InspectedServer, instance: RecordedServer, args: Target) -> None:
    """Note of a program of the user's own whether it ended well, and where it was found to serve."""
    if not server["alive"]:
        status = program.exit_status(args["deployment"], args["host"])
        if status == 0:
            server["finished"], server["why"] = True, ""
        else:
            server["why"] = "its process is gone" if status is None else "it ended with exit status %d" % status
    elif not instance["addresses"]:
        server["token"], server["why"] = True, ""
    else:
        client = openai.client(args["deployment"], args["host"], program=True)
        try:
            server["at"], server["why"] = program.answers(client, instance["addresses"], elsewhere=True)
        except port_guard.ForeignListenerError as error:
            server["foreign"], server["why"] = True, str(error)
        server["token"] = server.get("at") is not None


def supervised(script: str, deployed: Record, leads: bool, args: Target) -> Optional[InspectedRestarts]:
    """Return what its supervisor says of a server, None where it has none.

    `leads`: whether the supervisor is there, as leader of the script's session.
    """
    files = restart_permits.of(args["deployment"], args["host"], str(deployed.get("run_id")), script)
    state = files.read()
    if state is None:
        return None
    pid = state.get("pid")
    here = pid is not None and is_here(state.get("boot_id"), pid, state.get("start_ticks"))
    return {**state, "supervised": leads, "alive": here}


def runs(script: str, listed: List[InspectedProcess]) -> bool:
    """Return whether the leader of a script's session is there."""
    return any(process["alive"] and process["script"] == script for process in listed)


def ray_node(deployed: Record, listed: List[InspectedProcess], args: Target) -> Optional[InspectedRestarts]:
    """Return what the supervisor of this host's Ray node says, None where it has none."""
    scripts = [process["script"] for process in listed if process["role"] in ("ray-head", "ray-worker")]
    return supervised(scripts[-1], deployed, runs(scripts[-1], listed), args) if scripts else None


def note_past(server: InspectedServer, script: str, listed: List[InspectedProcess]) -> None:
    """Note what is known of a server's process: since when it was ready, whether it is stopped."""
    own = [process for process in listed if process["alive"] and process["script"] == script]
    server["ready_at"] = max((process.get("ready_at") or 0.0 for process in own), default=0.0) or None
    held = [process["pid"] for process in own if process["stopped"]]
    if held and server["why"]:
        server["why"] += "; process %d is stopped (continue it with kill -CONT %d)" % (held[0], held[0])


def servers_on(host: str, deployed: Record) -> List[RecordedServer]:
    """Return the servers that this host drives, and each further rank here as a server of its own."""
    servers = deployed.get("instances", []) + deployed.get("routers", [])
    own = [server for server in servers if server["driver"] == host]
    for server in servers:
        for rank in server.get("ranks", [])[1:] + server.get("spares", []):
            if rank["host"] == host:
                own.append(
                    {
                        **server,
                        "name": rank["name"],
                        "driver": host,
                        "script": rank["script"],
                        "local_url": rank["local_url"],
                        "ranks": [],
                        "spares": [],
                    }
                )
    return own


class Inspection:
    """The answers of every server and of Ray on this host. Ray without its daemons would answer after minutes."""

    def __init__(
        self, args: InspectArguments, deployed: Record, listed: List[InspectedProcess], parts: Dict[str, int]
    ) -> None:
        self.instances: Dict[str, InspectedServer] = {}
        self.ray: Optional[RayNodesReply] = None
        self._args = args
        self._client = openai.client(args["deployment"], args["host"])  # one finds the processes for all
        threads = []
        servers = servers_on(args["host"], deployed)
        for instance in servers:
            leads = runs(instance["script"], listed)
            restarts = supervised(instance["script"], deployed, leads, args)
            running = leads if restarts is None else restarts["alive"]
            threads.append(threading.Thread(target=self._ask_server, args=(instance, running, restarts)))
        ray = deployed.get("ray")
        if any(process["role"] == "ray-head" for process in listed) and ray and ray.get("enabled"):
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
        scripts = {server["name"]: server["script"] for server in servers}
        self.instances = {name: {**server} for name, server in self.instances.items()}  # what comes late is dropped
        for name, server in self.instances.items():
            note_past(server, scripts[name], listed)

    def _ask_server(self, instance: RecordedServer, running: bool, restarts: Optional[InspectedRestarts]) -> None:
        server: InspectedServer = {
            "alive": running,
            "health": None,
            "token": None,
            "why": "it does not answer within %d s" % ANSWER_SECONDS,
            "metrics": None,
            "restarts": restarts,
        }
        self.instances[instance["name"]] = server
        if instance.get("engine") == "program":
            look_at_program(server, instance, self._args)
            return
        if not running:
            killed = oom.describe(record.read(self._args["deployment"], self._args["host"]) or {})
            server["why"] = "its process is gone" + ("; %s" % killed if killed else "")
            return
        if not instance["local_url"]:
            server["why"] = ""
            return
        client = self._client
        try:
            status = client.request(instance["local_url"] + "/health", timeout=HEALTH_SECONDS)[0]
            server["health"] = status
            if status == 200:
                figures = Background(metrics.ask, client, instance["local_url"])
                ok, text = None, "it was not asked for a token yet"
                if self._args.get("token", True):
                    ok, text = self._ask_tokens(instance)
                server["token"], server["why"] = ok, "" if ok else text
                with contextlib.suppress(TimeoutError):
                    server["metrics"] = figures.result(metrics.SECONDS)
            else:
                server["why"] = "/health answers %d" % status
        except port_guard.ForeignListenerError as error:
            server["foreign"], server["health"], server["why"] = True, None, str(error)
        except (OSError, ValueError) as error:
            server["why"] = "it does not answer: %s" % error

    def _ask_tokens(self, instance: RecordedServer) -> Tuple[bool, str]:
        """Return whether a server answers, and if not, why.

        A data-parallel rank on another host is asked, too: /health does not tell of a dead one, and what it gets hangs.
        """
        own = [(rank["host"], rank.get("data_rank")) for rank in instance.get("ranks", [])]
        nobody = ("", None)  # type: Tuple[str, Optional[int]]
        asked = [pair for pair in own if pair[1] is not None] or [nobody]
        url, model = instance["local_url"], instance["served_name"]
        replies = [Background(openai.one_token, self._client, url, model, TOKEN_SECONDS, number) for _, number in asked]
        for (host, number), reply in zip(asked, replies):
            try:
                ok, text = reply.result(TOKEN_SECONDS + 1)
            except (OSError, ValueError) as error:
                if number is None or isinstance(error, port_guard.ForeignListenerError):
                    raise
                ok, text = False, "no answer: %s" % (error or "timed out")
            if not ok:
                return ok, text if number is None else "data-parallel rank %d on %s: %s" % (number, host, text)
        return True, ""

    def _ask_ray(self) -> None:
        self.ray = ray_nodes.look(self._args["deployment"], self._args["host"])
