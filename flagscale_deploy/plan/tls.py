"""`deploy.tls` on a host: the flags of its engines, and what its router trusts them by."""

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
    """vLLM's flags for `deploy.tls` on a host; none for a model whose own flags (`own`: the host's) say what
    certificate it has, or with `ssl-certfile: false` that it has none."""
    tls = spec.tls
    if tls is None or CERTIFICATE in {*_flags(model), *own}:
        return {}
    key = {} if tls.keyfile is None else {KEY: file_on(spec, tls, tls.keyfile, host, facts)}
    return {CERTIFICATE: file_on(spec, tls, tls.certfile, host, facts), **key}


def router_trust(spec: ServeSpec, head: str, facts: Facts | None, replicas: Sequence[InstancePlan]) -> str | None:
    """The file on the head that a router trusts its replicas by: what the user says, else their certificate where it
    vouches for itself. None: they speak plain HTTP, or have certificates of authorities that the head knows."""
    paths = {each.certificate for each in replicas if each.certificate}
    path = next(iter(paths), None)
    if path is None:
        return None
    if spec.tls is not None and spec.tls.cafile is not None:
        return file_on(spec, spec.tls, spec.tls.cafile, head, facts)
    seen = facts.tls_files.get(path) if facts is not None and len(paths) == 1 else None
    return path if seen is not None and seen.self_signed else None


def half_pairs(spec: ServeSpec) -> Iterator[Fault]:
    """A key of one place would be taken with the certificate of another."""
    if spec.tls is None:
        return
    problem = f"{KEY} is set and {CERTIFICATE} is not, while deploy.tls has a certificate"
    remedy = f"set {CERTIFICATE} beside it, which then wins over deploy.tls; or take it out"
    for model in spec.models:
        flags = _flags(model)
        if KEY in flags and CERTIFICATE not in flags:
            yield Fault(f"{model.where}.{KEY}", problem, remedy)
    for host, own in spec.host_engine_args.items():
        if KEY in own and CERTIFICATE not in own:
            yield Fault(f"{spec.source}: experiment.node_args.{host}.engine_args.{KEY}", problem, remedy)


def file_on(spec: ServeSpec, tls: TlsSpec, name: str, host: str, facts: Facts | None) -> str:
    """Where a file of `deploy.tls` is on a host; its home is known once it was contacted."""
    if name not in tls.sent:
        return name
    home = (facts.home if facts is not None else "") or "~"
    return f"{home}/.flagscale-deploy/{file_name(spec.name)}/{file_name(host)}/secrets/{name}"


def _flags(model: ModelSpec) -> set[str]:
    return {*model.engine_args, *(action.partition("=")[0] for action in model.action_args)}
