"""What the gate is told: gate.json, read into a `Config`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit


class ConfigError(Exception):
    """gate.json, or a file that it names, cannot be used."""


@dataclass(frozen=True)
class Tls:
    """Files of the certificate that clients see."""

    certfile: str
    keyfile: str


@dataclass(frozen=True)
class Config:
    """What gate.json says. Sizes are in bytes, times in seconds."""

    deployment: str
    run_id: str
    host: str
    port: int
    models: Mapping[str, tuple[str, ...]]
    """The servers of each served name, as `http://127.0.0.1:30000`: a router, or engines."""
    paths: tuple[str, ...] = ("/v1/*", "/health", "/version")
    metrics_port: int | None = None
    keys: str | None = None
    internal_key: str | None = None
    tls: Tls | None = None
    trust: str | None = None
    hold: float = 0.0
    body_bytes: int = 32 << 20
    header_bytes: int = 64 << 10
    connections: int = 4096
    idle_seconds: float = 300.0
    silence_seconds: float = 0.0
    """How long a server may send nothing; 0: for ever, since a long prompt takes long."""
    drain_seconds: float = 30.0
    access_log: str | None = None
    fixed: tuple[object, ...] = field(init=False, compare=False)
    """What changes with a restart only."""

    def __post_init__(self) -> None:
        fixed = (self.host, self.port, self.metrics_port, self.tls, self.trust, self.access_log)
        object.__setattr__(self, "fixed", fixed)


_TEXTS = ("deployment", "run_id", "host")
_PATHS = ("keys", "internal_key", "trust", "access_log")
_SIZES = {"port": (0, 65535), "metrics_port": (0, 65535), "body_bytes": (1, 1 << 40), "header_bytes": (1024, 1 << 20),
          "connections": (1, 1 << 20)}  # fmt: skip
_SECONDS = {"hold": 0.0, "idle_seconds": 0.1, "silence_seconds": 0.0, "drain_seconds": 0.0}
_KEYS = frozenset(item.name for item in fields(Config) if item.init)
_REQUIRED = frozenset(("deployment", "run_id", "host", "port", "models"))
MOST_SECONDS = 7 * 86400.0


def parse(text: str) -> Config:
    """Return what gate.json says; raise ConfigError with the key at fault."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError("an object is expected")
    if unknown := sorted(document.keys() - _KEYS):
        raise ConfigError(f"{unknown[0]}: unknown key")
    if missing := sorted(_REQUIRED - document.keys()):
        raise ConfigError(f"{missing[0]}: is missing")
    return Config(**{key: _value(key, value) for key, value in document.items()})


def _value(key: str, value: object) -> Any:
    if value is None and key in ("metrics_port", "tls", *_PATHS):
        return None
    if key in _TEXTS or key in _PATHS:
        return _text(key, value)
    if key in _SIZES:
        return _whole(key, value)
    if key in _SECONDS:
        return _seconds(key, value)
    if key == "tls":
        return _tls(value)
    return _models(value) if key == "models" else _patterns(value)


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ConfigError(f"{key}: a text is expected")
    return value


def _whole(key: str, value: object) -> int:
    least, most = _SIZES[key]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(f"{key}: a whole number from {least} to {most} is expected")
    return value


def _seconds(key: str, value: object) -> float:
    least = _SECONDS[key]
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= MOST_SECONDS:
        raise ConfigError(f"{key}: a number of seconds from {least:g} to {MOST_SECONDS:g} is expected")
    return float(value)


def _tls(value: object) -> Tls:
    if not isinstance(value, dict) or value.keys() != {"certfile", "keyfile"}:
        raise ConfigError("tls: an object with certfile and keyfile is expected")
    return Tls(_text("tls.certfile", value["certfile"]), _text("tls.keyfile", value["keyfile"]))


def _models(value: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict) or not value:
        raise ConfigError("models: an object with a list of URLs for each name is expected")
    return {_text("models", name): _urls(f"models.{name}", urls) for name, urls in value.items()}


def _urls(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{key}: a list of URLs is expected")
    return tuple(_url(key, url) for url in value)


def _url(key: str, value: object) -> str:
    text = _text(key, value).rstrip("/")
    try:
        parts = urlsplit(text)
        plain = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error
    if not plain or parts.path or parts.query or parts.fragment or parts.username is not None:
        raise ConfigError(f"{key}: a URL as http://127.0.0.1:30000 is expected")
    return text


def _patterns(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(pattern, str) for pattern in value):
        raise ConfigError("paths: a list of paths as /v1/* is expected")
    for pattern in value:
        if not pattern.startswith("/") or "*" in pattern.removesuffix("/*"):
            raise ConfigError(f"paths: {pattern!r} is no path as /version or /v1/*")
    return tuple(value)
