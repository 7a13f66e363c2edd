"""What the gate works with just now: configuration, keys and certificate, each read again when its file changes."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Generic, TypeVar

from flagscale_deploy.gate.config import Config, ConfigError, parse
from flagscale_deploy.gate.keys import Keys, parse_keys
from flagscale_deploy.gate.tls import Certificate
from flagscale_deploy.gate.watched import Watched

log = logging.getLogger("gate")
_KEY = re.compile(r"[!-~]{1,4096}", re.ASCII)
Value = TypeVar("Value")


class Reloaded(Generic[Value]):
    """The value of a file; where a new one is bad, the old one stays and the log has why."""

    def __init__(self, path: str, parse_text: Callable[[str], Value], *, private: bool = False) -> None:
        self.path, self._parse = path, parse_text
        self._file = Watched(path, private=private)
        self.value = parse_text(self._file.read())
        self.version = self._file.version
        """Which version of the file the value is of."""

    def refresh(self) -> bool:
        """Read the file if it has changed; return whether there is a new value."""
        if not self._file.changed():
            return False
        try:
            self.value = self._parse(self._file.read())
        except ConfigError as error:
            log.error("%s; what was read before stays", error)
            return False
        self.version = self._file.version
        log.info("%s was read again", self.path)
        return True


class State:
    """All that is read from files. Raises ConfigError at the start only."""

    def __init__(self, path: str) -> None:
        self._config = Reloaded(path, parse)
        self._keys: Reloaded[Keys] | None = None
        self._internal: Reloaded[str] | None = None
        self.config: Config = self._config.value
        self._version, self._fixed = self._config.version, self.config.fixed
        self._read_secrets(self.config)
        self.certificate = Certificate(self.config.tls) if self.config.tls is not None else None
        self._fault = self._refused = ()

    @property
    def versions(self) -> dict[str, str]:
        """Return which version of each file is in use, by the key of gate.json that names it."""
        secrets = {"keys": self._keys, "internal_key": self._internal}
        own = {key: secret.version for key, secret in secrets.items() if secret is not None}
        return {"configuration": self._version, **own}

    @property
    def restart_needed(self) -> bool:
        """Return whether the configuration in use has something that a restart only would change."""
        return self.config.fixed != self._fixed

    @property
    def keys(self) -> Keys | None:
        """The clients' keys; None where none is asked."""
        return self._keys.value if self._keys is not None else None

    @property
    def internal_key(self) -> str | None:
        """The key that servers ask for."""
        return self._internal.value if self._internal is not None else None

    def refresh(self) -> None:
        """Read again what has changed."""
        if self._config.refresh() or self._config.value is not self.config:
            self._use(self._config.value)
        for secret in (self._keys, self._internal):
            if secret is not None:
                secret.refresh()
        if self.certificate is not None:
            try:
                if self.certificate.refresh():
                    log.info("the certificate was loaded again")
                self._fault = ()
            except ConfigError as error:
                if self._fault != error.args:  # it is tried again each second
                    self._fault = error.args
                    log.error("%s; the certificate before stays", error)

    def _use(self, config: Config) -> None:
        try:
            self._read_secrets(config)
        except ConfigError as error:
            if self._refused != error.args:  # it is tried again each second: a file may come after what names it
                self._refused = error.args
                log.error("%s; the configuration before stays", error)
            return
        self.config, self._version, self._refused = config, self._config.version, ()
        if self.restart_needed:
            log.warning("host, ports, tls, trust and access_log change with a restart only")

    def _read_secrets(self, config: Config) -> None:
        keys = _reloaded(self._keys, config.keys, parse_keys)
        internal = _reloaded(self._internal, config.internal_key, _internal_key)
        self._keys, self._internal = keys, internal


def _reloaded(
    now: Reloaded[Value] | None, path: str | None, parse_text: Callable[[str], Value]
) -> Reloaded[Value] | None:
    if path is None or (now is not None and now.path == path):
        return now if path is not None else None
    return Reloaded(path, parse_text, private=True)


def _internal_key(text: str) -> str:
    key = text.strip()
    if not _KEY.fullmatch(key):
        raise ConfigError("internal_key: 1 to 4096 printable characters of ASCII without blanks are expected")
    return key
