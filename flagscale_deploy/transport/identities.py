"""The keys that a login offers: those of identity files, and those of the SSH agent, in the order that ssh has."""

from __future__ import annotations

import base64
import functools
import io
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from paramiko.agent import AgentKey, AgentSSH

from flagscale_deploy.errors import InputError
from flagscale_deploy.support.input_files import read_bytes
from flagscale_deploy.transport.ssh_settings import DEFAULT_KEYS, Settings

AGENT_SECONDS = 60.0
"""How long an agent may take to answer: it may ask its user."""
LARGEST = 1 << 20
PUBLIC = (b"ssh-", b"ecdsa-", b"sk-")
_MAGIC = b"openssh-key-v1\0"


@dataclass(frozen=True)
class Identity:
    """A key that can sign, and what it is called in a message."""

    name: str
    key: paramiko.PKey
    of_agent: bool = False


@dataclass
class Identities:
    """The keys to offer, in order; what was passed over, with why; and the agent, which `close` leaves."""

    offers: list[Identity] = field(default_factory=list)
    passed_over: list[tuple[str, str]] = field(default_factory=list)
    locked: list[str] = field(default_factory=list)
    """Files with a passphrase, whose keys the agent does not hold."""
    agent: str = ""
    """What became of the agent, where it gave no keys."""
    _agent: _Agent | None = None

    def close(self) -> None:
        """Leave the agent."""
        if self._agent is not None:
            self._agent.close()


class _Agent(AgentSSH):
    """A connection to the agent behind a socket."""

    def __init__(self, path: str) -> None:
        super().__init__()
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(AGENT_SECONDS)
            connection.connect(path)
            self._connect(connection)  # type: ignore[attr-defined]
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        self._close()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _File:
    """An identity file: its private key where it could be read, else why not; its public key where that is there."""

    path: str
    private: paramiko.PKey | None = None
    public: bytes | None = None
    problem: str = ""
    locked: bool = False


def identities(settings: Settings) -> Identities:
    """Return the keys for a login; that of the settings' `preferred_key` comes first, whoever holds it.

    As in ssh: certificates, keys of files that the agent holds, the agent's other keys unless IdentitiesOnly, and the
    keys of the other files.
    """
    result = Identities()
    keys = _agent_keys(settings.identity_agent, result)
    by_blob = {key.blob: key for key in keys}
    files = [_load(path) for path in dict.fromkeys(settings.identity_files)]
    of_files = [(file, identity) for file in files if (identity := _identity(file, by_blob)) is not None]
    first = [identity for file, identity in of_files if file.path == settings.preferred_key]
    held = [identity for _, identity in of_files if identity.of_agent]
    named = {file.public for file in files}
    others = [_of_agent(key) for key in keys if key.blob not in named] if not settings.identities_only else []
    rest = [identity for _, identity in of_files if not identity.of_agent]
    plain = list(dict.fromkeys([*first, *held, *others, *rest]))
    result.offers = [*_certified(settings, [identity for _, identity in of_files], keys), *plain]
    usable = {file.path for file, _ in of_files}
    defaults = {os.path.expanduser(path) for path in DEFAULT_KEYS}
    for file in files:
        if file.path not in usable and not (file.path in defaults and not os.path.lexists(file.path)):
            result.passed_over.append((file.path, file.problem))
            result.locked += [file.path] if file.locked else []
    return result


def _agent_keys(path: str | None, result: Identities) -> list[AgentKey]:
    if path is None:
        result.agent = "no SSH agent is set up"
        return []
    try:
        result._agent = _Agent(path)
    except (OSError, paramiko.SSHException) as error:
        result.agent = f"the SSH agent {path} gives no keys ({getattr(error, 'strerror', None) or error})"
        return []
    keys = list(result._agent.get_keys())
    result.agent = "" if keys else f"the SSH agent {path} is empty"
    return keys


def _identity(file: _File, by_blob: dict[bytes, AgentKey]) -> Identity | None:
    if file.public is not None and file.public in by_blob:
        return Identity(file.path, by_blob[file.public], of_agent=True)
    return Identity(file.path, file.private) if file.private is not None else None


def _of_agent(key: AgentKey) -> Identity:
    return Identity(key.comment or key.fingerprint, key, of_agent=True)


def _certified(settings: Settings, of_files: list[Identity], keys: list[AgentKey]) -> Iterator[Identity]:
    """Yield a key with its certificate for each certificate whose key is at hand."""
    paths = [*settings.certificate_files, *(f"{path}-cert.pub" for path in settings.identity_files)]
    for path in dict.fromkeys(path for path in paths if os.path.isfile(path)):
        for identity in (*of_files, *map(_of_agent, keys)):
            if (key := _with_certificate(identity.key, path)) is not None:
                yield Identity(path, key, identity.of_agent)
                break


def _with_certificate(key: paramiko.PKey, path: str) -> paramiko.PKey | None:
    """Return a copy of the key that presents the certificate of a file; None where that is another key's."""
    with suppress(InputError, ValueError, UnsupportedAlgorithm, paramiko.SSHException):
        data = read_bytes(path, LARGEST, pipes=False)
        certificate = serialization.load_ssh_public_identity(data)
        if not isinstance(certificate, serialization.SSHCertificate):
            return None
        public = certificate.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        if public.split()[1].decode() != key.get_base64():
            return None
        twin = AgentKey(key.agent, key.blob, key.comment) if isinstance(key, AgentKey) else _copy(key)
        twin.load_certificate(paramiko.Message(base64.b64decode(data.split()[1])))
        return twin
    return None


def _load(path: str) -> _File:
    return _read(path, _changed(path), _changed(f"{path}.pub"))


@functools.lru_cache(maxsize=256)
def _read(path: str, *_changed: int | None) -> _File:
    """Read an identity file anew where it has changed: Paramiko would read it three times for each host."""
    try:
        mode = os.stat(path)
        data = read_bytes(path, LARGEST, pipes=False)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte or half a character in its name
        problem = getattr(error, "strerror", None) or "it cannot be read"
        return _File(path, public=_public(f"{path}.pub"), problem=problem)
    except InputError as error:
        return _File(path, public=_public(f"{path}.pub"), problem=f"it {error.faults[0].problem}")
    if data.startswith(PUBLIC):
        return _File(
            path, public=_public(path), problem="it is a public key, and the agent does not hold its private key"
        )
    if mode.st_uid == os.getuid() and stat.S_IMODE(mode.st_mode) & 0o077:
        problem = f"its mode {stat.S_IMODE(mode.st_mode):04o} lets others read it: chmod 600"
        return _File(path, public=_public(f"{path}.pub"), problem=problem)
    try:
        private = _private(data)
    except TypeError:
        public = _public(f"{path}.pub") or _public_of_private(data)
        return _File(path, public=public, problem="it has a passphrase, and the agent does not hold it", locked=True)
    except (ValueError, UnsupportedAlgorithm, paramiko.SSHException) as error:
        return _File(path, public=_public(f"{path}.pub"), problem=f"it cannot be read as a private key ({error})")
    return _File(path, private, private.asbytes())


def _private(data: bytes) -> paramiko.PKey:
    """Return a private key of any format that OpenSSH reads. Raises TypeError where it has a passphrase."""
    try:
        loaded = serialization.load_ssh_private_key(data, None)
    except ValueError:
        loaded = serialization.load_pem_private_key(data, None)  # type: ignore[assignment]
    kinds: dict[type, type[paramiko.PKey]] = {
        rsa.RSAPrivateKey: paramiko.RSAKey,
        ec.EllipticCurvePrivateKey: paramiko.ECDSAKey,
        ed25519.Ed25519PrivateKey: paramiko.Ed25519Key,
    }
    kind = next((ours for theirs, ours in kinds.items() if isinstance(loaded, theirs)), None)
    if kind is None:
        raise ValueError("a kind of key that is not supported")
    text = loaded.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return kind.from_private_key(io.StringIO(text.decode()))


def _copy(key: paramiko.PKey) -> paramiko.PKey:
    twin = type(key).__new__(type(key))
    twin.__dict__.update(key.__dict__)
    return twin


def _public(path: str) -> bytes | None:
    """Return the key of a public key file."""
    with suppress(InputError, ValueError, IndexError):
        return base64.b64decode(read_bytes(path, LARGEST, pipes=False).split()[1])
    return None


def _public_of_private(data: bytes) -> bytes | None:
    """Return the public key of a private key in OpenSSH's format, which stands before the encrypted part."""
    with suppress(ValueError, paramiko.SSHException):
        raw = base64.b64decode(b"".join(line for line in data.splitlines() if not line.startswith(b"-")))
        if raw.startswith(_MAGIC):
            message = paramiko.Message(raw[len(_MAGIC) :])
            for _ in ("cipher", "key derivation", "its options"):
                message.get_binary()
            message.get_int()
            return message.get_binary()
    return None


def _changed(path: str) -> int | None:
    with suppress(OSError, ValueError):
        return os.stat(path).st_ctime_ns
    return None
