"""Ask a server on this host over its OpenAI API, with the key that only this host's secrets have."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Tuple

from flagscale_deploy.remote.deployment import processes, record, state
from flagscale_deploy.remote.deployment.port_guard import PortGuard
from flagscale_deploy.remote.engine.client import Client
from flagscale_deploy.remote.system import files, json_files
from flagscale_deploy.remote.wire import cut

COMPLETION = {"choices": [{"text": str}], "usage": {"completion_tokens": int}}
SECRETS_BYTES = 4 << 20
EMBEDDING = {"data": [{"embedding": list}]}


def client(deployment: str, host: str, *, program: bool = False, trust: str = "") -> Client:
    """Return what asks the servers of a deployment on this host, or a `program` of the user's own.

    It knows their processes by the record and the marker, their certificates, and VLLM_API_KEY of the secrets. `trust`
    is one more file of certificates, for servers on other hosts.
    """
    deployed = record.read(deployment, host) or {}
    family = processes.family(deployment + "/", processes.recorded(deployed))
    servers = deployed.get("instances", []) + deployed.get("routers", [])
    certificates = [trust, *(server.get("certificate") for server in servers if server.get("driver") == host)]
    certificates += [
        rank.get("certificate") for server in servers for rank in server.get("ranks", []) if rank.get("host") == host
    ]
    return Client(
        PortGuard(family, program=program), [path for path in certificates if path], api_key(deployment, host)
    )


def api_key(deployment: str, host: str) -> Optional[str]:
    """Return VLLM_API_KEY as the secrets of the deployment have it."""
    try:
        return api_key_in(state.directory(deployment, host))
    except ValueError:
        return None


def api_key_in(directory: Path) -> Optional[str]:
    """Return VLLM_API_KEY as the secrets in a deployment's state directory have it."""
    try:
        path = directory / "secrets" / "env"
        words = shlex.split(files.read_whole(str(path), SECRETS_BYTES).decode())
    except (OSError, ValueError):
        return None
    return next((word.split("=", 1)[1] for word in words if word.startswith("VLLM_API_KEY=")), None)


class TokenReply(NamedTuple):
    """The reply to a request for one token. The text is the reply's beginning, or what is wrong."""

    ok: bool
    text: str
    status: int


def one_token(
    asking: Client, url: str, model: str, timeout: float, data_rank: Optional[int] = None
) -> Tuple[bool, str]:
    """Return whether a server really answers: one token of a completion, or an embedding where it serves those.

    With `data_rank` it is that data-parallel rank that answers. The text is the reply's beginning, or what is wrong.
    """
    return ask_for_token(asking, url, model, timeout, data_rank)[:2]


def ask_for_token(asking: Client, url: str, model: str, timeout: float, data_rank: Optional[int] = None) -> TokenReply:
    """Return the reply to what `one_token` asks for. Raises OSError where none comes."""
    body = {"model": model, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
    status, text = asking.request(url + "/v1/completions", body, private=True, timeout=timeout, data_rank=data_rank)
    try:
        if status == 404 or (status == 400 and "does not support" in text):
            body = {"model": model, "input": "Hello"}
            status, text = asking.request(
                url + "/v1/embeddings", body, private=True, timeout=timeout, data_rank=data_rank
            )
            ok = status == 200 and bool(parse(text, "data", EMBEDDING)["data"][0]["embedding"])
            return TokenReply(ok, cut(text, 500), status)
        if status != 200:
            return TokenReply(False, "HTTP %d: %s" % (status, cut(text, 500)), status)
        answer = parse(text, "choices", COMPLETION)
        ok = answer["usage"]["completion_tokens"] >= 1
        return TokenReply(ok, cut(answer["choices"][0]["text"], 500), status)
    except (ValueError, LookupError):
        return TokenReply(False, "not a completion: %s" % cut(text, 500), status)


def parse(text: str, key: str, shape: json_files.Shape) -> Dict[str, Any]:
    """Return a reply that has this shape, and a list at `key` that is not empty. Raises ValueError for another one."""
    reply = json_files.parse_object(text)
    problem = json_files.mismatch(reply, shape) or ("" if reply.get(key) else "it has no %s" % key)
    if problem:
        raise ValueError(problem)
    return reply


def keep(value: Any, shape: json_files.Shape) -> Any:
    """Return of a JSON value what has this shape, without the keys that have another one."""
    if isinstance(shape, dict):
        wanted = {key: inner for key, inner in shape.items() if key in value and _fits(value[key], inner)}
        return {key: keep(value[key], inner) for key, inner in wanted.items()}
    return [keep(item, shape[0]) for item in value if _fits(item, shape[0])] if isinstance(shape, list) else value


def _fits(value: object, shape: json_files.Shape) -> bool:
    kind = type(shape) if isinstance(shape, (dict, list)) else shape
    return not json_files.mismatch(value, kind)
