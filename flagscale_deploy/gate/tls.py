"""The certificate that clients see, loaded again when it is renewed."""

from __future__ import annotations

import ssl

from flagscale_deploy.gate.config import ConfigError, Tls
from flagscale_deploy.gate.watched import Watched


class Certificate:
    """A context for TLS 1.2 and later; connections that are open keep the certificate that they began with."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._files = [Watched(tls.certfile), Watched(tls.keyfile)]
        self.context = _context()
        self._load(self.context)

    def refresh(self) -> bool:
        """Load the files again if they have changed; return whether they had. Raises ConfigError where they are bad."""
        if not any(file.changed() for file in self._files):
            return False
        try:
            self._load(_context())  # a pair that does not fit would spoil the context in use
            self._load(self.context)
        except ConfigError:
            self._files[0].again()
            raise
        return True

    def _load(self, context: ssl.SSLContext) -> None:
        for file in self._files:
            file.read()
        try:
            context.load_cert_chain(self._tls.certfile, self._tls.keyfile, password=_no_password)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self._tls.certfile}, {self._tls.keyfile}: {error}") from error


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_password() -> str:
    """Refuse keys with a password, which OpenSSL would ask for at a terminal."""
    raise ValueError("the key has a password")
