"""Describe a run for later, without secrets: its configuration, its hosts, and how each of its processes starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict, cast

from flagscale_deploy import __version__
from flagscale_deploy.config.plain import plain
from flagscale_deploy.config.resolved import resolved_yaml, without_secret
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.entrances import GATE, SETTINGS
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.model import InstancePlan, Plan, RayNode, RayPlan, Server
from flagscale_deploy.plan.rank import Rank, RankStart
from flagscale_deploy.remote.system.json_files import mismatch, parse_object
from flagscale_deploy.secrets import HIDDEN
from flagscale_deploy.secrets.json_texts import without_secrets
from flagscale_deploy.support.digest import digest_of

SCHEMA = 1
DEEPEST = 8
"""Levels of a description: what a program's configuration nests is text in it."""
LONGEST_PLACE = 100
"""Characters of a place in it that an error names."""
_SETTINGS = (
    "name", "address", "type", "gpus", "cpus", "node_ip", "interface", "connection", "container", "python", "venv",
    "env", "before_start",
)  # fmt: skip
"""What is kept of a host: nothing of how to log in there."""


class KeptRank(RankStart):
    """A process of a server, as it starts on its host. `script` is a digest."""

    name: str
    script: str


class KeptServer(TypedDict):
    """An instance, a router or the gate; `gpus` are indexes by host, of ranks that Ray starts, too."""

    name: str
    model: str
    engine: str  # "router" for a router, "gate" for the gate
    gpus: dict[str, list[int]]
    ranks: list[KeptRank]


class KeptRay(TypedDict):
    """The Ray cluster: indexes of the GPUs of its nodes, and digests of the scripts that start them."""

    enabled: bool
    address: str
    nodes: dict[str, list[int]]
    scripts: dict[str, str]


class KeptRun(TypedDict):
    """What the hosts of a run keep of it in `runs/<run id>.json`."""

    schema: int
    tool: str  # version of this tool
    deployment: str
    run_id: str
    digest: str
    source: str
    configuration: str  # serve YAML, resolved
    complete: bool  # whether nothing of the configuration had to be hidden
    overrides: list[str]  # words of the command line
    head: str
    hosts: list[dict[str, Any]]  # settings, by the names of an inventory
    secrets: dict[str, list[str]]  # names, by host; "" and "tls": of all hosts
    secret_hash: str
    templates: str  # digest
    program: dict[str, str]  # digests of a user's own program, by file
    tls: dict[str, str]  # digests of certificates: of those that are sent by name, others as `host:path`
    versions: dict[str, dict[str, str]]  # by host
    ports: dict[str, dict[str, int]]  # that the planner chose, by host and use
    ray: KeptRay
    servers: list[KeptServer]


_RANK = {
    "name": str, "role": str, "host": str, "gpus": [int], "ports": {"": int}, "argv": [str], "env": {"": str},
    "script": str,
}  # fmt: skip
_SERVER = {"name": str, "model": str, "engine": str, "gpus": {"": [int]}, "ranks": [_RANK]}
_SHAPE: dict[str, Any] = {
    "schema": int, "tool": str, "deployment": str, "run_id": str, "digest": str, "source": str, "configuration": str,
    "complete": bool, "overrides": [str], "head": str, "hosts": [{"name": str, "env": {"": str}}],
    "secrets": {"": [str]}, "secret_hash": str, "templates": str, "program": {"": str}, "tls": {"": str},
    "versions": {"": {"": str}}, "ports": {"": {"": int}}, "servers": [_SERVER],
    "ray": {"enabled": bool, "address": str, "nodes": {"": [int]}, "scripts": {"": str}},
}  # fmt: skip
_REQUIRED = {**_SHAPE, "hosts": [{"name": str}]}
"""What every run has: of a host's settings the name alone."""


@dataclass(frozen=True)
class Secrecy:
    """What is known of a run's secrets: their names by owner, their common hash, and how to hide their values."""

    names: Mapping[str, Sequence[str]]
    hash: str
    redact: Callable[[str], str] = str


def describe_run(plan: Plan, inputs: Inputs, secrecy: Secrecy, overrides: Sequence[str] = ()) -> KeptRun:
    """Return what is kept of a run that carries out this plan, made from these inputs."""
    configuration = resolved_yaml(inputs.spec, secrecy.redact)
    hidden = partial(without_secrets, redact=secrecy.redact)
    return {
        "schema": SCHEMA,
        "tool": __version__,
        "deployment": plan.deployment,
        "run_id": plan.run_id,
        "digest": plan.digest,
        "source": inputs.spec.source,
        "configuration": configuration,
        "complete": HIDDEN not in configuration,
        "overrides": cast(Any, hidden([without_secret(word) for word in overrides])),
        "head": plan.head,
        "hosts": cast(Any, hidden([_host(host) for host in inputs.inventory.hosts])),
        "secrets": {owner: sorted(names) for owner, names in secrecy.names.items() if names},
        "secret_hash": secrecy.hash,
        "templates": inputs.templates.digest,
        "program": {name: digest_of(text) for name, text in plan.app.items() if name.startswith("program/")},
        "tls": dict(_certificates(inputs)),
        "versions": {name: _versions(facts) for name, facts in inputs.facts.items()},
        "ports": {name: dict(uses) for name, uses in plan.chosen_ports.items()},
        "ray": _ray(plan, inputs.facts),
        "servers": cast(Any, hidden([_server(plan, server) for server in plan.servers])),
    }


def run_text(run: KeptRun) -> str:
    """Return what a host keeps of a run, in ASCII."""
    return json.dumps(run)


def parse_run(text: str) -> KeptRun:
    """Return the run that a host describes. Raises ValueError where it is anything else."""
    content = parse_object(text)
    content = json.loads(json.dumps(content, ensure_ascii=False).encode(errors="replace"))  # half a surrogate pair
    problem = mismatch(content, _SHAPE) or next(_missing(content, _REQUIRED), "")
    if problem or _is_deep(content, DEEPEST):
        raise ValueError(problem or f"it is nested more than {DEEPEST} levels deep")
    return cast(KeptRun, {key: content[key] for key in _SHAPE})


def _missing(value: Any, shape: Any, place: str = "") -> Iterator[str]:
    """Yield which keys of a shape are missing from a value that fits it otherwise."""
    for key in shape if isinstance(shape, dict) else ():
        if key and key not in value:
            yield f"{place}{key} is missing"
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        below = shape[0] if isinstance(shape, list) else shape.get("", shape.get(key))
        if isinstance(below, dict | list):
            yield from _missing(inner, below, f"{place}{key}."[-LONGEST_PLACE:])


def _is_deep(value: object, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 0 or _is_deep(item, levels - 1) for item in inner)


def _host(host: Host) -> dict[str, Any]:
    return {name: plain(value) for name in _SETTINGS if (value := getattr(host, name)) not in (None, {})}


def _versions(facts: Facts) -> dict[str, str]:
    versions = {
        "Python": facts.python, "Ray": facts.ray, "vLLM": facts.vllm, "PyTorch": facts.torch,
        "vllm-router": facts.router,
    }  # fmt: skip
    return {name: version for name, version in versions.items() if version is not None}


def _certificates(inputs: Inputs) -> Iterator[tuple[str, str]]:
    """Yield the digests of certificates; keys count as secrets."""
    for name, content in inputs.spec.tls.sent.items() if inputs.spec.tls else ():
        if isinstance(content, str):
            yield name, digest_of(content)
    for host, facts in inputs.facts.items():
        yield from ((f"{host}:{path}", file.hash) for path, file in facts.tls_files.items() if file.hash)


def _ray(plan: Plan, facts: Mapping[str, Facts]) -> KeptRay:
    ray: RayPlan = plan.ray
    scripts = {f"{node.host}/ray_{node.role}.sh": _script(plan, node.host, f"ray_{node.role}.sh") for node in ray.nodes}
    nodes = {node.host: list(_node_gpus(node, facts.get(node.host))) for node in ray.nodes}
    return {"enabled": ray.enabled, "address": ray.address, "nodes": nodes, "scripts": scripts}


def _node_gpus(node: RayNode, facts: Facts | None) -> Iterable[int]:
    """Return the GPUs of a node of Ray: all of the host's where it may see all."""
    if node.visible_gpus is not None:
        return node.visible_gpus
    return (gpu.index for gpu in facts.gpus) if facts else range(node.num_gpus)


def _server(plan: Plan, server: Server) -> KeptServer:
    instance = server if isinstance(server, InstancePlan) else None
    return {
        "name": server.name,
        "model": server.model,
        "engine": instance.engine if instance else GATE if server.name == GATE else "router",
        "gpus": {name: list(held) for name, held in instance.gpus.items()} if instance else {},
        "ranks": [_rank(plan, rank) for rank in (instance.members if instance else server.ranks)],
    }


def _rank(plan: Plan, rank: Rank) -> KeptRank:
    return {**rank.start, "name": rank.name, "script": _script(plan, rank.host, rank.script)}


def _script(plan: Plan, host: str, name: str) -> str:
    """Return the digest of a script, which is the same in another run; "" for a plan without scripts.

    That of the gate is also of the file that it reads.
    """
    scripts = plan.scripts.get(host, {})
    text = scripts.get(name, "") + (scripts.get(SETTINGS, "") if plan.gate and name == plan.gate.script else "")
    return digest_of(text.replace(plan.run_id, "RUN").replace(plan.ray.session, "SESSION")) if text else ""
