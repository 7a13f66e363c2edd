"""The operator's side where nothing is that only Linux has: it is imported and plans.

Its unit tests pass there as well: `tests/environments/pythons.py` runs them.
"""

from __future__ import annotations

import subprocess
import sys

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


def test_everything_is_imported_and_a_plan_is_made() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL_AND_PLAN], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ray_worker.sh" in done.stdout
