"""The handshake, both sides of it in one process and without a network."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagscale_deploy.remote.handshake import NONCE, TAG, Handshake, WrongPeerError

TOKEN, OTHER = b"t" * 32, b"o" * 32


def exchange(client: Handshake, server: Handshake, piece: int = NONCE + TAG) -> None:
    """Pass on what each side sends, a piece at a time, until nothing is sent any more."""
    to_server, to_client = client.start(), server.start()
    while to_server or to_client:
        part, to_server = to_server[:piece], to_server[piece:]
        to_client += server.receive(part) if part else b""
        part, to_client = to_client[:piece], to_client[piece:]
        to_server += client.receive(part) if part else b""


@given(piece=st.integers(1, NONCE + TAG))
def test_two_sides_with_one_token_agree_whatever_pieces_arrive(piece: int) -> None:
    client, server = Handshake(TOKEN, is_client=True), Handshake(TOKEN, is_client=False)
    assert (client.missing, server.missing) == (NONCE + TAG, NONCE + TAG)
    exchange(client, server, piece)
    assert (client.missing, server.missing) == (0, 0)


@given(piece=st.integers(1, NONCE + TAG))
def test_a_client_with_another_token_gets_a_nonce_and_no_more(piece: int) -> None:
    client, server = Handshake(OTHER, is_client=True), Handshake(TOKEN, is_client=False)
    with pytest.raises(WrongPeerError):
        exchange(client, server, piece)
    assert client.missing == TAG


def test_a_server_that_does_not_know_the_token_is_noticed_at_its_first_wrong_byte() -> None:
    client = Handshake(TOKEN, is_client=True)
    assert len(client.receive(b"n" * NONCE)) == TAG
    right = client._tag(of_client=False)
    assert client.receive(right[:1]) == b""
    with pytest.raises(WrongPeerError):
        client.receive(bytes([right[1] ^ 1]))


def test_what_one_side_proves_is_no_proof_of_the_other() -> None:
    client = Handshake(TOKEN, is_client=True)
    with pytest.raises(WrongPeerError):
        client.receive(client.receive(b"n" * NONCE))  # its own proof, sent back


def test_a_clients_proof_is_compared_as_a_whole() -> None:
    """A server says nothing of a part of it: neither that it is wrong, nor how much of it is right."""
    server = Handshake(TOKEN, is_client=False)
    assert len(server.receive(b"n" * NONCE)) == NONCE
    for _ in range(TAG - 1):
        assert server.receive(b"x") == b""
    with pytest.raises(WrongPeerError):
        server.receive(b"x")
