"""The gate of a deployment: its keys, and what is asked of it while it runs.

Its keys are those of clients, and the internal one, by which it asks the servers behind it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Literal

from flagscale_deploy.config.gate import API_KEY, INTERNAL, KEY_VARIABLE, GateSpec
from flagscale_deploy.errors import RemoteError
from flagscale_deploy.plan.entrances import GatePlan
from flagscale_deploy.plan.gate import CLIENT_KEYS, INTERNAL_KEY
from flagscale_deploy.remote.messages import gate as messages
from flagscale_deploy.secrets import Redactor, Secret
from flagscale_deploy.transport.fleet import Fleet
from flagscale_deploy.transport.remote_program import call
from flagscale_deploy.transport.replies import brief

ASK_SECONDS, ROUTE_SECONDS, SLACK_SECONDS = 60.0, 60.0, 60.0
_KEY = re.compile(r"[!-~]{32,4096}", re.ASCII)


def behind_gate(
    plan: GatePlan | None,
    spec: GateSpec | None,
    secret_env: Mapping[str, Mapping[str, Secret]],
    internal: Secret | None = None,
) -> tuple[Mapping[str, Mapping[str, Secret]], dict[str, str]]:
    """Return the secrets of each host with the key of its servers, and the files with keys for the gate's host.

    Without a gate they are the secrets as they were, and no files. The key is `internal`, that of a gate that runs
    (`running_key`); None: a new one.

    The user's own VLLM_API_KEY is one of clients: the gate asks for it. Programs on the gate's host that ask it, as
    `status` does, use the key of the servers.
    """
    if plan is None:
        return secret_env, {}
    key = Secret(secrets.token_hex(32)) if internal is None else internal
    clients = dict(spec.keys if spec is not None else {})
    if KEY_VARIABLE in secret_env[plan.driver]:
        clients[API_KEY] = secret_env[plan.driver][KEY_VARIABLE]
    files = {INTERNAL_KEY: key.reveal()}
    if clients:
        files[CLIENT_KEYS] = json.dumps({name: own.reveal() for name, own in {**clients, INTERNAL: key}.items()})
    return {host: {**env, KEY_VARIABLE: key} for host, env in secret_env.items()}, files


def running_key(
    fleet: Fleet, deployment: str, host: str, redactor: Redactor, *, of: Literal["gate", "ray"] = "gate"
) -> Secret:
    """Return the internal key of a gate that runs on this host, or the token of Ray, which the redactor hides now.

    Raises RemoteError where there is none, or one that no run makes.
    """
    connection = fleet.connection(host)
    args: messages.InternalKeyArguments = {"deployment": deployment, "host": host, "of": of}
    reply = call(connection, messages.INTERNAL_KEY, args, timeout=ASK_SECONDS, cancelled=fleet.cancelled)
    if not _KEY.fullmatch(reply["key"]):
        raise RemoteError(host, f"it does not hold the key of its {of}")
    key = Secret(reply["key"])
    redactor.add(key)
    return key


def change_gate(
    fleet: Fleet,
    deployment: str,
    host: str,
    *,
    remove: Sequence[str] = (),
    add: Mapping[str, Sequence[str]] | None = None,
    timeout: float = ROUTE_SECONDS,
) -> messages.RouteGateReply:
    """Take servers (URLs) out of the gate on this host, or put some behind it by served name.

    With neither, see that it uses its files as they are. The reply has how many requests removed servers still have of
    it after `timeout` seconds, and whether it needs a restart. Raises RemoteError where it does not use its files.
    """
    args: messages.RouteGateArguments = {
        "deployment": deployment,
        "host": host,
        "remove": list(remove),
        "add": {name: list(urls) for name, urls in (add or {}).items()},
        "timeout": timeout,
    }
    limit = timeout + SLACK_SECONDS
    reply = call(fleet.connection(host), messages.ROUTE_GATE, args, timeout=limit, cancelled=fleet.cancelled)
    if reply["problem"]:
        raise RemoteError(host, brief(reply["problem"]))
    return reply


def behind_names(plan: GatePlan, urls: Sequence[str]) -> dict[str, list[str]]:
    """Return which of these servers are behind each served name: what `change_gate` adds."""
    servers = {name: [url for url in of_name if url in urls] for name, of_name in plan.models.items()}
    return {name: of_name for name, of_name in servers.items() if of_name}
