"""Check who can reach the servers, and whether TLS works."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from flagscale_deploy.checks.conditions import no_plan
from flagscale_deploy.checks.tls import no_routed_tls, no_tls, router_tls, tls_files
from flagscale_deploy.checks.types import Check, Context, Finding
from flagscale_deploy.plan.entrances import GatePlan
from flagscale_deploy.plan.model import InstancePlan
from flagscale_deploy.plan.network import EVERY_ADDRESS, is_address
from flagscale_deploy.plan.program import is_program
from flagscale_deploy.plan.rank import API_PORT, Rank


def open_server(context: Context) -> Iterator[Finding]:
    """Warn about servers without a key on a public address: anyone who finds one can use its GPUs."""
    assert context.plan is not None, "there is a plan"
    assert context.spec is not None, "there is a specification"
    if context.plan.gate is not None:
        yield from _open_gate(context, context.plan.gate)
        return
    routed = {router.model for router in context.plan.routers}
    answering = ((server, rank) for server in context.plan.servers for rank in server.ranks if rank.answers)
    for server, rank in answering:
        secured = {**context.spec.secret_env, **context.inventory[rank.host].secret_env}
        if "VLLM_API_KEY" in secured or (isinstance(server, InstancePlan) and is_program(server)):
            continue
        for address in public_addresses(context, rank.host, _bound(rank)):
            beside = (
                " (the router does not protect it)"
                if isinstance(server, InstancePlan) and server.model in routed
                else ""
            )
            yield Finding(
                rank.host,
                f"{rank.name} listens on {address}, port {rank.ports.get(API_PORT)}, without a key{beside}",
                "a key, or no public address",
                "set api-key (deploy.secrets: [VLLM_API_KEY]), or host: 127.0.0.1 or a private address",
                "warning",
            )


def _open_gate(context: Context, gate: GatePlan) -> Iterator[Finding]:
    """Yield the public addresses of a gate without keys: the servers behind it ask for the run's own."""
    for address in () if gate.guarded else public_addresses(context, gate.driver, gate.host):
        yield Finding(
            gate.driver,
            f"the gate listens on {address}, port {gate.port}, without a key",
            "a key, or no public address",
            "set deploy.gate.keys, or deploy.gate.host: 127.0.0.1 or a private address",
            "warning",
        )


def public_addresses(context: Context, host: str, bound: str | None) -> list[str]:
    """Return the public addresses that a server listens on, of those that the probe saw on its host."""
    facts = context.facts.get(host)
    held = [address for interface in facts.interfaces for address in interface.addresses] if facts else []
    chosen = held if bound is None or bound in EVERY_ADDRESS else [bound]
    return [address for address in dict.fromkeys(chosen) if is_address(address) and ip_address(address).is_global]


def _bound(rank: Rank) -> str | None:
    """Return the address that a server listens on; None means every address."""
    for at, word in enumerate(rank.argv):
        if word == "--host" and at + 1 < len(rank.argv):
            return rank.argv[at + 1]
        if word.startswith("--host="):
            return word.partition("=")[2]
    return None


SECURITY = (
    Check("open-server", "security", open_server, "a key on public addresses", no_plan, "warning"),
    Check("tls-files", "security", tls_files, "files that the engine can read", no_tls),
    Check("router-tls", "security", router_tls, "certificates that the router accepts", no_routed_tls),
)
