"""The keepalive of a connection: asked for when nothing comes, and given up when no answer does."""

from __future__ import annotations

import array
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import paramiko
import pytest

from flagscale_deploy.transport.keepalive import QUIET_SECONDS, SILENCE_SECONDS, Keepalive, unsent


@dataclass
class Clock:
    at: float = 100.0

    def __call__(self) -> float:
        return self.at


@dataclass
class Wire:
    """What a keepalive needs of Paramiko's transport. `answers`: whether sshd does."""

    answers: bool = True
    sock: Any = None
    completion_event: threading.Event | None = None
    sent: list[bytes] = field(default_factory=list)

    def _send_user_message(self, message: paramiko.Message) -> None:
        self.sent.append(message.asbytes())
        if self.answers and self.completion_event is not None:
            self.completion_event.set()


def keepalive(wire: Wire) -> tuple[Keepalive, Clock]:
    clock = Clock()
    return Keepalive(cast(paramiko.Transport, wire), clock), clock


def test_who_answers_is_asked_again_and_again_and_never_overdue() -> None:
    wire = Wire()
    looked, clock = keepalive(wire)
    for _ in range(100):
        clock.at += 1.0
        assert looked.silent_for() == 0.0
    assert 5 <= len(wire.sent) <= 100 / QUIET_SECONDS
    assert b"keepalive@openssh.com\x01" in wire.sent[0]  # and an answer is wanted


def test_who_does_not_answer_is_overdue() -> None:
    wire = Wire(answers=False)
    looked, clock = keepalive(wire)
    overdue = []
    for _ in range(60):
        clock.at += 1.0
        overdue.append(looked.silent_for())
    assert len(wire.sent) == 1
    assert overdue.index(next(filter(None, overdue))) + 1 == QUIET_SECONDS + SILENCE_SECONDS


def test_output_is_an_answer_as_well() -> None:
    looked, clock = keepalive(Wire(answers=False))
    for _ in range(100):
        clock.at += QUIET_SECONDS + 1
        looked.silent_for()
        looked.heard()
        assert looked.silent_for() == 0.0


@pytest.fixture
def full() -> Iterator[socket.socket]:
    """Return a socket whose other side does not read, and has no room any more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as here, server.accept()[0]:
            here.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    here.send(bytes(1 << 16))
            yield here


def test_what_has_not_arrived_cannot_be_answered(full: socket.socket) -> None:
    """At 1 kB/s the question stands behind a minute of other bytes."""
    wire = Wire(answers=False, sock=full)
    assert unsent(cast(paramiko.Transport, wire)) > 0
    looked, clock = keepalive(wire)
    for _ in range(200):
        clock.at += 1.0
        assert looked.silent_for() == 0.0


def test_behind_a_jump_host_nothing_is_known_of_what_is_on_its_way() -> None:
    assert unsent(cast(paramiko.Transport, Wire(sock=array.array("i")))) == 0
