"""A ProxyCommand talks to machines that nobody has verified yet: neither its errors nor its end cost anything else."""

from __future__ import annotations

import os
import time

import pytest

from flagscale_deploy.transport.proxy_command import KEPT, ProxyCommand


def ended(command: str) -> tuple[ProxyCommand, str]:
    proxy = ProxyCommand(command)
    deadline = time.monotonic() + 30
    while not (failure := proxy.failure()):
        assert time.monotonic() < deadline
    return proxy, failure


def test_errors_without_end_are_kept_in_part() -> None:
    proxy, failure = ended("sh -c 'yes complaint | head -c 20000000 >&2; echo last words >&2; exit 7'")
    assert failure == "its ProxyCommand (sh) ended with exit status 7: last words"
    assert len(proxy._errors) == KEPT
    proxy.close()


def test_no_number_of_one_that_has_ended_is_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, _ = ended("sh -c 'exit 1'")
    signalled: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, _number: signalled.append(group))
    proxy.close()
    assert signalled == []


def test_one_that_runs_is_ended_with_what_it_started() -> None:
    proxy = ProxyCommand("sh -c 'sleep 100 & echo $! >&2; trap \"\" HUP; wait'")
    deadline = time.monotonic() + 30
    while not proxy._errors.endswith(b"\n"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child = int(proxy._errors)
    proxy.close()
    while _lives(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return ") Z" not in file.read()
    except OSError:
        return False
