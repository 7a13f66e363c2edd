"""What a server may send: so many bytes, headers included, and in so much time altogether."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote.engine import metrics, openai
from flagscale_deploy.remote.engine.client import Client
from flagscale_deploy.remote.system import http_exchange
from tests.component.remote.living import Home
from tests.component.remote.stand_in import StandIn, reply, stand_in

OK = "HTTP/1.1 200 OK\r\n"
SLOW: dict[str, dict[str, Any]] = {
    "status line": {"greeting": "HTTP/1.1", "repeat": "1"},
    "headers": {"anything": OK, "repeat": "a: b\r\n"},
    "one header": {"anything": f"{OK}a: ", "repeat": "b"},
    "informational": {"anything": "", "repeat": "HTTP/1.1 100 Continue\r\n\r\n"},
    "body": {"anything": f"{OK}Content-Length: 99999999\r\n\r\n", "repeat": "b"},
    "body to the end": {"anything": f"{OK}\r\n", "repeat": "b"},
    "chunks": {"anything": f"{OK}Transfer-Encoding: chunked\r\n\r\n", "repeat": "1\r\nb\r\n"},
    "chunk size": {"anything": f"{OK}Transfer-Encoding: chunked\r\n\r\n", "repeat": "0"},
    "trailers": {"anything": f"{OK}Transfer-Encoding: chunked\r\n\r\n0\r\n", "repeat": "a: b\r\n"},
    "nothing": {"hold": True},
}
LONG = {name: behaviour for name, behaviour in SLOW.items() if name != "nothing"}


@pytest.fixture
def client(home: Home) -> Client:
    return openai.client(home.deployment, home.host)


def serving(home: Home, folder: Path, **behaviour: Any) -> Iterator[StandIn]:
    with stand_in(folder, f"{home.deployment}/r1", **behaviour) as server:
        yield server


@pytest.mark.parametrize("part", SLOW)
def test_a_reply_that_comes_byte_by_byte_holds_nobody(home: Home, client: Client, tmp_path: Path, part: str) -> None:
    for server in serving(home, tmp_path, **SLOW[part], pause=0.05):
        began = time.monotonic()
        with pytest.raises(OSError, match="timed out"):
            client.request(server.url, {"body": 1}, private=True, timeout=0.5)
        assert 0.4 < time.monotonic() - began < 30


@pytest.mark.parametrize("part", LONG)
def test_a_reply_without_end_is_cut(
    home: Home, client: Client, tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_exchange, "LIMIT", 1 << 20)
    repeat = LONG[part]["repeat"] * 4096
    for server in serving(home, tmp_path, **{**LONG[part], "repeat": repeat}):
        with pytest.raises(OSError, match=r"more than 1 MiB|not an HTTP answer|timed out"):
            client.request(server.url, timeout=3)


@pytest.mark.parametrize("length", ["4611686018427387904", "9" * 4000, "-1"])
def test_an_announced_length_costs_nothing(home: Home, client: Client, tmp_path: Path, length: str) -> None:
    for server in serving(home, tmp_path, anything=f"{OK}Content-Length: {length}\r\n\r\nshort"):
        with contextlib.suppress(OSError):
            assert client.request(server.url, timeout=3) == (200, "short")


def test_no_redirect_is_followed(home: Home, client: Client, tmp_path: Path) -> None:
    with stand_in(tmp_path, replies={}) as elsewhere:
        moved = f"HTTP/1.1 307 -\r\nLocation: {elsewhere.url}/\r\nContent-Length: 0\r\n\r\n"
        for server in serving(home, tmp_path, anything=moved):
            assert client.request(server.url, private=True) == (307, "")
        assert elsewhere.heard == []


@pytest.mark.parametrize(
    "body", [b"", b"nan", b"vllm:num_requests_running 1e999\n", b"vllm:num_requests_running ---\n", b"\xff\xfe" * 999]
)
def test_metrics_that_are_no_figures_are_left_out(home: Home, client: Client, tmp_path: Path, body: bytes) -> None:
    for server in serving(home, tmp_path, anything=reply(body.decode("latin-1"))):
        assert metrics.ask(client, server.url) is None


@pytest.mark.parametrize(
    ("status", "body", "token"),
    [
        (200, '{"choices": [{"text": "t"}], "usage": {"completion_tokens": 1}}', True),
        (200, '{"choices": [{"text": "t"}], "usage": {"completion_tokens": 0}}', False),
        (200, '{"choices": [{"text": "t"}], "usage": {"completion_tokens": NaN}}', False),
        (200, '{"choices": [{"text": "t"}], "usage": {"completion_tokens": "9"}}', False),
        (200, '{"choices": [{"text": 7}], "usage": {"completion_tokens": 1}}', False),
        (200, '{"choices": {}, "usage": []}', False),
        (200, "[]", False),
        (200, "null", False),
        (200, "", False),
        (500, "boom", False),
    ],
)
def test_only_a_completion_with_a_token_is_one(
    home: Home, client: Client, tmp_path: Path, status: int, body: str, token: bool
) -> None:
    for server in serving(home, tmp_path, anything=reply(body, f"{status} -")):
        assert openai.one_token(client, server.url, "m", 5)[0] is token


@pytest.mark.parametrize(
    ("body", "token"), [('{"data": [{"embedding": [0.5]}]}', True), ('{"data": []}', False), ("{}", False)]
)
def test_an_embedding_is_asked_for_where_there_are_no_completions(
    home: Home, client: Client, tmp_path: Path, body: str, token: bool
) -> None:
    replies = {"/v1/embeddings": reply(body)}
    for server in serving(home, tmp_path, replies=replies, anything=reply("", "404 -")):
        assert openai.one_token(client, server.url, "m", 5)[0] is token
