"""`deploy.tls` in plans: flags, endpoints, and what a router trusts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.config.spec import RouterSpec, TlsSpec
from flagscale_deploy.deploy.probe_hosts import tls_files
from flagscale_deploy.facts.model import TlsFile
from flagscale_deploy.plan.planner import digest
from flagscale_deploy.plan.rank import flag_of
from flagscale_deploy.secrets import Secret
from tests.unit.plan.given import OFFLINE, TEMPLATES, facts, faults_of, host, inventory, model, planned, seen, spec

TWO = inventory("gpu01", "gpu02")
THERE = TlsSpec("/etc/c.pem", "/etc/k.pem")
SENT = TlsSpec("tls.crt", "tls.key", "tls.crt", {"tls.crt": "C", "tls.key": Secret("K")}, TlsFile(), "./c.pem")
TWINS = model("qwen", tp=8, replicas=2)


def pair(serve_spec: Any, host_facts: Any = None) -> tuple[str | None, str | None]:
    (instance,) = planned(inventory("gpu01"), serve_spec, host_facts).instances
    return flag_of(instance.argv, "ssl-certfile"), flag_of(instance.argv, "ssl-keyfile")


def test_every_engine_serves_with_it() -> None:
    made = planned(TWO, spec(TWINS, tls=THERE, router=RouterSpec(enabled=False)))
    for instance in made.instances:
        assert {"--ssl-certfile=/etc/c.pem", "--ssl-keyfile=/etc/k.pem"} <= set(instance.argv)
        assert instance.certificate == "/etc/c.pem"
        assert {url[:8] for url in (instance.endpoint, instance.local_url, instance.ranks[0].worker_url)} == {
            "https://"
        }
    assert pair(spec(model(), tls=TlsSpec("/both.pem"))) == ("/both.pem", None)


def test_what_is_sent_is_below_the_state_directory() -> None:
    host_facts = {"gpu01": facts("gpu01", home="/home/me")}
    there = "/home/me/.flagscale-deploy/a%2Fb/gpu01/secrets"
    assert pair(spec(model(), tls=SENT, name="a/b"), host_facts) == (f"{there}/tls.crt", f"{there}/tls.key")
    (offline,) = planned(inventory(host("gpu01", gpus=8)), spec(model(), tls=SENT), OFFLINE).instances
    assert offline.certificate == "~/.flagscale-deploy/qwen/gpu01/secrets/tls.crt"


@pytest.mark.parametrize(
    ("own", "actions", "got"),
    [
        ({"ssl-certfile": "/own.pem"}, (), ("/own.pem", None)),
        ({"ssl-certfile": "/own.pem", "ssl-keyfile": "/own.key"}, (), ("/own.pem", "/own.key")),
        ({"ssl-certfile": False}, (), (None, None)),
        ({}, ("ssl-certfile=/own.pem",), ("/own.pem", None)),
    ],
)
def test_a_models_own_certificate_wins(own: dict[str, Any], actions: tuple[str, ...], got: object) -> None:
    serve_spec = spec(model(engine_args=own, action_args=actions), tls=THERE)
    assert pair(serve_spec) == got
    (instance,) = planned(inventory("gpu01"), serve_spec).instances
    assert instance.endpoint.startswith("https:" if got != (None, None) else "http:")


def test_a_hosts_own_certificate_wins_too() -> None:
    serve_spec = spec(model(), tls=THERE, host_engine_args={"gpu01": {"ssl-certfile": "/host.pem"}})
    assert pair(serve_spec) == ("/host.pem", None)


def test_a_key_alone_beside_deploy_tls_is_a_fault() -> None:
    serve_spec = spec(
        model(engine_args={"ssl-keyfile": "/k"}), tls=THERE, host_engine_args={"gpu01": {"ssl-keyfile": "/k"}}
    )  # fmt: skip
    ours, hosts = faults_of(inventory("gpu01"), serve_spec)
    assert ours.where == "qwen.yaml: model_args.qwen.ssl-keyfile"
    assert hosts.where == "qwen.yaml: experiment.node_args.gpu01.engine_args.ssl-keyfile"
    assert "set ssl-certfile beside it" in ours.remedy


SELF = {"/etc/c.pem": TlsFile(mode=0o644, expires=9e9, names=("10.0.0.1",), self_signed=True, hash="a")}


@pytest.mark.parametrize(
    ("tls", "host_facts", "trusted"),
    [
        (replace(THERE, cafile="/etc/ca.pem"), {}, "/etc/ca.pem"),
        (THERE, {"tls_files": SELF}, "/etc/c.pem"),
        (THERE, {"tls_files": {"/etc/c.pem": replace(SELF["/etc/c.pem"], self_signed=False)}}, None),
        (SENT, {"home": "/root"}, "/root/.flagscale-deploy/qwen/gpu01/secrets/tls.crt"),
        (None, {"tls_files": SELF}, None),
    ],
)
def test_a_router_trusts_what_the_user_says_or_a_certificate_that_vouches_for_itself(
    tls: TlsSpec | None, host_facts: dict[str, Any], trusted: str | None
) -> None:
    made = planned(TWO, spec(TWINS, tls=tls), seen("gpu01", "gpu02", **host_facts))
    (router,) = made.routers
    assert router.env.get("SSL_CERT_FILE") == trusted
    assert all(url.startswith("https" if tls else "http:") for url in router.workers)
    assert router.endpoint.startswith("http:"), "it can't speak TLS itself"
    assert not any("SSL_CERT_FILE" in instance.env for instance in made.instances)


def test_the_users_own_trust_wins() -> None:
    made = planned(TWO, spec(TWINS, tls=replace(THERE, cafile="/ca"), env={"SSL_CERT_FILE": "/mine"}))
    assert made.routers[0].env["SSL_CERT_FILE"] == "/mine"


def test_a_supervisor_is_told_of_the_certificate() -> None:
    serve_spec = spec(TWINS, tls=THERE, restart=RestartSpec("on-failure"))
    scripts = planned(TWO, serve_spec).scripts["gpu01"]
    assert "--certificate=/etc/c.pem" in scripts["vllm_serve_qwen_0.sh"]
    assert "--certificate" not in scripts["router_qwen.sh"]


def test_where_files_are_here_is_no_part_of_the_digest_and_the_certificate_is() -> None:
    same = digest(TWO, spec(model(), tls=SENT), TEMPLATES)
    assert digest(TWO, spec(model(), tls=replace(SENT, authority="/elsewhere")), TEMPLATES) == same
    renewed = replace(SENT, certificate=TlsFile(expires=9e9))
    assert digest(TWO, spec(model(), tls=renewed), TEMPLATES) != same


def test_the_probe_is_asked_for_files_on_hosts_and_for_none_that_are_sent() -> None:
    assert tls_files(spec(model(), tls=SENT)) == []
    serve_spec = spec(
        model(engine_args={"ssl-certfile": "own.pem"}, action_args=("ssl-keyfile=k", "enforce-eager")),
        tls=replace(THERE, cafile="/ca"),
        host_engine_args={"gpu01": {"ssl-certfile": "/host.pem"}},
    )
    assert tls_files(serve_spec) == ["/etc/c.pem", "/etc/k.pem", "/ca", "own.pem", "/host.pem", "k"]
