"""What takes the place of Linux's own where it is not there."""

from __future__ import annotations

import socket
import time

import pytest

from flagscale_deploy.support.platform import limit_silence, uptime


@pytest.mark.parametrize("linux", [True, False])
def test_time_goes_on(monkeypatch: pytest.MonkeyPatch, linux: bool) -> None:
    if not linux:
        monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    first = uptime()
    assert first <= uptime() < first + 60


@pytest.mark.parametrize("linux", [True, False])
def test_a_connection_is_lost_after_a_silence_where_the_system_can(
    monkeypatch: pytest.MonkeyPatch, linux: bool
) -> None:
    option = socket.TCP_USER_TIMEOUT
    if not linux:
        monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    with socket.socket() as connection:
        limit_silence(connection, 1234)
        assert connection.getsockopt(socket.IPPROTO_TCP, option) == (1234 if linux else 0)
