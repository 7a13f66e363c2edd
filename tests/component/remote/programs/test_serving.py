"""A host verifies that a program serves there: at its own addresses only, whoever names others."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

from flagscale_deploy.remote.system import network
from tests.component.remote.living import Home
from tests.component.remote.stand_in import ENGINE, stand_in

NOT_OWN = "it is no address of this host with a port of the deployment"


def own_addresses() -> list[str]:
    """Return addresses of this machine, one of each kind that it has, at which others reach it."""
    held = [ip_address(text) for interface in network.interfaces() for text in interface["addresses"]]
    held = [address for address in held if not (address.is_loopback or address.is_link_local)]
    return list({address.version: str(address) for address in held}.values())


def verify(home: Home, address: str) -> dict[str, Any]:
    (reply,) = home.run("serving", address=address)
    return reply


def everywhere(home: Home, folder: Path) -> Any:
    return stand_in(folder, f"{home.deployment}/r1", "::", replies=ENGINE)


def test_a_program_is_verified_at_each_address_of_its_host(home: Home, tmp_path: Path) -> None:
    with everywhere(home, tmp_path) as server:
        home.record(ports={"app/0": server.port})
        for address in own_addresses():
            url = f"http://[{address}]:{server.port}" if ":" in address else f"http://{address}:{server.port}"
            assert verify(home, url) == {"serves": True, "why": ""}


def test_nothing_is_sent_to_loopback(home: Home, tmp_path: Path) -> None:
    with everywhere(home, tmp_path) as server:
        home.record(ports={"app/0": server.port})
        for host in ("127.0.0.1", "127.1.2.3", "[::1]", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"):
            assert verify(home, f"http://{host}:{server.port}") == {"serves": False, "why": NOT_OWN}
        for rest in ("/admin/restart?x=", "?x=", "#x"):
            assert verify(home, f"http://127.0.0.1:{server.port}{rest}") == {"serves": False, "why": NOT_OWN}
        assert server.heard == []


def test_nothing_is_sent_to_a_port_that_the_host_has_not_recorded_nor_with_a_path(home: Home, tmp_path: Path) -> None:
    with everywhere(home, tmp_path) as server:
        for address in own_addresses():
            url = f"http://[{address}]:{server.port}" if ":" in address else f"http://{address}:{server.port}"
            for ports in ({}, {"app/0": server.port + 1}):
                home.record(ports=ports)
                assert verify(home, url) == {"serves": False, "why": NOT_OWN}
            home.record(ports={"app/0": server.port})
            for rest in ("/", "/admin?x=", "?x=", "#"):
                assert verify(home, url + rest) == {"serves": False, "why": NOT_OWN}
        (home.state / "record.json").unlink()
        assert verify(home, f"http://127.0.0.1:{server.port}") == {"serves": False, "why": NOT_OWN}
        assert server.heard == []


def test_no_other_host_is_connected_to(home: Home) -> None:
    home.record(ports={"app/0": 80})
    for address in ("192.0.2.1", "[2001:db8::1]", "169.254.169.254"):
        assert verify(home, f"http://{address}:80") == {"serves": False, "why": NOT_OWN}
