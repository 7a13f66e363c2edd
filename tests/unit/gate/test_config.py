"""What gate.json may hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.gate.config import Config, ConfigError, Tls, parse
from flagscale_deploy.gate.watched import Watched

LEAST: dict[str, Any] = {
    "deployment": "qwen", "run_id": "r", "host": "0.0.0.0", "port": 8080, "models": {"a": ["http://127.0.0.1:30000/"]},
}  # fmt: skip


def test_the_least_and_the_most_are_read() -> None:
    least = parse(json.dumps(LEAST))
    assert least == Config("qwen", "r", "0.0.0.0", 8080, {"a": ("http://127.0.0.1:30000",)})
    more = {
        "metrics_port": 8081, "paths": ["/v1/*", "/tokenize"], "keys": "/k", "internal_key": None, "hold": 30,
        "trust": "/t",
        "tls": {"certfile": "/c", "keyfile": "/p"}, "body_bytes": 1, "header_bytes": 1024, "connections": 9,
        "idle_seconds": 1.5, "silence_seconds": 0, "drain_seconds": 9, "access_log": "/l",
    }  # fmt: skip
    most = parse(json.dumps(LEAST | more))
    assert (most.tls, most.hold, most.paths) == (Tls("/c", "/p"), 30.0, ("/v1/*", "/tokenize"))
    assert most.fixed != least.fixed


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"port": "80"}, "port"), ({"port": 70000}, "port"), ({"port": True}, "port"), ({"models": {}}, "models"),
        ({"models": {"a": "http://b"}}, "models.a"), ({"models": {"a": ["ftp://b"]}}, "models.a"),
        ({"models": {"a": ["http://b/v1"]}}, "models.a"), ({"models": {"a": ["http://u:p@b"]}}, "models.a"),
        ({"models": {"a": ["http://b:x"]}}, "models.a"), ({"models": {"": []}}, "models"), ({"paths": ["v1"]}, "paths"),
        ({"paths": ["/v*/x"]}, "paths"), ({"paths": "/v1"}, "paths"), ({"hold": -1}, "hold"), ({"hold": "30s"}, "hold"),
        ({"hold": float("nan")}, "hold"), ({"idle_seconds": 0}, "idle_seconds"), ({"tls": {"certfile": "a"}}, "tls"),
        ({"keys": 1}, "keys"), ({"access_log": ""}, "access_log"), ({"other": 1}, "other"), ({"host": None}, "host"),
    ],
)  # fmt: skip
def test_a_fault_names_its_key(change: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError, match=f"^{place}: "):
        parse(json.dumps(LEAST | change))


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "{}", "null"])
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a")
    file = Watched(str(path))
    assert file.changed()
    assert (file.read(), file.changed()) == ("a", False)
    path.write_text("bc")
    assert file.changed()
    path.unlink()
    assert not file.changed()
    with pytest.raises(ConfigError, match="No such file"):
        file.read()


def test_a_secret_has_to_be_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("a")
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(ConfigError, match="mode"):
            Watched(str(path), private=True).read()
    path.chmod(0o400)
    assert Watched(str(path), private=True).read() == "a"
