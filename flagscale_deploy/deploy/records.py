"""The record of a deployment that is kept on its hosts."""

from __future__ import annotations

from collections.abc import Mapping

from flagscale_deploy.deploy.lock import operator
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.plan.model import InstancePlan, Plan, Role, Server
from flagscale_deploy.plan.program import is_program
from flagscale_deploy.plan.rank import API_PORT, Rank
from flagscale_deploy.remote.messages.record import Record, RecordedRank, RecordedServer

SCHEMA = 1


def record_of(
    plan: Plan, host: str, facts: Mapping[str, Facts], secret_names: tuple[str, ...], secret_hash: str = ""
) -> Record:
    """Return a host's record: all that is needed to inspect and stop the deployment from any machine; no secrets.

    `secret_hash` is that of all secrets of the run (`deploy/secret_hash.py`).
    """
    seen = facts.get(host)
    return {
        "schema": SCHEMA,
        "deployment": plan.deployment,
        "host": host,
        "digest": plan.digest,
        "head": plan.head,
        "hosts": list(plan.hosts),
        "operator": operator(),
        "roles": [role for role in _roles(plan, host) if role != "ray-nodes"],  # that one counts nodes, and is over
        "gpus": sorted({index for instance in plan.instances for index in instance.gpus.get(host, ())}),
        "ports": _ports(plan, host),
        "versions": {"python": seen.python, "ray": seen.ray, "vllm": seen.vllm} if seen else {},
        "ray": {"enabled": plan.ray.enabled, "address": plan.ray.address},
        "secrets": list(secret_names),
        "secret_hash": secret_hash,
        "instances": [
            {
                **_server(instance),
                "hosts": list(instance.hosts),
                "gpus": {name: list(held) for name, held in instance.gpus.items()},
                "engine": instance.engine,
                "addresses": dict(instance.addresses),
                "replica": instance.replica,
                "pool": instance.pool,
                "argv": list(instance.argv),
                "ranks": [_rank(rank) for rank in instance.ranks],
                "spares": [_rank(spare) for spare in instance.spares],
            }
            for instance in plan.instances
        ],
        "routers": [_server(front) for front in plan.fronts],
    }


def _server(server: Server) -> RecordedServer:
    """Return what `remote/programs/inspect.py` and `remote/programs/chat.py` need to find a server and call it."""
    return {
        "name": server.name,
        "model": server.model,
        "driver": server.driver,
        "port": server.port,
        "endpoint": server.endpoint,
        "local_url": server.local_url,
        "served_name": server.served_name,
        "script": server.script,
        "certificate": server.certificate,
        "hosts": [server.driver],
        "gpus": {},
    }


def _rank(rank: Rank) -> RecordedRank:
    return {
        "name": rank.name,
        "number": rank.number,
        "role": rank.role,
        "host": rank.host,
        "script": rank.script,
        "gpus": list(rank.gpus),
        "local_url": rank.local_url,
        "certificate": rank.certificate,
        "data_rank": rank.data_rank,
        "worker_url": rank.worker_url,
    }


def _roles(plan: Plan, host: str) -> list[Role]:
    return [step.role for stage in plan.stages for step in stage.steps if step.host == host]


def _ports(plan: Plan, host: str) -> dict[str, int]:
    ports: dict[str, int] = {}
    for server in plan.servers:
        for rank in server.ranks:
            if host in _listeners(server, rank):
                ports |= {rank.name if use == API_PORT else f"{rank.name} {use}": rank.ports[use] for use in rank.ports}
    roles = _roles(plan, host)
    if "ray-head" in roles or "ray-worker" in roles:  # else its node, if it has one, runs
        ports["ray-agent"] = next(node.agent_port for node in plan.ray.nodes if node.host == host)
        if "ray-head" in roles:
            ports |= {"ray": plan.ray.port, "dashboard": plan.ray.dashboard_port, "ray-client": plan.ray.client_port}
    return ports


def _listeners(server: Server, rank: Rank) -> tuple[str, ...]:
    """Return the hosts on which a rank's ports are taken: a program's tasks may listen on any node."""
    return server.hosts if isinstance(server, InstancePlan) and is_program(server) else (rank.host,)
