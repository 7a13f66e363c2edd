"""The keys of a run with a gate: those of clients, and the one by which the gate asks the servers behind it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping

from flagscale_deploy.config.gate import API_KEY, INTERNAL, GateSpec
from flagscale_deploy.plan.entrances import GatePlan
from flagscale_deploy.plan.gate import CLIENT_KEYS, INTERNAL_KEY
from flagscale_deploy.secrets import Secret

VARIABLE = "VLLM_API_KEY"


def behind_gate(
    plan: GatePlan | None, spec: GateSpec | None, secret_env: Mapping[str, Mapping[str, Secret]]
) -> tuple[Mapping[str, Mapping[str, Secret]], dict[str, str]]:
    """Return the secrets of each host with a new key for its servers, and the files with keys for the gate's host.

    Without a gate they are the secrets as they were, and no files.

    The user's own VLLM_API_KEY is one of clients: the gate asks for it. Programs on the gate's host that ask it, as
    `status` does, use the key of the servers.
    """
    if plan is None:
        return secret_env, {}
    internal = Secret(secrets.token_hex(32))
    clients = dict(spec.keys if spec is not None else {})
    if VARIABLE in secret_env[plan.driver]:
        clients[API_KEY] = secret_env[plan.driver][VARIABLE]
    files = {INTERNAL_KEY: internal.reveal()}
    if clients:
        files[CLIENT_KEYS] = json.dumps({name: key.reveal() for name, key in {**clients, INTERNAL: internal}.items()})
    return {host: {**env, VARIABLE: internal} for host, env in secret_env.items()}, files
