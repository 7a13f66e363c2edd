"""The tables of vllm-router's flags are those of the installed one."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from flagscale_deploy.config.router_flags import FLAGS, OF_OTHER_MODES, SET_BY_US
from flagscale_deploy.plan.router import REPEATED

OWN_KEYS = {"host", "port", "policy", "prometheus-port"}
SECRET = {"api-key"}


def test_the_tables_are_those_of_the_installed_vllm_router(request: pytest.FixtureRequest) -> None:
    # FSD_NODE_ENV names an environment that has vllm-router already; without it the suite's own is built.
    node = os.environ.get("FSD_NODE_ENV") or request.getfixturevalue("node_env")
    done = subprocess.run(
        [str(Path(node) / "bin" / "python"), str(Path(__file__).with_name("router_parser.py"))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    flags = json.loads(done.stdout)
    assert sorted(FLAGS | OF_OTHER_MODES | SET_BY_US | OWN_KEYS | SECRET) == flags["flags"]
    assert set(flags["repeated"]) - OF_OTHER_MODES - SET_BY_US == REPEATED
