"""Refuse what small files can ask for and no plan can hold: its size grows with hosts, GPUs, servers and texts."""

from __future__ import annotations

import json
from collections.abc import Iterator

from flagscale_deploy.config.plain import plain
from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.support.units import MIB, format_size

MOST_GPUS = 500_000
"""Hosts times the GPUs of the largest one: 1,000 hosts have 8,000 to 16,000."""
MOST_PLACES = 10_000_000
"""Servers times hosts: each server is offered each host. 1,000 hosts with 8 servers each are 8,000,000."""
MOST_TEXT = 64 * MIB
"""Characters of all command lines and variables: 8,000 servers with 8 KiB each."""


def refuse_large(inputs: Inputs) -> None:
    """Raise InputError for more GPUs, servers or text than a plan may have."""
    if faults := list(_faults(inputs)):
        raise InputError(faults)


def _faults(inputs: Inputs) -> Iterator[Fault]:
    spec, hosts = inputs.spec, inputs.inventory.hosts
    most = max(host.gpus or 0 for host in hosts)  # as declared: no host ends a plan by what it reports
    if len(hosts) * most > MOST_GPUS:
        problem = f"has {len(hosts):,} hosts with up to {most:,} GPUs: more than a plan can hold"
        yield Fault(inputs.inventory.source, problem, "correct `gpus`, or name fewer hosts with --limit")
    servers = {model.label: _servers(model, len(hosts)) for model in spec.engines}
    if sum(servers.values()) * len(hosts) > MOST_PLACES:
        problem = f"asks for up to {sum(servers.values()):,} servers on {len(hosts):,} hosts: more than a plan can hold"
        yield Fault(spec.source, problem, "lower num_replicas, or name fewer hosts with --limit")
    shared = sum(map(len, [*spec.env, *spec.env.values(), spec.before_start or ""]))
    text = shared * len(hosts)
    text += sum(len(part) for host in hosts for part in (host.before_start or "", *host.env, *host.env.values()))
    for model in spec.engines:
        own = len(json.dumps(plain(model.engine_args))) + sum(map(len, (*model.action_args, *model.env.values())))
        text += (own + shared) * servers[model.label] * min(model.world_size, len(hosts))
    if text > MOST_TEXT:
        problem = f"its command lines and variables would take more than {format_size(MOST_TEXT)} on all servers"
        yield Fault(spec.source, problem, "shorten flags, envs and before_start, or lower num_replicas")


def _servers(model: ModelSpec, hosts: int) -> int:
    """Return the servers of a model; of `auto` what fits one for each host, as those without GPUs are placed."""
    return hosts if model.replicas == "auto" else model.replicas
