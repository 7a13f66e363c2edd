"""The command line over hosts that are functions (`tests/unit/api/world.py`)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flagscale_deploy.api import request
from flagscale_deploy.api.request import Options
from flagscale_deploy.cli import cli
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.transport.base import Connection
from tests.unit.api.world import World

INVENTORY = "hosts:\n- {name: gpu01, address: 10.0.0.1, gpus: 8}\n- {name: gpu02, address: 10.0.0.2, gpus: 8}\n"
QWEN = """\
model_args:
  qwen: {model-tag: /models/qwen, tensor-parallel-size: 16, port: 4567}
deploy: {command-line-mode: true, secrets: [VLLM_API_KEY]}
experiment: {exp_name: qwen}
"""


class Typing:
    """Types commands in a folder with `hosts.yaml` and `qwen.yaml`; its hosts are those of `world`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World(folder)
        self.folder = folder
        (folder / "hosts.yaml").write_text(INVENTORY)
        (folder / "qwen.yaml").write_text(QWEN)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("VLLM_API_KEY", "first-key")
        monkeypatch.setattr(request, "Options", partial(Options, connect=self.connect))

    def connect(self, host: Host, timeout: float) -> Connection:
        return self.world.request().options.connect(host, timeout)

    def __call__(self, line: str) -> Result:
        command, *words = line.split()
        result = CliRunner().invoke(cli, [command, "-i", "hosts.yaml", *words])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "internal error" not in result.output, result.output
        return result
