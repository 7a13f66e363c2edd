"""Check that TLS can start, and that a router accepts the certificates of its replicas."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from flagscale_deploy.checks.conditions import engines, no_plan, on, ranks
from flagscale_deploy.checks.types import Context, Finding
from flagscale_deploy.facts.model import TLS_FLAGS, TlsFile
from flagscale_deploy.plan.model import InstancePlan, RouterPlan
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
    """Check that a router accepts its replicas' certificates; warn where it speaks plain HTTP to clients.

    It verifies the address that it connects to, and has no option to skip that (vllm-router 0.1.17).
    """
    for router, replicas in _routed(context):
        for rank in (rank for replica in replicas for rank in replica.ranks):
            if rank.certificate is not None and (file := _facts_of(context, rank.host, rank.certificate)):
                yield from _verify(context, router, rank, file)
        trusted = router.env.get(TRUST)
        if trusted is not None and (file := _facts_of(context, router.driver, trusted)) is not None and file.problem:
            look = on(context, router.driver, "ls -l", trusted)
            yield Finding(router.driver, f"{trusted}, the CA file of {router.name}: {file.problem}",
                          remedy=f"put it there: {look}")  # fmt: skip
        if not is_loopback(flag_of(router.argv, "host") or ""):
            yield Finding(
                router.driver,
                f"{router.name} speaks plain HTTP to clients: only the connections to its replicas use TLS",
                "TLS up to the clients",
                "deploy.router: none, so that clients connect to the replicas; or deploy.router.host: 127.0.0.1 behind "
                "a TLS proxy",
                "warning",
            )


def no_tls(context: Context) -> str:
    """Return why there is no TLS to look at; "" if there is."""
    configured = any(flag_of(instance.argv, flag) for instance in engines(context) for flag in TLS_FLAGS)
    return no_plan(context) or ("" if configured else "no model has ssl flags, and deploy.tls is not set")


def no_routed_tls(context: Context) -> str:
    """Return why no router uses TLS; "" if one does."""
    return no_plan(context) or ("" if any(_routed(context)) else "no router has replicas with TLS")


def _routed(context: Context) -> Iterator[tuple[RouterPlan, list[InstancePlan]]]:
    """Yield the routers in front of servers with TLS, and these servers."""
    for router in context.plan.routers if context.plan else ():
        replicas = [
            instance for instance in engines(context) if instance.model == router.model and instance.certificate
        ]
        if replicas:
            yield router, replicas


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


def _verify(context: Context, router: RouterPlan, rank: Rank, file: TlsFile) -> Iterator[Finding]:
    """Yield reasons why a router rejects a replica's certificate; one that can't be read is reported by tls-files."""
    address = urlsplit(rank.worker_url).hostname or ""
    if file.problem or file.expires is None:
        return
    if not any(_is_for(name, address) for name in file.names):
        names = ", ".join(file.names) or "no name (its CN does not count)"
        kind = "IP" if is_address(address) else "DNS"
        yield Finding(
            rank.host,
            f"{router.name} connects to {rank.name} at {address}, but its certificate is for {names}",
            f"{address} among its names",
            f"a certificate with subjectAltName={kind}:{address}; or deploy.router: none",
        )
    if file.self_signed and (trusted := _trusted(context, router)) is not None and trusted.hash != file.hash:
        yield Finding(
            rank.host,
            f"{rank.name} has a self-signed certificate, which {router.name} does not trust",
            "a certificate that the router trusts",
            f"deploy.tls.cafile: a file on {router.driver} that contains the certificates of all replicas",
        )


def _trusted(context: Context, router: RouterPlan) -> TlsFile | None:
    """Return the one certificate that a router trusts, empty for none; None for a bundle, which can't be compared."""
    path = router.env.get(TRUST)
    if path is None:
        return TlsFile()
    named = context.spec is not None and context.spec.tls is not None and context.spec.tls.cafile is not None
    own = any(instance.certificate == path for instance in engines(context))
    return _facts_of(context, router.driver, path) if own and not named else None


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
