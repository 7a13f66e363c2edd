"""Have the router of prefill and decode pools prove that KV cache goes from one to the other."""

from __future__ import annotations

from collections.abc import Iterator

from flagscale_deploy.config.pools import POOL_ROLES
from flagscale_deploy.plan.entrances import RouterPlan
from flagscale_deploy.plan.model import InstancePlan, Plan, Server
from flagscale_deploy.plan.pools import SIDE_HOST
from flagscale_deploy.remote.messages.run import WatchedTransfers


def watched_transfers(plan: Plan, server: Server) -> WatchedTransfers | None:
    """Return whose counters of NIXL a router's watch compares; None where nobody counts.

    That is without pools, with another connector, and with `disable-log-stats`.
    """
    if not isinstance(server, RouterPlan):
        return None
    instances = [instance for pool in POOL_ROLES for instance in _pool(plan, server, pool)]
    ranks = [rank for instance in instances for rank in instance.ranks if rank.answers]
    counting = [SIDE_HOST in rank.env and "--disable-log-stats" not in rank.argv for rank in ranks]
    if not ranks or not all(counting):
        return None
    return {"urls": [rank.worker_url for rank in ranks], "trust": server.env.get("SSL_CERT_FILE", "")}


def transfer_failure(plan: Plan, server: Server, why: str) -> tuple[str, str]:
    """Return problem and remedy of a router whose requests bring no KV cache from prefill to decode."""
    where = [f"{pool} on {', '.join(_hosts(plan, server, pool))}" for pool in POOL_ROLES]
    problem = f"brings no KV cache from prefill to decode ({', '.join(where)}): {why}"
    remedy = "check tries the side channels; UCX_NET_DEVICES in envs names the network interface of the KV cache"
    return problem, remedy


def _hosts(plan: Plan, server: Server, pool: str) -> list[str]:
    return list(dict.fromkeys(host for instance in _pool(plan, server, pool) for host in instance.hosts))


def _pool(plan: Plan, server: Server, pool: str) -> Iterator[InstancePlan]:
    return (instance for instance in plan.instances if (instance.model, instance.pool) == (server.model, pool))
