"""Keys, headers, the model of a body, errors, metrics and the log's lines."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

import pytest
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from flagscale_deploy.gate.access import AccessLog, Record
from flagscale_deploy.gate.body import AT_ONCE, MOST_PARTS, MOST_VALUES, Bodies, model_of
from flagscale_deploy.gate.config import ConfigError, Tls
from flagscale_deploy.gate.connections import Door
from flagscale_deploy.gate.errors import Refusal, unknown_model
from flagscale_deploy.gate.headers import request_id, to_client, to_server
from flagscale_deploy.gate.keys import parse_keys, presented
from flagscale_deploy.gate.metrics import MOST_SERIES, Metrics
from flagscale_deploy.gate.sources import files
from flagscale_deploy.gate.tls import Certificate
from flagscale_deploy.gate.upstreams import Upstreams
from tests.tls import certificate


def proxy(headers: list[tuple[str, str]]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(headers))


def test_keys_have_names_and_nobody_has_an_empty_one() -> None:
    keys = parse_keys('{"alice": "sk-1", "bob": "sk-ü"}')
    assert [keys.name(key) for key in ("sk-1", "sk-ü", "sk-2", "", None, "sk-1\udcff")] == [
        "alice", "bob", None, None, None, None,
    ]  # fmt: skip
    assert parse_keys("{}").name("x") is None


@pytest.mark.parametrize("text", ["{", "[]", '{"a": ""}', '{"a": 1}', '{"": "x"}', '{"a": "' + "x" * 5000 + '"}'])
def test_bad_keys_are_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_keys(text)
    assert "xxx" not in str(caught.value)


@pytest.mark.parametrize(
    ("authorization", "api_key", "key"),
    [
        (["Bearer a"], [], "a"), (["bearer  a "], [], "a"), ([], ["a"], "a"), (["Basic a"], [], None), (["a"], [],
        None),
        ([], [], None), (["Bearer a"], ["a"], None), (["Bearer a", "Bearer b"], [], None), ([], ["a", "b"], None),
    ],
)  # fmt: skip
def test_a_request_has_one_key(authorization: list[str], api_key: list[str], key: str | None) -> None:
    assert presented(authorization, api_key) == key


def test_a_server_sees_no_credential_and_no_hop_by_hop_header() -> None:
    given = [
        ("Host", "a"), ("AUTHORIZATION", "Bearer client"), ("x-API-key", "client"), ("Cookie", "client"), ("TE", "x"),
        ("Connection", "X-One, keep-alive"), ("connection", "x-two"), ("X-One", "1"), ("X-Two", "2"), ("Upgrade",
        "h2c"),
        ("Proxy-Authorization", "client"), ("X-Kept", "a"), ("X-Kept", "b"), ("Content-Length", "3"), ("Accept", "c"),
        ("X-Original-URL", "/x"), ("X-Forwarded-For", "d"), ("X-Request-Id", "client"),
    ]  # fmt: skip
    assert list(to_server(proxy(given), "inner", "id").items()) == [
        ("X-Kept", "a"), ("X-Kept", "b"), ("Accept", "c"), ("X-Request-Id", "id"), ("Authorization", "Bearer inner"),
    ]  # fmt: skip
    assert "Authorization" not in to_server(proxy(given), None, "id")


def test_a_client_sees_neither_cookies_nor_addresses_of_a_server() -> None:
    given = [("Set-Cookie", "a"), ("Location", "http://127.0.0.1:3/x"), ("Server", "uvicorn"), ("X-Kept", "a"),
             ("Connection", "x-one"), ("X-One", "1"), ("Transfer-Encoding", "chunked"), ("Content-Length",
             "2")]  # fmt: skip
    assert list(to_client(proxy(given), "id")) == ["X-Kept", "Content-Length", "X-Request-Id"]


def test_a_plain_request_id_is_kept() -> None:
    assert request_id(["a.b_c:1-"]) == "a.b_c:1-"
    for given in ([], ["a", "b"], ["a b"], [""], ["a" * 200], ["a\n"], ["ü"]):
        assert len(request_id(given)) == 32


FORM = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'


@pytest.mark.parametrize(
    ("body", "content_type", "model"),
    [
        (b"", "", None),
        (b'{"model": "a"}', "application/json", "a"),
        (b'{"model": null}', "text/plain", None),
        (b"{}", "", None),
        (FORM % (b"model", b"a") + b"--b--", "multipart/form-data; boundary=b", "a"),
        (FORM % (b"file", b"model") + FORM % (b"model", b"a"), 'Multipart/Form-Data; x=y; boundary="b"', "a"),
        (FORM % (b"filename", b"a") + b"--b--", "multipart/form-data; boundary=b", None),
    ],
)
def test_a_body_names_its_model(body: bytes, content_type: str, model: str | None) -> None:
    assert model_of(body, content_type) == model


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", ""), (b"[]", ""), (b"\xff", ""), (b'{"model": 1}', ""), (b"[" * 100_000, ""), (b"9" * 5000, ""),
        (b"x", "multipart/form-data"), (FORM % (b"model", b"a") + FORM % (b"model", b"b"),
        "multipart/form-data;boundary=b"),
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_read_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(Refusal) as caught:
        model_of(body, content_type)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"a": [' + b"[]," * (MOST_VALUES // 2) + b"1]}", "application/json"),
        (b'{"a": [' + b"1," * MOST_VALUES + b"1]}", "application/json"),
        (b"--b" * (MOST_PARTS + 1), "multipart/form-data; boundary=b"),
    ],
)
def test_a_body_of_which_every_few_bytes_are_a_value_keeps_no_other_client_waiting(
    body: bytes, content_type: str
) -> None:
    with pytest.raises(Refusal) as caught:
        model_of(body, content_type)
    assert caught.value.status == 413


def test_bodies_are_bounded_together() -> None:
    bodies = Bodies()
    for _ in range(AT_ONCE):
        bodies.take(10, 10)
    with pytest.raises(Refusal) as caught:
        bodies.take(1, 10)
    assert caught.value.status == 503
    bodies.give_back(10)
    bodies.take(1, 10)


def test_a_refusal_quotes_little() -> None:
    response = unknown_model("x" * 5000, ["a", "b"]).response()
    assert isinstance(response, web.Response)
    assert isinstance(response.body, bytes)
    message = json.loads(response.body)["error"]["message"]
    assert len(message) < 200
    assert message.endswith("serves: a, b")


def test_the_next_server_is_the_one_with_the_least() -> None:
    upstreams = Upstreams()
    a, b, c = upstreams.get(["a", "b", "c", "a"])
    a.open, b.open, c.open = 2, 1, 3
    assert upstreams.get(["a", "b", "c"]) == [b, a, c]
    b.failed = float("inf")
    assert upstreams.get(["a", "b", "c"]) == [a, c, b]
    a.open = 0
    upstreams.keep(["b"])
    assert upstreams.get(["c"]) == [c]  # it has requests
    assert upstreams.get(["a"]) != [a]


def test_metrics_escape_names_and_have_no_more_series_than_a_bound() -> None:
    metrics = Metrics()
    metrics.began("m")
    metrics.ended("m", 10, 0.02, 0.01)
    metrics.count('a"\n\\', "m", 200)
    text = metrics.text()
    assert 'flagscale_gate_requests_total{key="a\\"\\n\\\\",model="m",status="200"} 1' in text
    assert 'flagscale_gate_request_seconds_bucket{model="m",le="0.01"} 0' in text
    assert 'flagscale_gate_request_seconds_bucket{model="m",le="0.025"} 1' in text
    assert 'flagscale_gate_request_seconds_bucket{model="m",le="+Inf"} 1' in text
    for number in range(MOST_SERIES + 10):
        metrics.count(f"key{number}", "m", 200)
    assert 'key="other",model="m",status="200"} 11' in metrics.text()


def test_a_log_that_cannot_be_written_loses_lines_only(tmp_path: Path) -> None:
    log = AccessLog(str(tmp_path / "missing" / "log"))
    log.write(Record("id", "127.0.0.1", "GET"))
    assert log.lost == 1
    (tmp_path / "missing").mkdir()
    log.follow()
    log.write(Record("id", "127.0.0.1", "GET", status=200))
    log.close()
    assert json.loads((tmp_path / "missing" / "log").read_text())["status"] == 200


def test_a_log_that_is_large_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flagscale_deploy.gate.access.LARGEST", 300)
    log = AccessLog(str(tmp_path / "log"))
    for _ in range(5):
        log.write(Record("id", "127.0.0.1", "GET"))
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]


def test_a_certificate_is_for_tls_12_and_later_and_has_no_password(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path, "gate")
    context = Certificate(Tls(str(pem), str(key))).context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    with pytest.raises(ConfigError):
        Certificate(Tls(str(key), str(pem)))


def test_the_files_of_a_host_are_all_modules() -> None:
    modules = {path.name for path in Path(__file__).parents[3].joinpath("flagscale_deploy/gate").glob("*.py")}
    names = files().keys() - {"__main__.py", "flagscale_deploy/__init__.py"}
    assert names == {f"flagscale_deploy/gate/{name}" for name in modules}


def test_the_log_of_a_failure_does_not_quote_what_a_client_sent(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        async def reply(_request: web.BaseRequest) -> web.StreamResponse:
            raise AssertionError

        try:
            raise ValueError("a prompt")
        except ValueError as error:
            Door(reply)().log_exception("Error handling request", exc_info=error)

    asyncio.run(fail())
    assert "Error handling request: ValueError in test_requests.py:" in caplog.text
    assert "a prompt" not in caplog.text
