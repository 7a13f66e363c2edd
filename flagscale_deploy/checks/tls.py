"""Check that TLS can start, and that a router or gate accepts the certificates of its replicas."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from flagscale_deploy.checks.conditions import engines, no_plan, on, ranks
from flagscale_deploy.checks.types import Context, Finding
from flagscale_deploy.facts.model import TLS_FLAGS, TlsFile
from flagscale_deploy.plan.entrances import GATE, GatePlan, RouterPlan
from flagscale_deploy.plan.model import InstancePlan
from flagscale_deploy.plan.network import is_address, is_loopback
from flagscale_deploy.plan.rank import Rank, flag_of
from flagscale_deploy.plan.tls import file_on

TRUST = "SSL_CERT_FILE"


def tls_files(context: Context) -> Iterator[Finding]:
    """Check that certificate, key and CA file of an engine are readable on its host, and not expired."""
    for instance, rank in ranks(context):
        facts = context.facts.get(rank.host)
        paths = {flag: path for flag in TLS_FLAGS if (path := flag_of(rank.argv, flag))}
        if facts is None or not paths or not rank.answers:
            continue
        yield from _handshake(instance) if rank is instance.ranks[0] else ()
        for flag, path in paths.items():
            if (file := _facts_of(context, rank.host, path)) is not None:
                yield from _file(context, rank.host, flag, path, file, facts.clock)


def router_tls(context: Context) -> Iterator[Finding]:
    """Check that a router or gate accepts its replicas' certificates; warn where it speaks plain HTTP to clients.

    A router verifies the address that it connects to, and has no option to skip that (vllm-router 0.1.17).
    """
    for front, replicas in _fronted(context):
        for rank in (rank for replica in replicas for rank in replica.ranks):
            if rank.certificate is not None and (file := _facts_of(context, rank.host, rank.certificate)):
                yield from _verify(context, front, rank, file)
        trusted = _trust_of(front)
        if trusted is not None and (file := _facts_of(context, front.driver, trusted)) is not None and file.problem:
            look = on(context, front.driver, "ls -l", trusted)
            yield Finding(front.driver, f"{trusted}, the CA file of {front.name}: {file.problem}",
                          remedy=f"put it there: {look}")  # fmt: skip
    yield from _in_clear(context)


def _in_clear(context: Context) -> Iterator[Finding]:
    """Yield a router, or the gate, that speaks plain HTTP to clients though replicas behind it speak TLS."""
    before_tls = [front.name for front, _ in _fronted(context)]
    for front in context.plan.fronts if context.plan else ():
        is_gate = isinstance(front, GatePlan)
        bound = front.host if isinstance(front, GatePlan) else flag_of(front.argv, "host")
        if (before_tls if is_gate else front.name in before_tls) and not (
            front.certificate or is_loopback(bound or "")
        ):
            others = "deploy.router: none, so that clients connect to the replicas; or deploy.router.host: 127.0.0.1"
            yield Finding(
                front.driver,
                f"{front.name} speaks plain HTTP to clients: only the connections to its replicas use TLS",
                "TLS up to the clients",
                "set deploy.tls" if is_gate else f"deploy.gate: true, with deploy.tls; or {others} behind a TLS proxy",
                "warning",
            )


def no_tls(context: Context) -> str:
    """Return why there is no TLS to look at; "" if there is."""
    configured = any(flag_of(instance.argv, flag) for instance in engines(context) for flag in TLS_FLAGS)
    return no_plan(context) or ("" if configured else "no model has ssl flags, and deploy.tls is not set")


def no_routed_tls(context: Context) -> str:
    """Return why no router or gate uses TLS; "" if one does."""
    return no_plan(context) or ("" if any(_fronted(context)) else "no router or gate has replicas with TLS")


def _fronted(context: Context) -> Iterator[tuple[RouterPlan | GatePlan, list[InstancePlan]]]:
    """Yield the routers and the gate in front of servers with TLS, and these servers."""
    for front in context.plan.fronts if context.plan else ():
        behind = context.plan.behind(front) if context.plan else ()
        if replicas := [instance for instance in engines(context) if instance.certificate and instance in behind]:
            yield front, replicas


def _trust_of(front: RouterPlan | GatePlan) -> str | None:
    """Return the CA file of a router or gate; None for the system's."""
    return front.env.get(TRUST) if isinstance(front, RouterPlan) else front.trust


def _handshake(instance: InstancePlan) -> Iterator[Finding]:
    if instance.certificate is None:
        yield Finding(instance.driver, f"{instance.name} has no ssl-certfile, so it would serve without TLS",
                      remedy="set ssl-certfile and ssl-keyfile")  # fmt: skip
    if flag_of(instance.argv, "ssl-cert-reqs") == "2":
        problem = f"{instance.name} refuses clients without a certificate (ssl-cert-reqs: 2), also our readiness probe"
        remedy = "set ssl-cert-reqs: 1; `run`, `status`, `call` and the router have no client certificate"
        yield Finding(instance.driver, problem, remedy=remedy)


def _file(context: Context, host: str, flag: str, path: str, file: TlsFile, clock: float) -> Iterator[Finding]:
    if file.problem:
        yield Finding(
            host, f"{flag} {path}: {file.problem}", remedy=f"put it there: {on(context, host, 'ls -l', path)}"
        )
    elif file.expires is not None and file.expires < clock:
        yield Finding(host, f"{flag} {path} has expired", remedy="renew it")
    elif flag == "ssl-keyfile" and file.mode & 0o077:
        yield Finding(host, f"{flag} {path} can be read by others (mode {file.mode:o})",
                      "mode 600", on(context, host, "chmod", "600", path), "warning")  # fmt: skip


def _verify(context: Context, front: RouterPlan | GatePlan, rank: Rank, file: TlsFile) -> Iterator[Finding]:
    """Yield reasons why a router or gate rejects a certificate; one that can't be read is reported by tls-files."""
    address = urlsplit(rank.worker_url).hostname or ""
    if file.problem or file.expires is None:
        return
    if not any(_is_for(name, address) for name in file.names):
        names = ", ".join(file.names) or "no name (its CN does not count)"
        kind = "IP" if is_address(address) else "DNS"
        yield Finding(
            rank.host,
            f"{front.name} connects to {rank.name} at {address}, but its certificate is for {names}",
            f"{address} among its names",
            f"a certificate with subjectAltName={kind}:{address}; or deploy.router: none",
        )
    if file.self_signed and (trusted := _trusted(context, front)) is not None and trusted.hash != file.hash:
        yield Finding(
            rank.host,
            f"{rank.name} has a self-signed certificate, which {front.name} does not trust",
            f"a certificate that the {GATE if front.name == GATE else 'router'} trusts",
            f"deploy.tls.cafile: a file on {front.driver} that contains the certificates of all replicas",
        )


def _trusted(context: Context, front: RouterPlan | GatePlan) -> TlsFile | None:
    """Return the certificate that a router or gate trusts, empty for none; None for a bundle, which is not compared."""
    path = _trust_of(front)
    if path is None:
        return TlsFile()
    named = context.spec is not None and context.spec.tls is not None and context.spec.tls.cafile is not None
    own = any(instance.certificate == path for instance in engines(context))
    return _facts_of(context, front.driver, path) if own and not named else None


def _is_for(name: str, address: str) -> bool:
    if is_address(address):
        return is_address(name) and ip_address(name) == ip_address(address)
    head, _, rest = address.lower().partition(".")
    return name.lower() in (address.lower(), f"*.{rest}" if head and rest else address.lower())


def _facts_of(context: Context, host: str, path: str) -> TlsFile | None:
    """Return what is known of a file on a host; of files that are sent there, only of the certificate."""
    facts, spec = context.facts.get(host), context.spec
    tls = spec.tls if spec is not None else None
    if spec and tls and tls.sent and path == file_on(spec, tls, tls.certfile, host, facts):
        return tls.certificate
    return facts.tls_files.get(path) if facts is not None else None
