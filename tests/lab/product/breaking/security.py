"""Servers that strangers reach, and files of TLS that are not as they should be."""

from __future__ import annotations

from tests.lab.product.breaking.stage import Stage, caught_by

CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=node1 -keyout /run/key.pem -out /run/cert.pem 2>/dev/null"
)


@caught_by("open-server", "set api-key", state="warning", host="node1", round="flags", at="node2")
def a_server_without_a_key_has_an_address_of_the_internet(stage: Stage) -> None:
    driver = stage.lab.hosts[0]
    stage.on("ip address add 1.2.3.4/32 dev lo", "ip address del 1.2.3.4/32 dev lo", driver)


@caught_by("tls-files", "put it there", host="node1", round="flags", at="node2")
def the_certificate_is_not_there(stage: Stage) -> None:
    stage.flags(ssl_certfile="/run/no-such.pem")


@caught_by("tls-files", "chmod 600 /run/key.pem", state="warning", host="node1", round="values", at="node2")
def the_key_can_be_read_by_everybody(stage: Stage) -> None:
    stage.on(f"{CERTIFICATE} && chmod 644 /run/key.pem", "rm -f /run/key.pem /run/cert.pem", stage.lab.hosts[0])
    stage.flags(ssl_certfile="/run/cert.pem", ssl_keyfile="/run/key.pem")


@caught_by("router-tls", "subjectAltName=IP:", host="node1", words=("--skip-check", "router-installed"))
def the_router_would_not_take_the_certificate_of_its_replica(stage: Stage) -> None:
    stage.on(f"{CERTIFICATE} && chmod 600 /run/key.pem", "rm -f /run/key.pem /run/cert.pem", stage.lab.hosts[0])
    stage.deploy(
        tls={"certfile": "/run/cert.pem", "keyfile": "/run/key.pem"}, router={"enabled": True, "host": "127.0.0.1"}
    )
