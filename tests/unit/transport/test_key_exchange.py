"""A server, or whoever is in between, chooses the numbers of a key exchange and how often it is made."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko.common import cMSG_KEXINIT

from flagscale_deploy.transport import key_exchange
from flagscale_deploy.transport.ssh_transport import Transport
from tests.unit.transport.loopback import Server, load_key, new_key
from tests.unit.transport.test_hostile_server import reach

LARGEST_MODULUS = (1 << 8192) - 1


class Recorder:
    """What a kind of key exchange needs of a transport."""

    server_mode = False

    def _send_message(self, _message: paramiko.Message) -> None:
        pass

    def _expect_packet(self, *_kinds: int) -> None:
        pass

    def _log(self, *_args: object) -> None:
        pass


@pytest.mark.parametrize("name", Transport._kex_info)
def test_no_exponent_is_as_long_as_a_modulus(name: str) -> None:
    engine: Any = Transport._kex_info[name](Recorder())
    if name.startswith("diffie-hellman"):
        engine.p = LARGEST_MODULUS
        engine._generate_x()
        assert engine.x.bit_length() == 8 * key_exchange.EXPONENT_BYTES
    else:
        assert not hasattr(engine, "_generate_x")


@pytest.mark.parametrize("name", [*Transport._kex_info])
def test_each_kind_still_logs_in(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "group-exchange" in name:
        group: Any = Transport._kex_info["diffie-hellman-group16-sha512"]
        monkeypatch.setattr(paramiko.Transport, "_modulus_pack", _OneModulus(group.P), raising=False)
    monkeypatch.setattr(Transport, "_preferred_kex", (name,))
    monkeypatch.setattr(paramiko.Transport, "_kex_info", Transport._kex_info)
    monkeypatch.setattr(paramiko.Transport, "_preferred_kex", (name,))
    key = new_key()
    with Server(load_key(key)) as server:
        connection = reach(home, server, key)
        connection.open()
        connection.close()


class _OneModulus:
    def __init__(self, modulus: int) -> None:
        self._modulus = modulus

    def get_modulus(self, *_bits: int) -> tuple[int, int]:
        return 2, self._modulus


@pytest.mark.parametrize("kind", [*key_exchange.MESSAGES])
def test_no_message_of_a_key_exchange_is_long(kind: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport: Any = Transport(ours)
        server = paramiko.Transport(theirs)
        message = paramiko.Message()
        message.add_byte(bytes([kind]))
        message.add_bytes(bytes(key_exchange.LARGEST_MESSAGE + 1))
        sending = threading.Thread(target=server.packetizer.send_message, args=(message,), daemon=True)
        sending.start()
        with pytest.raises(paramiko.SSHException, match=r"bytes in a message of the key exchange"):
            transport.packetizer.read_message()
        sending.join(10)


def test_a_server_that_begins_key_exchanges_again_and_again_is_given_up(home: Path) -> None:
    key = new_key()
    with Server(load_key(key)) as server:
        connection = reach(home, server, key)
        connection.open()
        login = connection._logins[0].login
        begun, theirs = 0, server.transports[0]
        while login.is_open and begun < 1000:
            with suppress(paramiko.SSHException, EOFError):
                theirs.renegotiate_keys()
            begun += 1
        assert key_exchange.AT_ONCE <= begun < 1000
        assert not login.is_open
        connection.close()


def test_a_server_may_begin_a_key_exchange_for_each_mebibyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    budget = key_exchange.Budget()
    for number in range(1, 100):
        budget.spend(number << 20)
    for _ in range(key_exchange.AT_ONCE):
        budget.spend(99 << 20)
    with pytest.raises(paramiko.SSHException, match="108 key exchanges"):
        budget.spend(99 << 20)


def test_what_begins_a_key_exchange_is_its_first_message() -> None:
    assert cMSG_KEXINIT[0] == key_exchange.MESSAGES[0]
