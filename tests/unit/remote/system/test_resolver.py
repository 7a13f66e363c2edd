"""Names that resolve, that don't, and a resolver that never answers."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

from flagscale_deploy.remote.system import resolver
from flagscale_deploy.remote.system.resolver import Lookups

NEVER = threading.Event()


def hanging(_name: str) -> list[str]:
    NEVER.wait()
    return []


def test_addresses_of_a_name_each_once() -> None:
    addresses = resolver.addresses("localhost")
    assert "127.0.0.1" in addresses or "::1" in addresses
    assert len(addresses) == len(set(addresses))


def test_a_name_that_does_not_resolve_and_one_that_is_none_have_no_address() -> None:
    assert resolver.addresses("nosuch.invalid") == []
    assert resolver.addresses("a" * 300) == []
    assert resolver.addresses("") == []


def test_the_own_name_and_one_outside_are_asked_for() -> None:
    asked: list[str] = []

    def lookup(name: str) -> list[str]:
        asked.append(name)
        return ["10.0.0.1"]

    answer = Lookups("gpu01", lookup).result()
    assert sorted(asked) == ["gpu01", "metadata.google.internal"]
    assert answer["hostname_addresses"] == ["10.0.0.1"]
    assert 0 <= answer["resolver_seconds"] < resolver.PATIENCE


def test_a_resolver_that_hangs_is_waited_for_no_longer_than_a_second() -> None:
    began = time.monotonic()
    answer = Lookups("gpu01", hanging).result()
    assert answer["hostname_addresses"] == []
    assert resolver.PATIENCE <= answer["resolver_seconds"] <= resolver.LONGEST
    assert time.monotonic() - began < 30


def test_one_lookup_that_hangs_leaves_the_other() -> None:
    names = Lookups("gpu01", lambda name: ["10.0.0.1"] if name == "gpu01" else hanging(name))
    assert names.result()["hostname_addresses"] == ["10.0.0.1"]


def test_a_program_ends_though_a_lookup_hangs() -> None:
    code = (
        "import threading\n"
        "from flagscale_deploy.remote.system import resolver\n"
        "resolver.PATIENCE = 0.1\n"
        "print(resolver.Lookups('gpu01', lambda name: threading.Event().wait()).result())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "resolver_seconds" in done.stdout
