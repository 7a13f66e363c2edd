"""Open channels to other machines on one connection from several threads, which Paramiko's own function confuses.

It keeps one last error for a whole connection: of two channels that are refused at once, one gets the other's reason.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

import paramiko
from paramiko.common import cMSG_CHANNEL_OPEN

from flagscale_deploy.errors import InterruptedByUser
from flagscale_deploy.transport.ssh_transport import Transport

STEP_SECONDS = 0.1


class Opening:
    """A channel that a server has been asked for, to a place: host and port. Use `wait` to get it."""

    def __init__(self, transport: Transport, place: tuple[str, int]) -> None:
        self._transport = transport
        self._number, self._channel, self._event = _request(transport, place)

    def wait(self, timeout: float, cancelled: threading.Event) -> paramiko.Channel:
        """Return the open channel.

        Raises Refusal; TimeoutError where no answer comes; EOFError for a lost connection; InterruptedByUser.
        """
        deadline = time.monotonic() + timeout
        while not self._event.wait(STEP_SECONDS):
            if cancelled.is_set():
                raise InterruptedByUser("interrupted")
            if time.monotonic() > deadline:
                raise TimeoutError
            if not self._transport.is_active():
                raise EOFError
        if (refusal := self._transport.refusals.pop(self._number, None)) is not None:
            raise refusal
        if not self._transport.is_active():
            raise EOFError
        return self._channel


class _Forwarded(paramiko.Channel):
    """A channel that another connection goes through, in place of a socket: like one, it can always be closed."""

    def close(self) -> None:
        """Close it. A jump host that is in the middle of a key exchange, or has gone, is left to itself."""
        with suppress(OSError, EOFError, paramiko.SSHException):
            super().close()


def _request(transport: Any, place: tuple[str, int]) -> tuple[int, paramiko.Channel, threading.Event]:
    """Send a request for a channel; return its number, the channel, and what is set when the answer has come."""
    event = threading.Event()
    with transport.lock:
        window, packet = transport._sanitize_window_size(None), transport._sanitize_packet_size(None)
        number = transport._next_channel()
        channel: Any = _Forwarded(number)
        transport._channels.put(number, channel)
        transport.channel_events[number] = event
        transport.channels_seen[number] = True
        channel._set_transport(transport)
        channel._set_window(window, packet)
    message = paramiko.Message()
    message.add_byte(cMSG_CHANNEL_OPEN)
    message.add_string("direct-tcpip")
    for size in (number, window, packet):
        message.add_int(size)
    for host, port in (place, ("127.0.0.1", 0)):
        message.add_string(host)
        message.add_int(port)
    transport._send_user_message(message)
    return number, channel, event
