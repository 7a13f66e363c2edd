"""Whether TLS can start, and whether a router takes what its replicas show."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from flagscale_deploy.checks.conditions import engines, no_plan, on
from flagscale_deploy.checks.model import Finding, Scene
from flagscale_deploy.facts.model import TLS_FLAGS, TlsFile
from flagscale_deploy.plan.model import InstancePlan, RouterPlan, flag_of
from flagscale_deploy.plan.network import is_address, is_loopback
from flagscale_deploy.plan.tls import file_on

TRUST = "SSL_CERT_FILE"


def tls_files(scene: Scene) -> Iterator[Finding]:
    """Whether certificate, key and CA file of an engine are on its driver's host, readable, and not out of date."""
    for instance in engines(scene):
        facts = scene.facts.get(instance.driver)
        paths = {flag: path for flag in TLS_FLAGS if (path := flag_of(instance.argv, flag))}
        if facts is None or not paths:
            continue
        yield from _handshake(instance)
        for flag, path in paths.items():
            if (seen := _seen(scene, instance.driver, path)) is not None:
                yield from _file(scene, instance.driver, flag, path, seen, facts.clock)


def router_tls(scene: Scene) -> Iterator[Finding]:
    """Whether a router, which verifies the certificates of its replicas and speaks plain HTTP itself, would take them.

    It goes by the address that it asks, and knows no option to leave that out (vllm-router 0.1.17).
    """
    for router, replicas in _routed(scene):
        for each in replicas:
            if each.certificate is not None and (seen := _seen(scene, each.driver, each.certificate)) is not None:
                yield from _taken(scene, router, each, seen)
        trusted = router.env.get(TRUST)
        if trusted is not None and (seen := _seen(scene, router.driver, trusted)) is not None and seen.problem:
            look = on(scene, router.driver, "ls -l", trusted)
            yield Finding(router.driver, f"{trusted}, which {router.name} trusts its replicas by: {seen.problem}",
                          remedy=f"put it there: {look}")  # fmt: skip
        if not is_loopback(flag_of(router.argv, "host") or ""):
            yield Finding(
                router.driver,
                f"{router.name} speaks plain HTTP to its clients: TLS is between it and its replicas only",
                "TLS as far as clients",
                "deploy.router: none, so that clients ask the replicas; or deploy.router.host: 127.0.0.1 behind a "
                "proxy that speaks TLS",
                "warning",
            )


def no_tls(scene: Scene) -> str:
    """Why there is no TLS to look at."""
    asked = any(flag_of(each.argv, flag) for each in engines(scene) for flag in TLS_FLAGS)
    return no_plan(scene) or ("" if asked else "no model has ssl flags, and there is no deploy.tls")


def no_routed_tls(scene: Scene) -> str:
    """Why no router has to do with TLS."""
    return no_plan(scene) or ("" if any(_routed(scene)) else "no router stands before TLS")


def _routed(scene: Scene) -> Iterator[tuple[RouterPlan, list[InstancePlan]]]:
    """The routers in front of servers with TLS, and these."""
    for router in scene.plan.routers if scene.plan else ():
        replicas = [each for each in engines(scene) if each.model == router.model and each.certificate]
        if replicas:
            yield router, replicas


def _handshake(instance: InstancePlan) -> Iterator[Finding]:
    if instance.certificate is None:
        yield Finding(instance.driver, f"{instance.name} has no ssl-certfile: it would serve without TLS",
                      remedy="give ssl-certfile and ssl-keyfile")  # fmt: skip
    if flag_of(instance.argv, "ssl-cert-reqs") == "2":
        found = f"{instance.name} refuses clients without a certificate (ssl-cert-reqs: 2): it would not be found ready"
        remedy = "ssl-cert-reqs: 1; readiness, status, call and the router have none to show"
        yield Finding(instance.driver, found, remedy=remedy)


def _file(scene: Scene, host: str, flag: str, path: str, seen: TlsFile, clock: float) -> Iterator[Finding]:
    if seen.problem:
        yield Finding(host, f"{flag} {path}: {seen.problem}", remedy=f"put it there: {on(scene, host, 'ls -l', path)}")
    elif seen.expires is not None and seen.expires < clock:
        yield Finding(host, f"{flag} {path} is out of date", remedy="renew it")
    elif flag == "ssl-keyfile" and seen.mode & 0o077:
        yield Finding(host, f"{flag} {path} can be read by others (mode {seen.mode:o})",
                      "mode 600", on(scene, host, "chmod", "600", path), "warning")  # fmt: skip


def _taken(scene: Scene, router: RouterPlan, replica: InstancePlan, seen: TlsFile) -> Iterator[Finding]:
    """Whether a router takes a replica's certificate, as far as that can be seen; one that can't be read is no matter
    of its own."""
    address = urlsplit(replica.worker_url).hostname or ""
    if seen.problem or seen.expires is None:
        return
    if not any(_is_for(name, address) for name in seen.names):
        names = ", ".join(seen.names) or "no name (its CN does not count)"
        kind = "IP" if is_address(address) else "DNS"
        yield Finding(
            replica.driver,
            f"{router.name} asks {replica.name} at {address}, and its certificate is for {names}",
            f"{address} among its names",
            f"a certificate with subjectAltName={kind}:{address}; or deploy.router: none",
        )
    if seen.self_signed and (trusted := _trusted(scene, router)) is not None and trusted.hash != seen.hash:
        yield Finding(
            replica.driver,
            f"{replica.name} has a certificate that vouches for itself, and {router.name} does not know it",
            "a certificate that the router trusts",
            f"deploy.tls.cafile: a file on {router.driver} that holds the certificates of all of them",
        )


def _trusted(scene: Scene, router: RouterPlan) -> TlsFile | None:
    """What a router trusts, where that can be compared: nothing (an empty file), or one certificate and no bundle that
    the user named."""
    path = router.env.get(TRUST)
    if path is None:
        return TlsFile()
    named = scene.spec is not None and scene.spec.tls is not None and scene.spec.tls.cafile is not None
    own = any(each.certificate == path for each in engines(scene))
    return _seen(scene, router.driver, path) if own and not named else None


def _is_for(name: str, address: str) -> bool:
    if is_address(address):
        return is_address(name) and ip_address(name) == ip_address(address)
    head, _, rest = address.lower().partition(".")
    return name.lower() in (address.lower(), f"*.{rest}" if head and rest else address.lower())


def _seen(scene: Scene, host: str, path: str) -> TlsFile | None:
    """What is known of a file on a host; of one that is sent there, the certificate's, and nothing of the others."""
    facts, spec = scene.facts.get(host), scene.spec
    tls = spec.tls if spec is not None else None
    if spec and tls and tls.sent and path == file_on(spec, tls, tls.certfile, host, facts):
        return tls.certificate
    return facts.tls_files.get(path) if facts is not None else None
