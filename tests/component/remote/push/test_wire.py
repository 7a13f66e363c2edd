"""The listener, called by friends and strangers."""

from __future__ import annotations

import contextlib
import hmac
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flagscale_deploy.remote.handshake import NONCE, TAG, WrongPeerError, authenticate, receive
from flagscale_deploy.remote.push import serve
from flagscale_deploy.remote.push.serve import PieceServer
from flagscale_deploy.remote.push.tree import Piece, Span
from flagscale_deploy.remote.push.wire import ABSENT, PRESENT, REPLY, REQUEST

TOKEN, CONTENT = os.urandom(32), os.urandom(3 << 20)
PIECES: tuple[Piece, ...] = ((Span(0, 1 << 20, 1 << 20),), (Span(0, 0, 10), Span(0, 20, 5)))


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PieceServer]:
    path: Path = tmp_path_factory.mktemp("served") / "file"
    path.write_bytes(CONTENT)
    server = PieceServer(
        "127.0.0.1",
        TOKEN,
        lambda number: PIECES[number] if number < len(PIECES) else None,
        lambda _file: os.open(path, os.O_RDONLY),
    )
    yield server
    server.close()


def call(listener: PieceServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", listener.port), 5)


def heard(connection: socket.socket) -> bytes:
    """Everything up to the end of the connection."""
    data = b""
    try:
        while more := connection.recv(1 << 16):
            data += more
    except ConnectionError:
        pass
    return data


def say_last(connection: socket.socket, last_bytes: bytes) -> None:
    """Say something and no more. The other side may have hung up already."""
    with contextlib.suppress(OSError):
        connection.sendall(last_bytes)
        connection.shutdown(socket.SHUT_WR)


def test_a_friend_gets_pieces_as_often_as_it_asks(listener: PieceServer) -> None:
    with call(listener) as connection:
        authenticate(connection, TOKEN, is_client=True)
        for number, wanted in ((0, CONTENT[1 << 20 : 2 << 20]), (1, CONTENT[:10] + CONTENT[20:25])):
            connection.sendall(REQUEST.pack(number))
            assert REPLY.unpack(receive(connection, REPLY.size)) == (PRESENT, len(wanted))
            assert receive(connection, len(wanted)) == wanted
        connection.sendall(REQUEST.pack(77))
        assert REPLY.unpack(receive(connection, REPLY.size)) == (ABSENT, 0)


def test_another_token_is_turned_away(listener: PieceServer) -> None:
    with call(listener) as connection, pytest.raises(ConnectionError):
        authenticate(connection, os.urandom(32), is_client=True)


def test_who_does_not_know_the_token_is_not_taken_for_a_host() -> None:
    one, other = socket.socketpair()
    with one, other:
        other.sendall(os.urandom(NONCE) + os.urandom(32))
        with pytest.raises(WrongPeerError):
            authenticate(one, TOKEN, is_client=True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(last_bytes=st.binary(max_size=200))
def test_a_stranger_gets_nothing_but_chance_whatever_it_says(listener: PieceServer, last_bytes: bytes) -> None:
    with call(listener) as connection:
        say_last(connection, last_bytes)
        assert len(heard(connection)) <= NONCE


def test_what_a_friend_said_is_of_no_use_to_a_stranger(listener: PieceServer) -> None:
    mine = os.urandom(NONCE)
    with call(listener) as connection:
        connection.sendall(mine)
        theirs = receive(connection, NONCE)
        tag = hmac.new(TOKEN, b"client" + mine + theirs, "sha256").digest()
        connection.sendall(tag)
        assert len(receive(connection, TAG)) == TAG
    with call(listener) as connection:  # the very same words, to another nonce
        say_last(connection, mine + tag + REQUEST.pack(0))
        assert len(heard(connection)) <= NONCE


def test_a_tag_is_not_good_for_the_other_direction(listener: PieceServer) -> None:
    """A stranger that hands on what the listener itself says."""
    with call(listener) as first, call(listener) as second:
        second.sendall(os.urandom(NONCE))
        first.sendall(receive(second, NONCE) + os.urandom(TAG))
        say_last(second, heard(first) + os.urandom(48))
        assert heard(second) == b""


def test_silent_strangers_do_not_keep_friends_out(listener: PieceServer, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = [call(listener) for _ in range(serve.MAX_UNAUTHENTICATED // 2)]
    try:
        with call(listener) as connection:
            authenticate(connection, TOKEN, is_client=True)
    finally:
        for connection in idle:
            connection.close()


def test_a_closed_listener_leaves_neither_port_nor_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    server = PieceServer("127.0.0.1", TOKEN, lambda _number: None, lambda _file: -1)
    connection = call(server)
    authenticate(connection, TOKEN, is_client=True)
    server.close()
    assert heard(connection) == b""
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        call(server)
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()
