"""The transport of an SSH connection: its algorithms, what a server says of a refusal, how soon its end is noticed."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import paramiko
from cryptography.exceptions import InvalidTag
from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA
from paramiko.kex_curve25519 import KexCurve25519
from paramiko.packet import Packetizer

from flagscale_deploy.support.platform import limit_silence
from flagscale_deploy.transport.key_exchange import Budget, refuse_long, with_short_exponents
from flagscale_deploy.transport.replies import brief

KEEPALIVE_SECONDS = 5
SILENCE_MILLISECONDS = 30_000
"""A connection whose packets nobody acknowledges for so long is lost (TCP_USER_TIMEOUT; the default is 15 minutes)."""
IDLE_SECONDS = 2.5
"""How often an idle connection's thread wakes up to look after it: Paramiko's 0.1 s cost 1000 hosts a whole core."""

CURVE25519 = "curve25519-sha256"
"""RFC 8731's name of what Paramiko knows as `curve25519-sha256@libssh.org`; some servers offer that name alone."""

_SIGNALS = ("kex-strict-", "ext-info-")
"""What stands among the algorithms and is none."""

_LISTS = ("kex_algo_list", "server_key_algo_list", "server_encrypt_algo_list", "server_mac_algo_list")


LARGEST_PACKET = 1 << 20
"""No SSH server sends packets of a megabyte; the length of one is believed before it is known who sent it."""
SLACK_BYTES = 1 << 20
"""By how much a server may exceed a channel's window."""
WRITE_SECONDS = 60.0
"""How long a packet may take to be written: through a jump host or a ProxyCommand, no kernel notices that none is."""
MOST_EXTENSIONS = 64
"""How many extensions a server may announce (RFC 8308): Paramiko goes through as many as are announced."""
REKEY_SECONDS = 10.0
"""How long a key exchange may keep us from sending."""


LIMITS = (
    paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    paramiko.common.OPEN_FAILED_RESOURCE_SHORTAGE,
)
"""How servers refuse a channel where they allow no more of them; the first also where they forbid every one."""


class Refusal(paramiko.ChannelException):
    """A channel that the server refused, with what it said, while `others` were open on the connection."""

    def __init__(self, code: int, text: str, others: int) -> None:
        super().__init__(code, text)
        self.others = others


class _Packetizer(Packetizer):
    received = 0
    """The bytes of all messages."""

    def read_message(self) -> tuple[int, paramiko.Message]:
        kind, message = super().read_message()
        size = len(message.packet.getbuffer())
        self.received += size
        refuse_long(kind, size)
        return kind, message

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if n > LARGEST_PACKET:
            raise paramiko.SSHException(f"the server announces a packet of {n} bytes")
        data: bytes = super().read_all(n, check_rekey)
        return data

    def write_all(self, out: Any) -> None:
        """Write a packet within WRITE_SECONDS; else close the connection, which cannot go on after part of a packet.

        Raises EOFError. Paramiko's own goes on for as long as the other side takes a byte now and then, or none.
        """
        deadline = time.monotonic() + WRITE_SECONDS
        while out:
            if self.closed or time.monotonic() > deadline:
                self.close()
                raise EOFError
            with suppress(TimeoutError, BlockingIOError):
                out = out[self._write(out) :]

    def _write(self, out: bytes) -> int:
        """Return how many bytes were written. Raises TimeoutError, BlockingIOError, and EOFError at the end."""
        try:
            count: int = self._Packetizer__socket.send(out)  # type: ignore[attr-defined]  # Paramiko's own
        except (TimeoutError, BlockingIOError):
            raise
        except (OSError, paramiko.SSHException) as error:  # a channel of a jump host that does not end a key exchange
            raise EOFError from error
        if not count:  # a channel of a jump host that is closed
            raise EOFError
        return count


def _within_window(take: Callable[[paramiko.Channel, paramiko.Message], None]) -> Callable[..., None]:
    """Return what takes data of a channel, unless more waits to be read than was asked for."""

    def taken(channel: paramiko.Channel, message: paramiko.Message) -> None:
        if len(channel.in_buffer) + len(channel.in_stderr_buffer) > channel.in_window_size + SLACK_BYTES:
            raise paramiko.SSHException("the server sends more than was asked for")
        take(channel, message)

    return taken


class Transport(paramiko.Transport):
    """A transport that prefers AES-GCM, which Paramiko offers last, and has no log.

    With other ciphers Paramiko compares each packet's MAC in Python, byte by byte: 0.5 ms of the CPU that a login takes
    and a tenth of a megabyte's. To log what an sshd tells of a key's options takes 0.9 ms by itself.
    """

    _kex_info: Mapping[str, Any] = {
        **with_short_exponents(paramiko.Transport._kex_info),  # type: ignore[attr-defined]
        CURVE25519: KexCurve25519,
    }
    _preferred_kex = (CURVE25519, *paramiko.Transport._preferred_kex)  # type: ignore[attr-defined]

    _channel_handler_table: Mapping[int, Any] = {
        number: _within_window(take) if number in (MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA) else take
        for number, take in paramiko.Transport._channel_handler_table.items()  # type: ignore[attr-defined]
    }

    def __init__(self, sock: Any, **settings: Any) -> None:
        super().__init__(sock, **{"packetizer_class": _Packetizer, **settings})
        self.clear_to_send_timeout = REKEY_SECONDS
        options = self.get_security_options()
        options.ciphers = tuple(sorted(options.ciphers, key=lambda cipher: "-gcm@" not in cipher))
        self.offered: Mapping[str, list[str]] = {}
        """The server's algorithms, once they have come."""
        self.farewell = ""
        """What the server said when it ended the connection."""
        self.refusals: dict[int, Refusal] = {}
        """How the server refused channels, by their numbers."""
        self._key_exchanges = Budget()

    def get_exception(self) -> Exception | None:
        """Return what ended the connection. What Paramiko stumbles over in a message is a fault of the connection."""
        error: Exception | None = super().get_exception()
        if error is None or isinstance(error, (paramiko.SSHException, OSError, EOFError, InvalidTag)):
            return error
        return paramiko.SSHException(f"the server sends what SSH does not have ({type(error).__name__})")

    def mismatches(self) -> list[tuple[str, list[str], list[str]]]:
        """Return what both sides have no algorithm for: its name, the server's algorithms, and ours."""
        options = self.get_security_options()
        ours = (options.kex, options.key_types, options.ciphers, options.digests)
        names = ("key exchange", "host key", "cipher", "MAC")
        lists = zip(names, _LISTS, ours, strict=True)
        return [
            (name, theirs, list(mine))
            for name, theirs, mine in ((name, self.offered.get(key, []), mine) for name, key, mine in lists)
            if theirs and not set(theirs) & set(mine)
        ]

    def _negotiate_keys(self, message: paramiko.Message) -> None:
        if self.initial_kex_done and self.local_kex_init is None:  # the server begins
            received: int = self.packetizer.received  # type: ignore[attr-defined]  # of ours
            self._key_exchanges.spend(received)
        super()._negotiate_keys(message)  # type: ignore[misc]

    def _send_user_message(self, message: paramiko.Message) -> None:
        """Send a message once no key exchange is under way. One that does not end ends the connection.

        Else each channel of a jump host would wait as long, one after the other. Raises SSHException.
        """
        try:
            super()._send_user_message(message)  # type: ignore[misc]
        except paramiko.SSHException:
            self.close()
            raise

    def _really_parse_kex_init(self, message: paramiko.Message, *args: Any) -> Any:
        parsed = super()._really_parse_kex_init(message, *args)  # type: ignore[misc]
        self.offered = {key: [name for name in parsed[key] if not name.startswith(_SIGNALS)] for key in _LISTS}
        return parsed

    def _parse_ext_info(self, message: paramiko.Message) -> None:
        start = message.packet.tell()
        if (count := message.get_int()) > MOST_EXTENSIONS:
            raise paramiko.SSHException(f"the server announces {count} extensions")
        message.packet.seek(start)
        super()._parse_ext_info(message)  # type: ignore[misc]

    def _parse_disconnect(self, message: paramiko.Message) -> None:
        message.get_int()
        self.farewell = message.get_text()

    def _parse_channel_open_failure(self, message: paramiko.Message) -> None:
        start = message.packet.tell()
        number, code, text = message.get_int(), message.get_int(), message.get_text()
        if number in self.channel_events:  # else it was not asked for, and would be kept as long as the connection
            others = sum(channel.active and not channel.closed for channel in self._channels.values())  # type: ignore[attr-defined]
            self.refusals[number] = Refusal(code, brief(text), others)
        message.packet.seek(start)
        super()._parse_channel_open_failure(message)  # type: ignore[misc]

    def _log(self, level: int, msg: str | list[str], *args: object) -> None:
        """Log nothing."""

    def _parse_debug(self, _message: paramiko.Message) -> None:
        """Ignore it."""


def notice_silence(transport: paramiko.Transport) -> None:
    """Make a lost connection be noticed: by keepalives, and by packets that nobody acknowledges."""
    transport.set_keepalive(KEEPALIVE_SECONDS)
    transport.sock.settimeout(IDLE_SECONDS)
    if isinstance(transport.sock, socket.socket) and transport.sock.family != socket.AF_UNIX:  # a ProxyCommand's
        limit_silence(transport.sock, SILENCE_MILLISECONDS)


def wake(transport: paramiko.Transport) -> None:
    """Make a connection's thread see at once that it is closed, and not at its next look."""
    if isinstance(transport.sock, socket.socket):
        with suppress(OSError):
            transport.sock.shutdown(socket.SHUT_RDWR)
