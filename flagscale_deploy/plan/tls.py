"""Apply `deploy.tls` on a host: the flags of its engines, and the CA file of its router."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from flagscale_deploy.config.spec import ModelSpec, ServeSpec, TlsSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.plan.model import InstancePlan
from flagscale_deploy.remote.deployment.state import file_name

CERTIFICATE, KEY = "ssl-certfile", "ssl-keyfile"


def tls_flags(
    spec: ServeSpec, model: ModelSpec, host: str, facts: Facts | None, own: Mapping[str, object]
) -> dict[str, str]:
    """Return vLLM's flags for `deploy.tls` on a host; none for a model with its own `ssl-certfile`, false included.

    `own` are flags of the host, which count as the model's.
    """
    tls = spec.tls
    if tls is None or CERTIFICATE in {*_flags(model), *own}:
        return {}
    key = {} if tls.keyfile is None else {KEY: file_on(spec, tls, tls.keyfile, host, facts)}
    return {CERTIFICATE: file_on(spec, tls, tls.certfile, host, facts), **key}


def router_trust(spec: ServeSpec, head: str, facts: Facts | None, replicas: Sequence[InstancePlan]) -> str | None:
    """Return the CA file on the head by which a router trusts its replicas; None if it needs none.

    It is the user's file, else the replicas' certificate if that is self-signed. Plain HTTP, and certificates of a CA
    that the head knows, need none.
    """
    paths = {replica.certificate for replica in replicas if replica.certificate}
    path = next(iter(paths), None)
    if path is None:
        return None
    if spec.tls is not None and spec.tls.cafile is not None:
        return file_on(spec, spec.tls, spec.tls.cafile, head, facts)
    certificate = facts.tls_files.get(path) if facts is not None and len(paths) == 1 else None
    return path if certificate is not None and certificate.self_signed else None


def half_pairs(spec: ServeSpec) -> Iterator[Fault]:
    """Yield models and hosts with a key but no certificate of their own: it would be used with another certificate."""
    if spec.tls is None:
        return
    problem = f"{KEY} is set without {CERTIFICATE}, but deploy.tls has a certificate"
    remedy = f"set {CERTIFICATE} beside it, which overrides deploy.tls; or remove {KEY}"
    for model in spec.engines:
        flags = _flags(model)
        if KEY in flags and CERTIFICATE not in flags:
            yield Fault(model.place(KEY), problem, remedy)
    for host, own in spec.host_engine_args.items():
        if KEY in own and CERTIFICATE not in own:
            yield Fault(spec.where("experiment", "node_args", host, "engine_args", KEY), problem, remedy)


def file_on(spec: ServeSpec, tls: TlsSpec, name: str, host: str, facts: Facts | None) -> str:
    """Return the path of a file of `deploy.tls` on a host."""
    if name not in tls.sent:
        return name
    return state_file(spec, host, facts, f"secrets/{name}")


def state_file(spec: ServeSpec, host: str, facts: Facts | None, name: str) -> str:
    """Return the path of a file in the state directory of a host; its home directory is known only after a probe."""
    home = (facts.home if facts is not None else "") or "~"
    return f"{home}/.flagscale-deploy/{file_name(spec.name)}/{file_name(host)}/{name}"


def _flags(model: ModelSpec) -> set[str]:
    return {*model.engine_args, *(action.partition("=")[0] for action in model.action_args)}
