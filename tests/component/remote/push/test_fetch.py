"""Fetching from peers that send what they should not: each is a failed piece, in time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote.handshake import authenticate, receive
from flagscale_deploy.remote.push import fetch, hashes
from flagscale_deploy.remote.push.fetch import Fetcher
from flagscale_deploy.remote.push.store import Store
from flagscale_deploy.remote.push.validate import checked_tree
from flagscale_deploy.remote.push.wire import ABSENT, PRESENT, REPLY, REQUEST
from tests.unit.remote.push.trees import CONTENT, tree

TOKEN = os.urandom(32)
DATA = b"".join(CONTENT[name] for name in sorted(CONTENT))
"""The only piece of the tree: its files, in order."""
Misbehave = Callable[[socket.socket], None]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = Store(os.fsencode(os.path.realpath(tmp_path / "models")), checked_tree(tree()), "gpu01")
    store.look(False, hashes.silent)
    digests = [hashlib.sha256(CONTENT[file["path"]]).digest() if file["size"] else b"" for file in store.files]
    store.compare([hashes.to_text(digest) for digest in digests])
    store.prepare(hashes.silent)
    return store


@pytest.fixture
def outcome(store: Store) -> Iterator[Callable[..., tuple[dict[str, Any], float]]]:
    """Fetch the piece from a peer that does this once it is asked; return the reply, and how long that took."""
    with contextlib.ExitStack() as stack:

        def fetched(misbehave: Misbehave, *, authentic: bool = True) -> tuple[dict[str, Any], float]:
            replies: queue.Queue[dict[str, Any]] = queue.Queue()
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            threading.Thread(target=answer, args=(server, misbehave, authentic), daemon=True).start()
            fetcher = Fetcher(
                store,
                TOKEN,
                lambda reply: replies.put({**reply}),
                lambda why: replies.put({"broken": why}),
                hashes.silent,
            )
            began = time.monotonic()
            fetcher.order({"fetch": 0, "from": ("127.0.0.1", server.getsockname()[1])})
            return replies.get(timeout=30), time.monotonic() - began

        yield fetched


def answer(server: socket.socket, misbehave: Misbehave, authentic: bool) -> None:
    connection, _ = server.accept()
    with connection, contextlib.suppress(OSError):
        if authentic:
            authenticate(connection, TOKEN, is_client=False)
            receive(connection, REQUEST.size, 5)
        misbehave(connection)


def drip(connection: socket.socket, data: bytes, seconds: float = 0.05) -> None:
    for byte in data:
        connection.sendall(bytes([byte]))
        time.sleep(seconds)


def test_the_piece_of_a_peer_as_it_should_be_is_taken(outcome: Any, store: Store) -> None:
    reply, _ = outcome(lambda peer: peer.sendall(REPLY.pack(PRESENT, len(DATA)) + DATA))
    assert reply["got"] == 0
    assert store.finish() == {"missing": []}


WRONG: dict[str, tuple[str, Misbehave]] = {
    "says another size": ("transfer", lambda peer: peer.sendall(REPLY.pack(PRESENT, len(DATA) + 1) + DATA)),
    "says a huge size": ("transfer", lambda peer: peer.sendall(REPLY.pack(PRESENT, (1 << 64) - 1) + DATA)),
    "says nothing is there": ("transfer", lambda peer: peer.sendall(REPLY.pack(ABSENT, 0))),
    "says neither": ("transfer", lambda peer: peer.sendall(REPLY.pack(77, len(DATA)) + DATA)),
    "sends too little": ("transfer", lambda peer: peer.sendall(REPLY.pack(PRESENT, len(DATA)) + DATA[:-1])),
    "sends half a header": ("transfer", lambda peer: peer.sendall(REPLY.pack(PRESENT, len(DATA))[:5])),
    "sends other bytes": ("corrupt", lambda peer: peer.sendall(REPLY.pack(PRESENT, len(DATA)) + bytes(len(DATA)))),
    "hangs up": ("transfer", lambda _peer: None),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_peer_that_sends_wrong_lengths_or_bytes_is_a_failed_piece(outcome: Any, store: Store, what: str) -> None:
    kind, misbehave = WRONG[what]
    reply, seconds = outcome(misbehave)
    assert (reply.get("failed"), reply.get("kind")) == (0, kind)
    assert seconds < 20
    assert store.have == set()


def test_more_bytes_than_the_piece_has_are_not_read_into_it(outcome: Any, store: Store) -> None:
    reply, _ = outcome(lambda peer: peer.sendall(REPLY.pack(PRESENT, len(DATA)) + DATA + b"more" * 1000))
    assert reply["got"] == 0
    store.finish()
    for name, content in CONTENT.items():
        assert Path(os.fsdecode(store.root), name).read_bytes() == content


@pytest.mark.parametrize("part", ["handshake", "header", "content"])
def test_a_peer_that_sends_a_byte_now_and_then_is_given_up(
    outcome: Any, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "SILENCE_SECONDS", 1.0)
    header = REPLY.pack(PRESENT, len(DATA))
    ways: dict[str, Misbehave] = {
        "handshake": lambda peer: drip(peer, os.urandom(16), 0.7),
        "header": lambda peer: drip(peer, header, 0.5),
        "content": lambda peer: drip(peer, header + DATA, 0.02),
    }
    reply, seconds = outcome(ways[part], authentic=part != "handshake")
    assert reply["kind"] == ("connect" if part == "handshake" else "transfer")
    assert seconds < 25


@pytest.mark.parametrize(
    "order",
    [
        {"fetch": 1, "from": ("127.0.0.1", 80)},
        {"fetch": -1, "from": ("127.0.0.1", 80)},
        {"fetch": 1 << 40, "from": ("127.0.0.1", 80)},
        {"fetch": 0, "from": ("127.0.0.1", 1 << 16)},
        {"fetch": 0, "from": ("127.0.0.1", 0)},
        {"fetch": 0, "from": ("metadata.internal", 80)},
        {"fetch": True, "from": ("127.0.0.1", 80)},
    ],
)
def test_an_order_out_of_range_is_refused(store: Store, order: Any) -> None:
    fetcher = Fetcher(store, TOKEN, lambda _reply: None, lambda _why: None, hashes.silent)
    with pytest.raises(ValueError, match=r"its|not appear"):
        fetcher.order(order)
