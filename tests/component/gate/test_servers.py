"""Which server a request goes to, what happens where none is there, and how configuration and processes change."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.component.gate.gate import ALICE, KEYS, SECONDS, Gate, ask, begin_stream, raw, wait_until
from tests.component.gate.stand_in import MODEL, StandIn
from tests.tls import certificate

BODY = {"model": MODEL}


@pytest.fixture
def first() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


@pytest.fixture
def second() -> Iterator[StandIn]:
    with StandIn(("llama",)) as server:
        yield server


def test_requests_go_to_the_server_with_the_least_and_past_one_that_is_gone(
    first: StandIn, second: StandIn, tmp_path: Path
) -> None:
    with Gate(tmp_path, {MODEL: [first.url, second.url]}) as gate:
        streams = [begin_stream(gate, BODY | {"tokens": 9, "every": 600.0}) for _ in range(6)]
        assert (first.open, second.open) == (3, 3)
        for stream in streams:
            stream.close()
        ports = Counter(ask(gate, body=BODY).json["port"] for _ in range(10))
        assert sorted(ports.values()) == [5, 5]
        first.leave()
        replies = [ask(gate, body=BODY) for _ in range(10)]
        assert {(reply.status, reply.json["port"]) for reply in replies} == {(200, second.port)}


def test_without_a_server_requests_are_refused_or_wait(first: StandIn, tmp_path: Path) -> None:
    first.leave()
    with Gate(tmp_path, {MODEL: [first.url], "none": []}) as gate:
        for model in (MODEL, "none"):
            reply = ask(gate, body={"model": model})
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert ask(gate, "/health", headers={}).json == {"models": {MODEL: "none", "none": "none"}}
        assert ask(gate, "/health", headers={}).status == 503
        assert ask(gate, "/v1/models").status == 503
        gate.write(hold=SECONDS)
        replies: list[int] = []
        waiting = threading.Thread(target=lambda: replies.append(ask(gate, body=BODY).status))
        wait_until(lambda: "was read again" in gate.log.read_text())
        waiting.start()
        wait_until(lambda: 'flagscale_gate_open_requests{model="qwen"} 1' in gate.metrics())
        first.listen()
        waiting.join(SECONDS)
        assert replies == [200]


def test_a_server_that_says_503_is_waited_for_and_believed_at_last(first: StandIn, tmp_path: Path) -> None:
    with Gate(tmp_path, {MODEL: [first.url]}, hold=0.5) as gate:
        reply = ask(gate, body=BODY | {"status": 503})
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert len(first.arrivals) > 1
        assert ask(gate, body=BODY | {"status": 422}).status == 422
        assert ask(gate, body=BODY | {"status": 999}).status == 502


def test_kept_connections_that_the_server_has_closed_lose_no_request(first: StandIn, tmp_path: Path) -> None:
    with Gate(tmp_path, {MODEL: [first.url]}) as gate:
        for _ in range(5):
            assert ask(gate, body=BODY).status == 200
            first.leave()
            first.listen()


def test_models_of_several_servers_are_one_list_and_each_goes_to_its_own(
    first: StandIn, second: StandIn, tmp_path: Path
) -> None:
    with Gate(tmp_path, {MODEL: [first.url], "llama": [second.url]}) as gate:
        listed = ask(gate, "/v1/models").json
        assert [(entry["id"], entry["root"]) for entry in listed["data"]] == [
            (MODEL, f"of {first.port}"), ("llama", f"of {second.port}"),
        ]  # fmt: skip
        assert ask(gate, body={"model": "llama"}).json["port"] == second.port
        assert ask(gate, body={"messages": []}).json["error"]["code"] == "model_missing"
        assert ask(gate, "/version").status == 200
        second.leave()
        wait_until(lambda: [entry["id"] for entry in ask(gate, "/v1/models").json["data"]] == [MODEL])
        assert ask(gate, "/health", headers={}).json["models"] == {MODEL: "ready", "llama": "none"}


def test_a_request_without_a_model_is_for_the_only_one(first: StandIn, tmp_path: Path) -> None:
    with Gate(tmp_path, {MODEL: [first.url], "alias": [first.url]}) as gate:
        assert ask(gate, body={"messages": []}).status == 200
        assert ask(gate, "/v1/responses/resp_1").json["path"] == "/v1/responses/resp_1"


def test_a_configuration_is_taken_over_and_a_bad_one_is_not(first: StandIn, second: StandIn, tmp_path: Path) -> None:
    with Gate(tmp_path, {MODEL: [first.url]}) as gate:
        assert ask(gate, "/tokenize", BODY).status == 404
        gate.write(models={MODEL: [second.url]}, paths=["/v1/*", "/tokenize"])
        wait_until(lambda: ask(gate, "/tokenize", BODY).status == 200)
        assert ask(gate, body=BODY).json["port"] == second.port
        gate.write(models={})
        wait_until(lambda: "what was read before stays" in gate.log.read_text())
        gate.keys_file.write_text("{")
        wait_until(lambda: "keys: not JSON" in gate.log.read_text())
        assert ask(gate, body=BODY).json["port"] == second.port


def test_secrets_that_others_may_read_are_refused(first: StandIn, tmp_path: Path) -> None:
    gate = Gate(tmp_path, {MODEL: [first.url]})
    gate.keys_file.chmod(0o644)
    with pytest.raises(AssertionError, match="its mode has to be 0600"), gate:
        raise RuntimeError("it listens")
    assert gate.process is not None
    assert gate.process.wait(SECONDS) == 1


def test_without_keys_everybody_passes_and_no_credential_goes_on(first: StandIn, tmp_path: Path) -> None:
    with Gate(tmp_path, {MODEL: [first.url]}, keys=None, internal_key=None) as gate:
        assert ask(gate, body=BODY, headers=ALICE).status == 200
        assert first.arrivals[-1].header("authorization") is None


def test_open_streams_end_before_the_gate_does_and_nothing_new_begins(first: StandIn, tmp_path: Path) -> None:
    with Gate(tmp_path, {MODEL: [first.url]}, drain_seconds=SECONDS) as gate:
        with begin_stream(gate, BODY | {"tokens": 20, "every": 0.1}) as stream:
            idle = socket.create_connection(("127.0.0.1", gate.port), timeout=SECONDS)
            wait_until(lambda: "connections 2" in gate.metrics())
            gate.terminate()
            assert idle.recv(1) == b""
            idle.close()
            with pytest.raises(ConnectionRefusedError):
                ask(gate, body=BODY)
            received = b""
            while piece := stream.recv(65536):
                received += piece
            assert received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert gate.process is not None
        assert gate.process.wait(SECONDS) == 0


def test_a_stream_that_takes_longer_than_the_drain_is_cut(first: StandIn, tmp_path: Path) -> None:
    with Gate(tmp_path, {MODEL: [first.url]}, drain_seconds=0.2) as gate:
        with begin_stream(gate, BODY | {"tokens": 9, "every": 600.0}) as stream:
            gate.terminate()
            while piece := stream.recv(65536):
                assert b"0\r\n\r\n" not in piece
        assert gate.process is not None
        assert gate.process.wait(SECONDS) == 0
        wait_until(lambda: first.open == 0)


def test_a_renewed_certificate_is_the_one_that_new_connections_see(first: StandIn, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, old_key = certificate(tmp_path / "old", "gate", "127.0.0.1")
    new, new_key = certificate(tmp_path / "new", "gate", "127.0.0.1")
    used, used_key = tmp_path / "used.pem", tmp_path / "used.key"
    used.write_bytes(old.read_bytes())
    used_key.write_bytes(old_key.read_bytes())
    tls = {"certfile": str(used), "keyfile": str(used_key)}
    with Gate(tmp_path, {MODEL: [first.url]}, tls=tls) as gate:
        assert ask(gate, body=BODY, trust=_trusting(old)).status == 200
        used.write_bytes(new.read_bytes())  # its key comes later: until then the old one stays
        wait_until(lambda: "the certificate before stays" in gate.log.read_text())
        assert ask(gate, body=BODY, trust=_trusting(old)).status == 200
        used_key.write_bytes(new_key.read_bytes())
        wait_until(lambda: "the certificate was loaded again" in gate.log.read_text())
        assert ask(gate, body=BODY, trust=_trusting(new)).status == 200
        with pytest.raises(ssl.SSLError):
            ask(gate, body=BODY, trust=_trusting(old))


def _trusting(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"POST /v1/completions HTTP/1.1\r\nHost",
        f"POST /v1/completions HTTP/1.1\r\nHost: g\r\nx-api-key: {KEYS['bob']}\r\nContent-Length: 9\r\n\r\n{{".encode(),
    ],
    ids=["nothing", "half a head", "half a body"],
)
def test_a_slow_client_loses_its_connection(first: StandIn, tmp_path: Path, content: bytes) -> None:
    with Gate(tmp_path, {MODEL: [first.url]}, idle_seconds=0.3) as gate:
        assert raw(gate, content) == b""
        assert first.arrivals == []


def test_a_client_that_sends_request_after_request_without_waiting_is_bounded(first: StandIn, tmp_path: Path) -> None:
    with Gate(tmp_path, {MODEL: [first.url]}) as gate:
        with begin_stream(gate, BODY | {"tokens": 9, "every": 600.0}) as stream:
            stream.settimeout(2.0)
            with suppress(ConnectionError, TimeoutError):
                for _ in range(10_000):  # 400 MB
                    stream.sendall(b"GET /version HTTP/1.1\r\nHost: g\r\n\r\n" * 1000)
            assert gate.memory() < 200
        assert ask(gate, body=BODY).status == 200


def test_a_client_that_does_not_read_loses_its_stream(first: StandIn, tmp_path: Path) -> None:
    with Gate(tmp_path, {MODEL: [first.url]}, idle_seconds=0.5) as gate:
        with begin_stream(gate, BODY | {"tokens": 10_000_000}):
            wait_until(lambda: first.most_open == 1 and first.open == 0, "the stream goes on")
        assert gate.memory() < 200


def test_connections_beyond_the_limit_are_refused_and_the_others_served(first: StandIn, tmp_path: Path) -> None:
    with Gate(tmp_path, {MODEL: [first.url]}, connections=3) as gate:
        streams = [begin_stream(gate, BODY | {"tokens": 9, "every": 600.0}) for _ in range(3)]
        assert raw(gate, b"").startswith(b"HTTP/1.1 503 ")
        assert 'status="503"} 1' in gate.metrics()
        streams.pop().close()
        wait_until(lambda: "connections 2" in gate.metrics())
        assert ask(gate, body=BODY).status == 200
        for stream in streams:
            stream.close()


def test_connections_of_strangers_without_a_request_make_room_the_oldest_first(first: StandIn, tmp_path: Path) -> None:
    with Gate(tmp_path, {MODEL: [first.url]}, connections=3) as gate:
        kept = http.client.HTTPConnection("127.0.0.1", gate.port, timeout=SECONDS)
        kept.request("GET", "/version", headers=ALICE)
        assert kept.getresponse().read()
        strangers = [socket.create_connection(("127.0.0.1", gate.port), timeout=SECONDS) for _ in range(9)]
        for stranger in strangers[:7]:
            assert closed(stranger)
        kept.request("GET", "/version", headers=ALICE)
        assert kept.getresponse().status == 200
        assert ask(gate, body=BODY).status == 200
        kept.close()
        for stranger in strangers:
            stranger.close()


def test_who_fills_the_metrics_port_takes_it_from_nobody(first: StandIn, tmp_path: Path) -> None:
    with Gate(tmp_path, {MODEL: [first.url]}) as gate:
        held = [socket.create_connection(("127.0.0.1", gate.metrics_port), timeout=SECONDS) for _ in range(40)]
        assert "flagscale_gate_connections 0" in gate.metrics()
        assert closed(held[0])
        for connection in held:
            connection.close()


def closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_log_that_is_moved_away_is_begun_anew(first: StandIn, tmp_path: Path) -> None:
    with Gate(tmp_path, {MODEL: [first.url]}) as gate:
        ask(gate, body=BODY)
        wait_until(lambda: gate.access_log.exists() and gate.logged())  # a line comes just after the client's reply
        gate.access_log.rename(tmp_path / "moved.log")
        wait_until(gate.access_log.exists)
        ask(gate, body=BODY)
        wait_until(gate.logged)
        assert len(gate.logged()) == 1
        assert gate.access_log.stat().st_mode & 0o777 == 0o600
