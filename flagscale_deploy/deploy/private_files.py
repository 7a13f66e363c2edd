"""The files of a run that only their owner may read: secrets, tokens, TLS files, a program's configuration."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping

from flagscale_deploy.config.program_files import program_config
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.deploy.launch import secret_files, tls_files
from flagscale_deploy.plan.model import Plan, is_restarted_as_group
from flagscale_deploy.remote.supervisor.group import token_of
from flagscale_deploy.remote.supervisor.membership import token_file
from flagscale_deploy.secrets import Redactor, Secret
from flagscale_deploy.transport.fleet import Fleet


def secrets_by_host(plan: Plan, spec: ServeSpec, fleet: Fleet) -> dict[str, dict[str, Secret]]:
    """Return the variables that each host of a plan gets as secrets."""
    return {host: {**spec.secret_env, **fleet.hosts[host].secret_env} for host in plan.hosts}


def private_files(
    plan: Plan,
    spec: ServeSpec,
    env: Mapping[str, Mapping[str, Secret]],
    redactor: Redactor,
    *,
    ray_token: Secret | None,
) -> dict[str, dict[str, str]]:
    """Return the text of each host's files that only their owner may read, by name; teach the redactor all secrets.

    TLS files go where something is served. Hosts without an `env` keep the secrets that they have; without
    `ray_token`, all keep that.
    """
    tokens = list(_group_tokens(plan))
    for secret in (
        *([ray_token] if ray_token is not None else []),
        *(own for _, _, own in tokens),
        *(secret for variables in env.values() for secret in variables.values()),
    ):
        redactor.add(secret)
    serving = {rank.host for server in plan.servers for rank in server.ranks if rank.answers}
    config = {"secrets/config.yaml": program_config(spec)} if spec.runs_program else {}
    private = {
        host: (secret_files(env[host], ray_token) if host in env else {})
        | tls_files(spec.tls if host in serving else None)
        | config
        for host in plan.hosts
    }
    for host, file, own in tokens:
        private[host][file] = own.reveal()
    return private


def _group_tokens(plan: Plan) -> Iterator[tuple[str, str, Secret]]:
    """Yield host, file and value of the token of each rank that is restarted with its group."""
    for instance in plan.instances:
        if is_restarted_as_group(plan.restart, instance):
            group = secrets.token_hex(32).encode()
            for rank in instance.members:
                yield rank.host, token_file(rank.script), Secret(token_of(group, rank.number).decode())
