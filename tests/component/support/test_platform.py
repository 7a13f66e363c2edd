"""The operator's side where nothing is that only Linux has: it is imported, it plans, and its unit tests pass."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.environments.pythons import SWEEPS
from tests.unit.sources import ROOT

IMPORT_ALL_AND_PLAN = """
import importlib, pkgutil
from tests.only_linux import take_away
take_away()
import flagscale_deploy
for module in pkgutil.walk_packages(flagscale_deploy.__path__, "flagscale_deploy."):
    if module.name.split(".")[1] not in ("remote", "serve", "__main__"):
        importlib.import_module(module.name)
from flagscale_deploy.cli import cli
cli(["plan", "--offline", "-i", "inventories/ansible.yaml", "-c", "examples/qwen2.5-72b-two-hosts.yaml"])
"""
FOLDERS = ("cli", "remote/push", "transport")
"""Those of the unit tests that touch files, sockets and signals; the others are about values, as the sweeps are."""
LEFT_OUT = (
    *SWEEPS,
    "remote/push/test_store.py",
    "remote/push/test_validate.py",
    "transport/test_hostile_server.py",
    "transport/test_key_exchange.py",
)
"""What runs on hosts, which are Linux, and more of what a server may send over connections like all others.

Commands of later days are among the sweeps: `cli/test_cli.py` runs them as well, in other states of the hosts, which
are functions.
"""


def test_everything_is_imported_and_a_plan_is_made() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL_AND_PLAN], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ray_worker.sh" in done.stdout


@pytest.mark.timeout(660)
def test_commands_ssh_and_hashing_work() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]  # one process collects the tests once
    chosen = ["-p", "tests.component.support.elsewhere", *(f"tests/unit/{folder}" for folder in FOLDERS)]
    chosen += [f"--ignore=tests/unit/{left_out}" for left_out in LEFT_OUT]
    done = subprocess.run([*command, *chosen], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
