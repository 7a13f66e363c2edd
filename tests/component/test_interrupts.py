"""Ctrl-C at any moment of a command's start ends it with status 130, without a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
