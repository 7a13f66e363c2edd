"""Another user of a host takes the engine's port: `run`, `status` and `call` say so, and they hear nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab import Host, Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator, eventually
from tests.lab.product.stand_in import given, is_started

Write = Callable[..., Serve]
KEY = "sk-canary"
NOBODY = 65534
SERVER = Path(__file__).parents[2] / "component/remote/stand_in.py"
HOLD_LOADING = "/dev/shm/hold-loading"


@contextlib.contextmanager
def stranger(host: Host, port: int) -> Iterator[Callable[[], str]]:
    """Serve on a host's port as another user, who says to be well; provide what they heard."""
    heard, program = "/dev/shm/heard", "/dev/shm/stranger.py"
    behaviour = f'{{"address": "0.0.0.0", "port": {port}, "uid": {NOBODY}, "anything": "HTTP/1.1 200 OK\\r\\n\\r\\n"}}'
    host.run(f"cat >{program}", stdin=SERVER.read_text().replace("from flagscale_deploy", "#"))
    host.run(f"setsid python3 {program} '{behaviour}' >{heard} 2>&1 & echo $! >/dev/shm/stranger")
    assert eventually(lambda: "port" in host.run(["cat", heard]).stdout)
    yield lambda: host.run(["cat", heard]).stdout.partition("\n")[2]
    host.run(f"kill -9 $(cat /dev/shm/stranger); rm {heard} {program} /dev/shm/stranger")


def running(lab: Lab, name: str) -> list[str]:
    return [f"{left.host}: {left.what}" for left in lab.leftovers(name) if left.kind != "directory"]


@pytest.fixture
def host(lab: Lab) -> Iterator[Host]:
    yield lab.hosts[0]
    lab.hosts[0].run(["rm", "-f", HOLD_LOADING])


def test_run_fails_at_once_if_somebody_takes_the_port_while_the_engine_loads(
    lab: Lab, host: Host, operator: Operator, serve: Write
) -> None:
    host.run(["touch", HOLD_LOADING])
    served = serve(flags={"api-key": KEY})
    command = operator.start("run", "-c", served.config)
    assert eventually(lambda: is_started(host, served.port)), command.said
    with stranger(host, served.port) as heard:
        ended = command.end(exits=5)
        named = f"model0/0 cannot serve: port {served.port} is held by another user's process (uid {NOBODY}, pid "
        assert named in ended.err
        assert "`ss -ltnp` on node1 shows it), or choose another port" in ended.err
        assert heard() == ""
    assert running(lab, served.name) == []


def test_who_takes_the_port_of_a_dead_engine_gets_neither_prompt_nor_key(
    lab: Lab, host: Host, operator: Operator, serve: Write
) -> None:
    served = serve(flags={"api-key": KEY}, deploy={"restart": {"policy": "on-failure", "backoff": 0.1}})
    operator("run", "-c", served.config)
    assert operator("call", "hello", "--name", served.name).out == "you said: hello\n"
    host.run(["touch", HOLD_LOADING])  # the next engine does not get to its port
    host.run(["kill", "-9", str(given(host, served.port)["pid"])])
    with stranger(host, served.port) as heard:
        named = f"port {served.port} is held by another user's process (uid {NOBODY}, pid "
        assert eventually(lambda: named in operator("status", "--name", served.name, exits=None).said)
        status = operator("status", "--name", served.name, "--json", exits=1).json
        assert named in operator("call", "a secret prompt", "--name", served.name, exits=1).err
        assert heard() == ""
    assert status["instances"][0]["state"] == "unwell"
    operator("stop", "--name", served.name)
    assert running(lab, served.name) == []
