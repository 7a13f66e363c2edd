"""Ctrl-C at any moment ends a command with status 130, without a traceback, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy import api
from flagscale_deploy.deploy.bring_up import RunFailedError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.support import interrupts
from tests.fakes import Output
from tests.unit.api.world import World
from tests.unit.sources import ROOT

INTERRUPTED = """
import os, runpy, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            os.kill(os.getpid(), signal.SIGINT)

MODULE = sys.argv.pop(1)
sys.meta_path.insert(0, Interrupting())
runpy.run_module("flagscale_deploy", run_name="__main__", alter_sys=True)
"""
"""Interrupts itself where it is about to import the module that its first argument names."""

MODULES = (
    "flagscale_deploy.cli",
    "click.core",
    "flagscale_deploy.cli.unlock",
    "flagscale_deploy.api",
    "flagscale_deploy.api.request",
    "pydantic",
    "flagscale_deploy.transport.fleet",
    "rich.console",
    "flagscale_deploy.output.console",
    "flagscale_deploy.output.hosts",
)


def interrupted(module: str, *words: str, trap: str = "true") -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f'{trap}; exec "$@"', "bash", sys.executable, "-c", INTERRUPTED, module, *words]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("module", MODULES)
def test_an_interrupt_during_imports_ends_the_command(tmp_path: Path, module: str) -> None:
    inventory = tmp_path / "hosts.yaml"
    inventory.write_text("hosts: [{name: gpu01, connection: local, python: /no/such/python}]\n")
    done = interrupted(module, "hosts", "-i", str(inventory))
    assert done.returncode == 130, done
    assert "Traceback" not in done.stderr
    assert "Aborted" not in done.stderr


def test_an_interrupt_that_the_caller_ignores_ends_nothing() -> None:
    done = interrupted("flagscale_deploy.cli", "--version", trap="trap '' INT")
    assert (done.returncode, done.stderr) == (0, "")


MOMENTS = ("probe", "lock", "inspect", "network_test", "parse_flags", "reserve", "launch", "watch", "archive", "stop")
"""The programs of a run, those of a failed one too."""


class Shot:
    """Sends SIGTERM once a program is under way on one host, as often as `timeout`, a shell or a terminal may."""

    def __init__(self, world: World, module: str, delays: tuple[float, ...]) -> None:
        self._module, self._delays, self._begun = module, delays, threading.Event()
        self.reserved: set[str] = set()
        self._reserve, self._stop = world.reserve, world.stop
        world.alter, world.reserve = self._alter, self._note

    def _alter(self, host: Host, module: str, outputs: Iterable[Output]) -> Iterable[Output]:
        if module == "stop":
            self.reserved.discard(host.name)
        if module != self._module or self._begun.is_set():
            return outputs
        self._begun.set()
        for delay in self._delays:
            threading.Timer(delay, os.kill, [os.getpid(), signal.SIGTERM]).start()
        return self._late(outputs)

    def _late(self, outputs: Iterable[Output]) -> Iterable[Output]:
        """Be silent for a while, after which a program that nobody ended replies."""
        yield from [None] * 100
        yield from outputs

    def _note(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        for output in self._reserve(host, args):
            (self.reserved.discard if args.get("release") else self.reserved.add)(host.name)
            yield output


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    monkeypatch.setattr(interrupts, "TOGETHER_SECONDS", 0.0)  # each is an interrupt of its own
    interrupts.catch()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("delays", [(0.1, 0.101), (0.1, 0.3)], ids=["at once", "two"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.usefixtures("caught")
def test_interrupts_at_any_moment_of_a_run_leave_nothing_behind(
    tmp_path: Path, moment: str, delays: tuple[float, ...]
) -> None:
    world = World(tmp_path)
    shot = Shot(world, moment, delays)
    if moment in ("archive", "stop"):
        world.watched = [{"dead": True, "why": "exit status 1"}]
    result, failures = [], []
    with contextlib.suppress(KeyboardInterrupt):  # the later ones may come when it has ended
        try:
            result.append(api.run(world.request()))
        except RunFailedError as error:
            failures.append(error.failure)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(0.8)  # a thread that was forgotten would act by now
    assert not result
    assert all(failure.stopped is not None for failure in failures)
    assert not world.running
    assert not shot.reserved
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fleet")]
