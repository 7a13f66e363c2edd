"""Streams: unbuffered, whole or visibly cut, given up at the server with their client, and many at once."""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.component.gate.gate import ALICE, KEYS, Gate, ask, begin_stream, wait_until
from tests.component.gate.stand_in import MODEL, StandIn, event

STREAMS = 2000
MEMORY = 300.0
LARGE = {"model": MODEL, "tokens": 1_000_000}
ENDLESS = LARGE | {"every": 0.05}


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


@pytest.fixture(scope="module")
def gate(server: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with Gate(tmp_path_factory.mktemp("gate"), {MODEL: [server.url]}) as gate:
        yield gate


def read_all(connection: socket.socket) -> bytes:
    received = bytearray()
    while True:
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            return bytes(received)
        if not piece:
            return bytes(received)
        received += piece


def test_tokens_come_as_the_server_sends_them(server: StandIn, gate: Gate) -> None:
    """The second token is sent long after the first has arrived: nothing waits for more."""
    connection = begin_stream(gate, {"model": MODEL, "tokens": 2, "every": 600.0})
    assert server.open == 1
    connection.close()
    wait_until(lambda: server.open == 0)
    reply = ask(gate, body={"model": MODEL, "stream": True, "tokens": 50})
    assert reply.content == b"".join(map(event, range(50))) + b"data: [DONE]\n\n"
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"


@pytest.mark.parametrize("body", [ENDLESS, {"model": MODEL, "wait": 600.0}, LARGE], ids=["slow", "before", "fast"])
def test_a_client_that_goes_away_ends_its_request_at_the_server(
    server: StandIn, gate: Gate, body: dict[str, object], request: pytest.FixtureRequest
) -> None:
    identity = f"left-{request.node.callspec.id}"
    headers = ALICE | {"X-Request-Id": identity}
    if "wait" in body:
        connection = socket.create_connection(("127.0.0.1", gate.port))
        content = b'{"model": "qwen", "wait": 600}'
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST /v1/completions HTTP/1.1\r\nHost: g\r\n{lines}Content-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content)
        wait_until(lambda: server.open == 1)
    else:
        connection = begin_stream(gate, body, headers)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    wait_until(lambda: server.open == 0, "the server goes on")
    assert gate.line(identity)["cut"] == "client"
    assert ask(gate, body={"model": MODEL}).status == 200


def test_a_reply_that_its_server_breaks_off_is_no_whole_one_for_the_client(server: StandIn, gate: Gate) -> None:
    headers = ALICE | {"X-Request-Id": "cut"}
    with begin_stream(gate, {"model": MODEL, "tokens": 5, "break_after": 2, "every": 0.1}, headers) as connection:
        rest = read_all(connection)
    assert not rest.endswith(b"0\r\n\r\n")
    assert gate.line("cut")["cut"] == "server"
    assert 'flagscale_gate_cut_replies_total{model="qwen"} 1' in gate.metrics()


def test_a_server_that_breaks_off_before_its_reply_is_a_bad_gateway(server: StandIn, gate: Gate) -> None:
    assert ask(gate, body={"model": MODEL, "break": True}).status == 502


def test_a_silent_server_ends_by_the_configured_time_only(server: StandIn, tmp_path: Path) -> None:
    with Gate(tmp_path, {MODEL: [server.url]}, silence_seconds=0.3) as gate:
        reply = ask(gate, body={"model": MODEL, "wait": 600.0})
        assert (reply.status, reply.json["error"]["code"]) == (504, "timeout")
        wait_until(lambda: server.open == 0)


def test_a_key_that_is_revoked_while_a_stream_runs_ends_with_it(server: StandIn, gate: Gate) -> None:
    with begin_stream(gate, {"model": MODEL, "tokens": 60, "hold": True}) as connection:
        gate.write_keys({"bob": KEYS["bob"], "carol": "sk-carol"})
        wait_until(lambda: ask(gate, body={"model": MODEL}).status == 401)
        assert ask(gate, body={"model": MODEL}, headers={"x-api-key": "sk-carol"}).status == 200
        server.release()
        received = b""
        while b"[DONE]" not in received:
            received += connection.recv(65536)
    assert event(59) in received
    gate.write_keys(KEYS)
    wait_until(lambda: ask(gate, body={"model": MODEL}).status == 200)


def test_many_streams_at_once_lose_nothing_and_take_little_memory(server: StandIn, gate: Gate) -> None:
    """Each client has all tokens; all streams are open at the same time."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 3 * STREAMS + 200)), hard))
    wait_until(lambda: server.open == 0)
    server.most_open, before = 0, len(gate.logged())
    memory, contents = asyncio.run(many(gate, server, STREAMS))
    expected = b"".join(map(event, range(4))) + b"data: [DONE]\n\n"
    assert [content == expected for content in contents] == [True] * STREAMS
    assert server.most_open == STREAMS
    assert memory <= MEMORY
    wait_until(lambda: len(gate.logged()) == before + STREAMS)


async def many(gate: Gate, server: StandIn, streams: int) -> tuple[float, list[bytes]]:
    """Return the gate's memory while all streams are open, and what each client received."""
    body = {"model": MODEL, "stream": True, "tokens": 4, "hold": True}
    begun = 0

    connecting = asyncio.Semaphore(100)

    async def one(client: aiohttp.ClientSession) -> bytes:
        url = f"http://127.0.0.1:{gate.port}/v1/chat/completions"
        nonlocal begun
        await connecting.acquire()
        async with client.post(url, json=body, headers=ALICE) as reply:
            assert reply.status == 200, await reply.text() + gate.log.read_text()
            first = await reply.content.readany()
            connecting.release()
            begun += 1
            return first + await reply.read()

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as client:
        tasks = [asyncio.create_task(one(client)) for _ in range(streams)]
        while begun < streams:
            await asyncio.wait(tasks, timeout=0.1, return_when=asyncio.FIRST_EXCEPTION)
            assert [task.result() for task in tasks if task.done()] == []
        memory = gate.memory()
        server.release()
        return memory, list(await asyncio.gather(*tasks))
