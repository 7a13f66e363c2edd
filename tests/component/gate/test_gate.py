"""What passes the gate, what does not, and what it says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.component.gate.gate import ALICE, INTERNAL, KEYS, Gate, ask, raw, wait_until
from tests.component.gate.stand_in import MODEL, StandIn

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "a secret prompt"}]}


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with StandIn(key=INTERNAL) as server:
        yield server


@pytest.fixture(scope="module")
def gate(server: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with Gate(
        tmp_path_factory.mktemp("gate"), {MODEL: [server.url], "alias": [server.url]}, body_bytes=1 << 20
    ) as gate:
        yield gate


def test_a_request_passes_with_the_internal_key_in_the_clients_place(gate: Gate, server: StandIn) -> None:
    headers = ALICE | {
        "Cookie": "session=1", "X-Request-Id": "my-id", "Connection": "x-mine", "X-Mine": "1", "X-Kept": "2",
        "X-Forwarded-For": "10.0.0.1", "Content-Type": "application/json",
    }  # fmt: skip
    reply = ask(gate, "/v1/chat/completions?a=%20b", BODY, headers=headers)
    assert (reply.status, reply.json["path"]) == (200, "/v1/chat/completions?a=%20b")
    arrival = server.arrivals[-1]
    assert json.loads(arrival.body) == BODY
    assert arrival.header("authorization") == f"Bearer {INTERNAL}"
    names = {name.lower() for name, _ in arrival.headers}
    assert names == {
        "host",
        "authorization",
        "content-length",
        "content-type",
        "x-kept",
        "x-request-id",
        "accept-encoding",
    }
    assert arrival.header("x-request-id") == "my-id" == reply.headers["x-request-id"]
    assert KEYS["alice"] not in str(arrival)


def test_a_key_may_also_come_as_x_api_key(gate: Gate, server: StandIn) -> None:
    reply = ask(gate, body=BODY, headers={"x-api-key": KEYS["bob"]})
    assert (reply.status, gate.line(reply.identity)["key"]) == (200, "bob")
    assert server.arrivals[-1].header("x-api-key") is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer sk-nobody"},
        {"Authorization": "Bearer "},
        {"Authorization": KEYS["alice"]},
        {"Authorization": f"Basic {KEYS['alice']}"},
        {"Authorization": f"Bearer {INTERNAL}"},
        {"x-api-key": ""},
        ALICE | {"x-api-key": KEYS["bob"]},
    ],
)
def test_without_a_valid_key_nothing_passes(gate: Gate, server: StandIn, headers: dict[str, str]) -> None:
    before = len(server.arrivals)
    for path in ("/v1/chat/completions", "/v1/models", "/version"):
        reply = ask(gate, path, BODY if "chat" in path else None, headers=headers)
        assert (reply.status, reply.json["error"]["code"]) == (401, "invalid_api_key")
    assert len(server.arrivals) == before


def test_errors_are_worded_as_openais(gate: Gate) -> None:
    reply = ask(gate, body=BODY | {"model": "gpt-4"})
    assert reply.status == 404
    assert reply.json["error"] == {
        "message": "The model `gpt-4` does not exist. This deployment serves: qwen, alias",
        "type": "not_found_error", "param": None, "code": "model_not_found",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "method", "headers", "status"),
    [
        ("/v1/chat/completions", b"{", "POST", {}, 400),
        ("/v1/chat/completions", b"[" * 100_000, "POST", {}, 400),
        ("/v1/chat/completions", b'{"model": 1}', "POST", {}, 400),
        ("/v1/chat/completions", b"[]", "POST", {}, 400),
        ("/v1/chat/completions", b" " * (1 << 20) + b" ", "POST", {}, 413),
        ("/v1/chat/completions", b"{}", "POST", {"Content-Encoding": "gzip"}, 415),
        ("/v1/chat/completions", b"{}", "POST", {"Expect": "something"}, 417),
        ("/v1/chat/completions", None, "GET", {"Many": "x" * 15_000, "More": "x" * 15_000, "Most": "x" * 15_000,
                                                "Still": "x" * 15_000, "Again": "x" * 15_000}, 431),
        ("/v1/chat/completions", None, "GET", {"Large": "x" * 70_000}, 431),
        ("/v1/chat/completions", b"{}", "PATCH", {}, 405),
        ("/v1/models", b"{}", "POST", {}, 405),
        ("/v1/realtime", None, "GET", {"Connection": "Upgrade", "Upgrade": "websocket"}, 501),
        ("/tokenize", b"{}", "POST", {}, 404),
        ("/docs", None, "GET", {}, 404),
    ],
)  # fmt: skip
def test_what_does_not_pass_is_answered(
    gate: Gate, server: StandIn, path: str, body: bytes | None, method: str, headers: dict[str, str], status: int
) -> None:
    before = len(server.arrivals)
    reply = ask(gate, path, body, method=method, headers=ALICE | headers)
    assert reply.status == status
    assert reply.json["error"]["message"]
    assert len(server.arrivals) == before


def test_a_body_in_chunks_has_the_same_limit_and_passes_below_it(gate: Gate, server: StandIn) -> None:
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {KEYS['alice']}\r\nConnection: close\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    ).encode()
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    assert raw(gate, head + b"2\r\n{}\r\n" + chunk * 3 + b"0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert server.arrivals[-1].header("content-length") == str(2 + 3 * 0x10000)
    assert raw(gate, head + chunk * 17).startswith(b"HTTP/1.1 413 ")
    assert raw(gate, head + b"zz\r\n").startswith(b"HTTP/1.0 400 ")


def test_a_client_that_waits_for_100_continue_gets_it_after_its_key_was_looked_at(gate: Gate) -> None:
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n"
    )
    reply = raw(gate, f"{head}Authorization: Bearer {KEYS['alice']}\r\n\r\n{{}}".encode())
    assert reply.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")
    assert raw(gate, f"{head}\r\n".encode()).startswith(b"HTTP/1.1 401 ")


def test_a_form_names_its_model_in_a_field(gate: Gate, server: StandIn) -> None:
    def form(model: str) -> bytes:
        field = f'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model}\r\n'
        file = '--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n\x00\x01\r\n--b--\r\n'
        return (field + file).encode()

    headers = ALICE | {"Content-Type": "multipart/form-data; boundary=b"}
    assert ask(gate, "/v1/audio/transcriptions", form("qwen"), headers=headers).status == 200
    assert server.arrivals[-1].body == form("qwen")
    assert ask(gate, "/v1/audio/transcriptions", form("other"), headers=headers).status == 404


def test_the_log_has_a_line_for_each_request_without_its_prompt(gate: Gate, server: StandIn) -> None:
    line = gate.line(ask(gate, "/v1/chat/completions?user=somebody", BODY | {"stream": True}).identity)
    assert {name: line[name] for name in ("key", "method", "path", "model", "status", "client")} == {
        "key": "alice", "method": "POST", "path": "/v1/chat/completions", "model": MODEL, "status": 200,
        "client": "127.0.0.1",
    }  # fmt: skip
    assert line["bytes"] > 0
    assert 0 < line["first_byte"] <= line["seconds"]
    assert gate.line(ask(gate, "/v1/responses/a-made-up-id").identity)["path"] == "/v1/*"
    assert gate.line(ask(gate, "/v1/models/..%2f..%2fmade-up").identity)["path"] == "/v1/*"
    assert gate.line(ask(gate, body=BODY | {"model": "made-up"}).identity)["model"] is None
    for text in ("secret prompt", "somebody", "made-up", *KEYS.values(), INTERNAL):
        assert text not in gate.access_log.read_text() + gate.log.read_text() + gate.metrics()


def test_metrics_count_by_key_and_model_on_loopback(gate: Gate) -> None:
    ask(gate, body=BODY)
    for name in ("made-up-1", "made-up-2"):
        ask(gate, body=BODY | {"model": name})
    wait_until(lambda: 'flagscale_gate_open_requests{model="qwen"} 0' in gate.metrics())
    text = gate.metrics()
    assert 'flagscale_gate_requests_total{key="alice",model="qwen",status="200"}' in text
    assert 'flagscale_gate_first_byte_seconds_count{model="qwen"}' in text
    assert "made-up" not in text
    assert ask(gate, "/metrics").status == 404


def test_models_are_listed_and_asked_for_by_name(gate: Gate) -> None:
    assert [entry["id"] for entry in ask(gate, "/v1/models").json["data"]] == [MODEL]
    assert ask(gate, f"/v1/models/{MODEL}").json["id"] == MODEL
    assert ask(gate, "/v1/models/%71wen").json["id"] == MODEL
    assert ask(gate, "/v1/models/org%2Fmodel").status == 404


def test_health_needs_no_key(gate: Gate) -> None:
    reply = ask(gate, "/health", headers={})
    assert (reply.status, reply.json) == (200, {"models": {MODEL: "ready", "alias": "ready"}})


def test_version_passes(gate: Gate, server: StandIn) -> None:
    assert ask(gate, "/version").json["path"] == "/version"
