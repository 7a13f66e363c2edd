"""Somebody else on a server's port: another user, another deployment, at every moment. They hear nothing of ours."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote.deployment import processes
from flagscale_deploy.remote.deployment.port_guard import ForeignListenerError, NotThisHostError, PortGuard
from flagscale_deploy.remote.deployment.processes import Recorded
from flagscale_deploy.remote.engine import openai
from flagscale_deploy.remote.engine.client import Client
from flagscale_deploy.remote.system import proc, sock_diag
from flagscale_deploy.remote.system.sock_diag import Connection
from tests.component.remote.living import SLEEP, Home, Household, birth, messages, wait_until
from tests.component.remote.programs.test_serving import own_addresses
from tests.component.remote.stand_in import ENGINE, NOBODY, StandIn, stand_in
from tests.other_user import as_nobody, needs_root

pytestmark = needs_root


def node_address() -> Iterator[str]:
    """Yield this machine's address in its network, if it has one."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(("192.0.2.1", 9))
        yield asking.getsockname()[0]


ADDRESSES = ["127.0.0.1", "::1", *node_address()]
SECRET = "sk-canary"


@pytest.fixture
def secret_home(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("HOME", str(home.path))
    (home.state / "secrets" / "env").write_text(f"VLLM_API_KEY={SECRET}\n")
    (home.state / "logs" / "engine.log").touch()
    return home


def server_of(home: Home, url: str, **more: Any) -> dict[str, Any]:
    return {
        "name": "m/0",
        "model": "m",
        "driver": home.host,
        "script": "serve.sh",
        "local_url": url,
        "served_name": "m",
        **more,
    }


def held_by(stranger: StandIn, uid: int = NOBODY) -> str:
    whose = "another user's process" if uid else "a process that is not of this deployment"
    return f"port {stranger.port} is held by {whose} (uid {uid}, pid {stranger.process.pid})"


def assert_untold(replies: dict[str, Any], stranger: StandIn, uid: int = NOBODY) -> None:
    """Assert that every program names the holder of the port, and that it heard nothing."""
    named = held_by(stranger, uid)
    inspected = replies["inspect"]
    assert replies["chat"] == {"problem": f"no answer: {named}"}
    assert (inspected["health"], inspected["token"] or None, inspected["metrics"]) == (None, None, None)
    assert (inspected["foreign"], inspected["why"]) == (True, named)
    assert replies["watch"] == {"foreign": named}
    assert stranger.heard == []


def ask_all(home: Home, url: str, pid: int, kind: str = "instances", **more: Any) -> dict[str, Any]:
    """Return what `chat`, `inspect` and `watch` say of a server whose process is `pid`."""
    process = {"role": "engine", "script": "serve.sh", "log": "", **birth(pid)}
    content: dict[str, Any] = {"processes": [process], kind: [server_of(home, url, **more)]}
    home.record(**content)
    (chat,) = home.run("chat", server="m/0", messages=[{"role": "user", "content": "a secret prompt"}], parameters={})
    (inspected,) = home.run("inspect", ask=True)
    program = {"program": {"addresses": list(more["addresses"])}} if "addresses" in more else {}
    log = str(home.state / "logs/engine.log")
    watch = {"pid": pid, "start_ticks": process["start_ticks"], "log": log, "url": url, "model": "m", "timeout": 20.0}
    with home.open("watch", **watch, **program) as watching:
        assert watching.stdout is not None
        output = watching.stdout.read()
    return {"chat": chat, "inspect": inspected["instances"]["m/0"], "watch": messages(output)[-1]}


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("kind", ["instances", "routers"])
def test_another_users_server_is_named_and_hears_nothing(
    secret_home: Home, people: Household, tmp_path: Path, kind: str, address: str
) -> None:
    """While the engine loads, or in the place of a router."""
    engine = people.python(SLEEP, f"{secret_home.deployment}/r1")[0]
    with stand_in(tmp_path, address=address, uid=NOBODY, replies=ENGINE) as stranger:
        assert_untold(ask_all(secret_home, stranger.url, engine, kind), stranger)


@pytest.mark.parametrize("address", ADDRESSES)
def test_the_deployments_own_server_is_asked_with_the_key_where_it_needs_it(
    secret_home: Home, tmp_path: Path, address: str
) -> None:
    with stand_in(tmp_path, f"{secret_home.deployment}/r1", address, replies=ENGINE) as engine:
        replies = ask_all(secret_home, engine.url, engine.process.pid)
        assert replies["chat"]["answer"]["choices"] == [{"message": {"content": "hi"}}]
        assert (replies["inspect"]["health"], replies["inspect"]["token"]) == (200, True)
        assert replies["inspect"]["metrics"] == {"running": 1.0}
        assert replies["watch"] == {"ready": True, "token": " token"}
        keyed = {request.split()[1]: f"Bearer {SECRET}" in request for request in engine.heard}
    assert keyed == {"/health": False, "/metrics": False, "/v1/completions": True, "/v1/chat/completions": True}


def test_a_server_that_died_is_not_replaced_by_whoever_takes_its_port(
    secret_home: Home, people: Household, tmp_path: Path
) -> None:
    """Between /health and the completion too: each request verifies its own connection."""
    client = openai.client(secret_home.deployment, secret_home.host)
    core = people.python(SLEEP, f"{secret_home.deployment}/r1")[0]
    with stand_in(tmp_path, f"{secret_home.deployment}/r1", replies=ENGINE) as engine:
        assert client.request(f"{engine.url}/health") == (200, "")
        engine.kill()
        with stand_in(tmp_path, port=engine.port, uid=NOBODY, replies=ENGINE) as stranger:
            with pytest.raises(ForeignListenerError) as raised:
                openai.one_token(client, stranger.url, "m", 5)
            assert str(raised.value) == held_by(stranger)
            assert_untold(ask_all(secret_home, stranger.url, core), stranger)


@pytest.mark.parametrize("program", [False, True])
def test_another_deployment_of_the_same_user_is_not_believed(
    secret_home: Home, people: Household, tmp_path: Path, program: bool
) -> None:
    engine = people.python(SLEEP, f"{secret_home.deployment}/r1")[0]
    with stand_in(tmp_path, f"{secret_home.deployment}-other/r1", replies=ENGINE) as stranger:
        more: dict[str, Any] = {"engine": "program", "addresses": {stranger.url: ""}} if program else {}
        assert_untold(ask_all(secret_home, stranger.url, engine, **more), stranger, uid=0)


def test_a_process_of_the_same_user_is_believed_for_a_program_alone(
    secret_home: Home, people: Household, tmp_path: Path
) -> None:
    """Its container's port may be served by docker-proxy, or by the container's own process: both are root's."""
    driver = people.python(SLEEP, f"{secret_home.deployment}/r1")[0]
    with stand_in(tmp_path, replies=ENGINE) as server:
        assert_untold(ask_all(secret_home, server.url, driver), server, uid=0)
        replies = ask_all(secret_home, server.url, driver, engine="program", addresses={server.url: ""})
        assert replies["chat"]["answer"]["choices"] == [{"message": {"content": "hi"}}]
        assert (replies["inspect"]["token"], replies["inspect"]["at"]) == (True, server.url)
        assert replies["watch"] == {"ready": True, "at": server.url}
    with stand_in(tmp_path, uid=NOBODY, replies=ENGINE) as stranger:
        more: dict[str, Any] = {"engine": "program", "addresses": {stranger.url: ""}}
        assert_untold(ask_all(secret_home, stranger.url, driver, **more), stranger)


def test_of_several_listeners_on_one_port_all_have_to_be_the_deployments(home: Home, tmp_path: Path) -> None:
    """SO_REUSEPORT spreads connections over them; clients would get to the other one too."""
    client, mark = openai.client(home.deployment, home.host), f"{home.deployment}/r1"
    with stand_in(tmp_path, mark, replies=ENGINE, reuse=True) as one:
        with stand_in(tmp_path, mark, port=one.port, replies=ENGINE, reuse=True):
            assert [client.request(f"{one.url}/health")[0] for _ in range(8)] == [200] * 8
        with stand_in(tmp_path, "other/r1", port=one.port, replies=ENGINE, reuse=True) as other:
            for _ in range(8):
                with pytest.raises(ForeignListenerError):
                    client.request(f"{one.url}/v1/models", private=True)
            assert other.heard == []


def test_another_user_whom_the_process_table_takes_for_the_deployment_is_a_stranger(home: Home, tmp_path: Path) -> None:
    """Who forks often enough gets the number of a dead session leader. The kernel knows whose socket it is."""
    with stand_in(tmp_path, uid=NOBODY, replies=ENGINE) as stranger:
        table = proc.scan()
        (process,) = (process for process in table if process.pid == stranger.process.pid)
        family = processes.family(f"{home.deployment}/", [Recorded("engine", *process.identity)])
        assert family.among(table) == [process]
        with pytest.raises(ForeignListenerError):
            Client(PortGuard(family)).request(f"{stranger.url}/health")
        assert stranger.heard == []


def test_one_listener_that_several_processes_inherited_is_the_deployments(home: Home, tmp_path: Path) -> None:
    client = openai.client(home.deployment, home.host)
    with stand_in(tmp_path, f"{home.deployment}/r1", replies=ENGINE, processes=3) as server:
        assert [client.request(f"{server.url}/health")[0] for _ in range(8)] == [200] * 8


def test_ipv4_and_ipv6_are_told_apart(secret_home: Home, tmp_path: Path) -> None:
    client, mark = openai.client(secret_home.deployment, secret_home.host), f"{secret_home.deployment}/r1"
    with stand_in(tmp_path, mark, "::", replies=ENGINE) as both:
        for host in ("127.0.0.1", "[::1]", "localhost", *(name for name in ADDRESSES if "." in name)):
            assert client.request(f"http://{host}:{both.port}/health")[0] == 200
    with stand_in(tmp_path, mark, "0.0.0.0", replies=ENGINE) as engine:
        strangers: dict[str, Any] = {"port": engine.port, "uid": NOBODY, "only_ipv6": True, "replies": ENGINE}
        for address in ("::1", "::"):
            with stand_in(tmp_path, address=address, **strangers) as stranger:
                assert client.request(f"http://127.0.0.1:{engine.port}/v1/models", private=True)[0] == 200
                with pytest.raises(ForeignListenerError):
                    client.request(f"http://[::1]:{engine.port}/v1/models", private=True)
                assert client.request(f"http://localhost:{engine.port}/v1/models", private=True)[0] == 200
                assert stranger.heard == []


def test_who_takes_no_connection_is_named_too_and_a_slow_server_of_ours_is_not(home: Home, tmp_path: Path) -> None:
    """The kernel takes connections for a listener before it accepts them: whose queue it is decides."""
    client = openai.client(home.deployment, home.host)
    with stand_in(tmp_path, uid=NOBODY, accept=False) as stranger, pytest.raises(ForeignListenerError):
        client.request(f"{stranger.url}/health", timeout=5)
    with stand_in(tmp_path, f"{home.deployment}/r1", accept=False) as engine:
        with pytest.raises(OSError, match="timed out") as raised:
            client.request(f"{engine.url}/health", timeout=0.3)
        assert not isinstance(raised.value, ForeignListenerError)


def test_a_connection_that_a_stranger_has_accepted_stays_the_strangers(home: Home, tmp_path: Path) -> None:
    """A server of the deployment listens there by now, and did not when the connection was made."""
    guard = PortGuard(processes.family(f"{home.deployment}/"))
    with stand_in(tmp_path, uid=NOBODY, leave=True, hold=True) as stranger:
        with socket.create_connection((stranger.address, stranger.port)) as connected:
            connection = Connection.of(connected)
            wait_until(lambda: stranger.heard == ["accepted"])
            with stand_in(tmp_path, f"{home.deployment}/r1", port=stranger.port, replies=ENGINE):
                guard.check_listeners(connection)
                for check in (guard.check, guard.check_replied):
                    with pytest.raises(ForeignListenerError):
                        check(connection)
                stranger.kill()
                with pytest.raises(ConnectionResetError):
                    guard.check(connection)


def test_a_sandbox_without_sock_diag_is_looked_at_in_proc(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr(sock_diag, "listening", refuse)
    monkeypatch.setattr(sock_diag, "other_end", refuse)
    client = openai.client(home.deployment, home.host)
    for address in ADDRESSES:
        with stand_in(tmp_path, f"{home.deployment}/r1", address, replies=ENGINE) as engine:
            assert client.request(f"{engine.url}/health")[0] == 200
        with stand_in(tmp_path, address=address, uid=NOBODY, replies=ENGINE) as stranger:
            with pytest.raises(ForeignListenerError):
                client.request(f"{stranger.url}/health")
            assert stranger.heard == []


def test_an_operator_without_root_knows_their_own_servers(home: Home, tmp_path: Path) -> None:
    """They cannot see which process holds the socket of another user, and need not."""
    mark = f"{home.deployment}/r1"

    def ask(server: StandIn, *, program: bool) -> str:
        url = f"{server.url}/health"  # read as root
        socket.getaddrinfo(server.address, 0)  # so that nobody has to import what it needs

        def request() -> str:
            try:
                client = Client(PortGuard(processes.family(f"{home.deployment}/"), program=program))
                return str(client.request(url)[0])
            except OSError as error:
                return str(error)

        return str(as_nobody(request))

    with stand_in(tmp_path, mark, uid=NOBODY, replies=ENGINE) as own, stand_in(tmp_path, uid=0, replies=ENGINE) as root:
        assert ask(own, program=False) == "200"
        assert ask(root, program=False) == f"port {root.port} is held by another user's process (uid 0)"
        assert ask(root, program=True) == "200"
    with stand_in(tmp_path, mark, uid=1, replies=ENGINE) as marked:
        assert ask(marked, program=True) == f"port {marked.port} is held by another user's process (uid 1)"


def test_a_program_is_verified_at_the_host_where_it_serves(secret_home: Home, tmp_path: Path) -> None:
    mark = f"{secret_home.deployment}/r1"
    address = next(text for text in own_addresses() if ":" not in text)
    with (
        stand_in(tmp_path, mark, address, replies=ENGINE) as own,
        stand_in(tmp_path, "", address, uid=NOBODY, replies=ENGINE) as stranger,
    ):
        ports = {"m/0": own.port, "m/1": stranger.port}
        secret_home.record(ports=ports)
        assert secret_home.run("serving", address=own.url) == [{"serves": True, "why": ""}]
        foreign = {"serves": False, "foreign": True, "why": held_by(stranger)}
        assert secret_home.run("serving", address=stranger.url) == [foreign]
        assert [SECRET in request for request in own.heard] == [False]
        server = server_of(secret_home, "", engine="program", addresses={own.url: ""}) | {"driver": "another-host"}
        secret_home.record(instances=[server], ports=ports)
        (chat,) = secret_home.run("chat", server="m/0", messages=[], parameters={})
        assert "answer" in chat
        assert stranger.heard == []
    (refused,) = secret_home.run("serving", address=own.url)
    assert refused["serves"] is False
    assert "refused" in refused["why"]


def test_an_address_of_another_host_gets_no_key() -> None:
    guard = PortGuard(processes.family("any/"))
    elsewhere = Connection(socket.AF_INET, ("192.0.2.1", 40000), ("198.51.100.7", 8000), 0)
    with pytest.raises(NotThisHostError):
        guard.check(elsewhere)
