"""Everything on a host that connects to a port: through the one client, or with a proof of who answers."""

from __future__ import annotations

import ast
import re

from tests.unit.sources import ROOT, Module, read_package

CONNECTS = frozenset(
    ("connect", "connect_ex", "create_connection", "open_connection", "sock_connect", "sendto", "sendmsg",
     "wrap_socket", "wrap_bio", "urlopen", "build_opener", "HTTPConnection", "HTTPSConnection", "ServerProxy")
)  # fmt: skip
"""Calls that open a connection, or speak over one."""
LIBRARIES = frozenset(
    ("http.client", "urllib.request", "urllib3", "requests", "httpx", "aiohttp", "ssl", "asyncio", "ftplib", "smtplib",
     "telnetlib", "xmlrpc", "socketserver")
)  # fmt: skip
ALLOWED = {
    "remote.engine.client": "verifies what answers (`PortGuard`) before it sends",
    "remote.system.http_exchange": "speaks over the connection that it is given",
    "remote.network_test.connect": "both ends prove that they know the check's token (`handshake`)",
    "remote.network_test.throughput": "both ends prove that they know the check's token (`handshake`)",
    "remote.system.network": "sends nothing: learns its own source address, and whether a port takes connections",
    "remote.peers": "both ends prove that they know the run's token (`handshake`)",
    "remote.system.tls_files": "reads certificates from files",
    "gate.guard": "verifies what answers before `gate.upstreams` sends",
    "gate.upstreams": "sends requests to the servers of its configuration, and nowhere else",
    **dict.fromkeys(
        ("gate.body", "gate.connections", "gate.errors", "gate.overview", "gate.program", "gate.proxy", "gate.relay"),
        "serves clients, or speaks through `gate.upstreams`",
    ),
    "gate.tls": "loads a certificate",
}
COMMANDS = re.compile(r"\b(?:curl|wget|netcat|ncat|nc|socat|openssl s_client)\b |/dev/(?:tcp|udp)/")
COMMANDS_ALLOWED = {"ray_worker.sh.j2"}
"""It waits for the head's port, and sends nothing."""


def connects(module: Module) -> bool:
    calls = {
        node.func.attr for node in module.nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    libraries = {name for name in module.imports if any(f"{name}.".startswith(f"{library}.") for library in LIBRARIES)}
    return bool((calls | module.called) & CONNECTS or libraries)


def test_all_that_connects_verifies_what_answers() -> None:
    on_hosts = [module for module in read_package().values() if module.room in ("gate", "remote", "serve")]
    assert {module.name for module in on_hosts if connects(module)} == set(ALLOWED)


def test_only_the_client_speaks_http() -> None:
    importing = "remote.system.http_exchange"
    users = {module.name for module in read_package().values() if any(importing in name for name in module.imports)}
    exchanging = {name for name in users if "exchange(" in read_package()[name].text}
    assert exchanging == {"remote.engine.client", "recipes.site"}  # the second on the operator's side alone


def test_no_command_on_a_host_connects_to_a_port() -> None:
    texts = {path.name: path.read_text() for path in sorted((ROOT / "templates").glob("*.j2"))}
    texts |= {path.name: path.read_text() for path in sorted((ROOT / "flagscale_deploy/remote").rglob("*.py"))}
    assert {name for name, text in texts.items() if COMMANDS.search(text)} == COMMANDS_ALLOWED
