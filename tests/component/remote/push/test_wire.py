"""The listener, called by friends and strangers."""

from __future__ import annotations

import contextlib
import hmac
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flagscale_deploy.remote.handshake import HANDSHAKE_SECONDS, NONCE, TAG, WrongPeerError, authenticate, receive
from flagscale_deploy.remote.push import serve
from flagscale_deploy.remote.push.serve import PieceServer
from flagscale_deploy.remote.push.tree import Piece, Span
from flagscale_deploy.remote.push.wire import ABSENT, PRESENT, REPLY, REQUEST

TOKEN, CONTENT = os.urandom(32), os.urandom(3 << 20)
PIECES: tuple[Piece, ...] = ((Span(0, 1 << 20, 1 << 20),), (Span(0, 0, 10), Span(0, 20, 5)), (Span(0, 0, 64 << 20),))


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PieceServer]:
    path: Path = tmp_path_factory.mktemp("served") / "file"
    path.write_bytes(CONTENT)
    server = serving(path)
    yield server
    server.close()


@pytest.fixture
def server_of(tmp_path: Path) -> Iterator[Callable[..., PieceServer]]:
    """Give a listener of its own, closed afterwards."""
    (tmp_path / "file").write_bytes(CONTENT)
    with contextlib.ExitStack() as stack:

        def serve_it(*, size: int = len(CONTENT), **settings: Any) -> PieceServer:
            os.truncate(tmp_path / "file", size)
            server = serving(tmp_path / "file", **settings)
            stack.callback(server.close)
            return server

        yield serve_it


def serving(path: Path, **settings: Any) -> PieceServer:
    return PieceServer(
        "127.0.0.1",
        TOKEN,
        lambda number: PIECES[number] if number < len(PIECES) else None,
        lambda _file: os.open(path, os.O_RDONLY),
        **settings,
    )


def call(listener: PieceServer, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", listener.port), 5, (source, 0))


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
            assert REPLY.unpack(receive(connection, REPLY.size, 5)) == (PRESENT, len(wanted))
            assert receive(connection, len(wanted), 5) == wanted
        connection.sendall(REQUEST.pack(77))
        assert REPLY.unpack(receive(connection, REPLY.size, 5)) == (ABSENT, 0)


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
        theirs = receive(connection, NONCE, 5)
        tag = hmac.new(TOKEN, b"client" + mine + theirs, "sha256").digest()
        connection.sendall(tag)
        assert len(receive(connection, TAG, 5)) == TAG
    with call(listener) as connection:  # the very same words, to another nonce
        say_last(connection, mine + tag + REQUEST.pack(0))
        assert len(heard(connection)) <= NONCE


def test_a_tag_is_not_good_for_the_other_direction(listener: PieceServer) -> None:
    """A stranger that hands on what the listener itself says."""
    with call(listener) as first, call(listener) as second:
        second.sendall(os.urandom(NONCE))
        first.sendall(receive(second, NONCE, 5) + os.urandom(TAG))
        say_last(second, heard(first) + os.urandom(48))
        assert heard(second) == b""


def test_strangers_in_plenty_do_not_keep_peers_out(server_of: Callable[..., PieceServer]) -> None:
    """Each sends a byte now and then, and comes back once it is turned away."""
    server = server_of(peers=["127.0.0.2"])
    ended, lasted = threading.Event(), []

    def be_strange() -> None:
        while not ended.is_set():
            began = time.monotonic()
            with call(server) as connection, contextlib.suppress(OSError):
                while not ended.is_set():
                    connection.sendall(b"?")
                    ended.wait(0.2)
            lasted.append(time.monotonic() - began)

    strangers = [threading.Thread(target=be_strange) for _ in range(100)]
    for stranger in strangers:
        stranger.start()
    try:
        for source in ("127.0.0.2", "127.0.0.3") * 20:
            began = time.monotonic()
            with call(server, source) as connection:
                authenticate(connection, TOKEN, is_client=True)
            assert time.monotonic() - began < HANDSHAKE_SECONDS
    finally:
        ended.set()
        for stranger in strangers:
            stranger.join(10)
    assert max(lasted) < 30


def test_a_stranger_that_sends_a_byte_a_second_is_turned_away_in_time(listener: PieceServer) -> None:
    with call(listener) as connection:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 60:
                connection.sendall(b"?")
                time.sleep(0.5)
        assert time.monotonic() - began < 30


def test_a_client_that_takes_a_piece_too_slowly_is_dropped(
    server_of: Callable[..., PieceServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "SLOWEST", 64 << 20)
    monkeypatch.setattr(serve, "SEND_SECONDS", 0.5)
    server = server_of(size=64 << 20)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        authenticate(connection, TOKEN, is_client=True)
        connection.sendall(REQUEST.pack(2))
        ends = time.monotonic() + 60
        while server._server.clients and time.monotonic() < ends:
            assert connection.recv(2000)
            time.sleep(0.02)
        assert not server._server.clients


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
        thread.join(30)
        assert not thread.is_alive()
