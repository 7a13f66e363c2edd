"""TLS behind a router: what vllm-router takes, and what it can't do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from flagscale_deploy.checks.types import Verdict
from flagscale_deploy.config.gate import GateSpec
from flagscale_deploy.config.spec import RouterSpec, ServeSpec, TlsSpec
from flagscale_deploy.facts.model import TlsFile
from flagscale_deploy.secrets import Secret
from tests.unit.checks.given import HOSTS, NOW, complaints, make_context
from tests.unit.plan.given import model, spec

PAIR = {"ssl-certfile": "/c.pem", "ssl-keyfile": "/k.pem"}
ADDRESSES = tuple(f"10.0.0.{number}" for number in (1, 2, 3, 4))
CERTIFICATE = TlsFile("", 0o644, NOW + 1, ADDRESSES, True, "a")
HIDDEN = RouterSpec(host="127.0.0.1")
"""Behind a proxy: nothing to warn of."""


def serve_spec(router: RouterSpec = HIDDEN, flags: Mapping[str, Any] = PAIR, tls: TlsSpec | None = None) -> ServeSpec:
    return spec(model(tp=8, replicas=4, engine_args={"max-model-len": 32768, **flags}), router=router, tls=tls)


def said(changes: Mapping[str, TlsFile], wish: ServeSpec, **files: TlsFile) -> list[Verdict]:
    """Return the verdicts where hosts have other certificates than the common one."""
    key = {"/k.pem": TlsFile("", 0o600)}
    seen = {name: {"tls_files": {"/c.pem": changes.get(name, CERTIFICATE), **key, **files}} for name in HOSTS}
    return complaints(make_context(seen, serve_spec=wish))


def test_one_certificate_for_all_that_vouches_for_itself_is_taken() -> None:
    assert said({}, serve_spec()) == []


def test_a_router_in_the_open_is_a_warning() -> None:
    (verdict,) = said({}, serve_spec(RouterSpec()))
    assert (verdict.check, verdict.host, verdict.state) == ("router-tls", "gpu01", "warning")
    assert "plain HTTP" in verdict.found
    assert "deploy.router: none" in verdict.remedy
    assert said({}, serve_spec(RouterSpec(enabled=False))) == []


def test_behind_a_gate_that_speaks_tls_the_router_is_no_warning() -> None:
    common = TlsSpec("/c.pem", "/k.pem")
    wish = serve_spec(RouterSpec(), flags={}, tls=common)
    assert said({}, replace(wish, gate=GateSpec())) == []
    alone = serve_spec(RouterSpec(enabled=False), flags={}, tls=common)
    assert said({}, replace(alone, gate=GateSpec())) == []
    (verdict,) = said({"gpu03": replace(CERTIFICATE, names=("10.0.0.1",))}, replace(alone, gate=GateSpec()))
    assert verdict.found == "gate connects to qwen/2 at 10.0.0.3, but its certificate is for 10.0.0.1"


@pytest.mark.parametrize("router", [RouterSpec(), RouterSpec(enabled=False)])
def test_a_gate_without_the_certificate_of_its_engines_is_a_warning(router: RouterSpec) -> None:
    (verdict,) = said({}, replace(serve_spec(router), gate=GateSpec()))
    assert (verdict.check, verdict.host, verdict.state) == ("router-tls", "gpu01", "warning")
    assert verdict.found == "gate speaks plain HTTP to clients: only the connections to its replicas use TLS"
    assert verdict.remedy == "set deploy.tls"
    assert said({}, replace(serve_spec(router), gate=GateSpec(host="127.0.0.1"))) == []


def test_a_certificate_for_another_address_is_refused_by_the_router() -> None:
    (verdict,) = said({"gpu03": replace(CERTIFICATE, names=("gpu03.example.com", "10.0.0.1"))}, serve_spec())
    assert (verdict.check, verdict.host, verdict.state) == ("router-tls", "gpu03", "failed")
    assert verdict.found.endswith("at 10.0.0.3, but its certificate is for gpu03.example.com, 10.0.0.1")
    assert "subjectAltName=IP:10.0.0.3" in verdict.remedy
    (verdict,) = said({"gpu03": replace(CERTIFICATE, names=())}, serve_spec())
    assert "its CN does not count" in verdict.found


@pytest.mark.parametrize(
    ("name", "taken"),
    [("gpu.example.com", True), ("*.example.com", True), ("*.com", False), ("example.com", False), ("10.0.0.1", False)],
)
def test_names_are_matched_as_the_router_does(name: str, taken: bool) -> None:
    wish = spec(
        model(tp=8, hosts="gpu01", engine_args={"max-model-len": 32768, **PAIR, "host": "gpu.example.com"}),
        router=RouterSpec(enabled=True, host="127.0.0.1"),
    )
    assert (said({"gpu01": replace(CERTIFICATE, names=(name,))}, wish) == []) is taken


def test_certificates_of_their_own_need_a_bundle_on_the_head() -> None:
    other = {"gpu02": replace(CERTIFICATE, hash="b")}
    (verdict,) = said(other, serve_spec())
    assert (verdict.check, verdict.host, verdict.state) == ("router-tls", "gpu02", "failed")
    assert "deploy.tls.cafile: a file on gpu01" in verdict.remedy
    bundle = TlsSpec("/c.pem", "/k.pem", "/ca.pem")
    assert said(other, serve_spec(flags={}, tls=bundle), **{"/ca.pem": TlsFile("", 0o644, NOW + 1)}) == []
    (verdict,) = said(other, serve_spec(flags={}, tls=bundle), **{"/ca.pem": TlsFile("No such file or directory")})
    assert verdict.found.startswith("/ca.pem, the CA file of qwen/router: No such file")


def test_certificates_of_an_authority_are_the_systems_affair() -> None:
    signed = replace(CERTIFICATE, self_signed=False)
    assert said({name: replace(signed, hash=name) for name in HOSTS}, serve_spec()) == []


def test_one_that_is_sent_is_known_before_it_is_there() -> None:
    tls = TlsSpec("tls.crt", "tls.key", "tls.crt", {"tls.crt": Secret("c"), "tls.key": Secret("k")}, CERTIFICATE)
    assert said({}, serve_spec(flags={}, tls=tls)) == []
    late = said({}, serve_spec(flags={}, tls=replace(tls, certificate=replace(CERTIFICATE, expires=NOW - 1))))
    assert {verdict.check for verdict in late} == {"tls-files"}
    assert "has expired" in late[0].found
    (verdict,) = said({}, serve_spec(flags={}, tls=replace(tls, certificate=replace(CERTIFICATE, names=ADDRESSES[:3]))))
    assert (verdict.check, verdict.host) == ("router-tls", "gpu04")


def test_clients_that_must_show_certificates_keep_us_out() -> None:
    wish = spec(model(tp=32, engine_args={"max-model-len": 32768, **PAIR, "ssl-cert-reqs": 2}))
    (verdict,) = said({}, wish)
    assert (verdict.check, verdict.state) == ("tls-files", "failed")
    assert "ssl-cert-reqs: 1" in verdict.remedy
