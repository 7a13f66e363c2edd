"""`logs --diagnose --from` names what a log stops at, in logs like those of public bug reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from flagscale_deploy.cli import cli

CASES: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "field.yaml").read_text())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_cause_is_what_the_log_stops_at(case: dict[str, Any], tmp_path: Path) -> None:
    for path, text in case["files"].items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    result = CliRunner().invoke(cli, ["logs", "--diagnose", "--from", str(tmp_path), "--json"])
    assert result.exit_code == 0
    diagnosis = json.loads(result.stdout)["diagnosis"]
    if "host" not in case:
        assert diagnosis is None
        return
    assert diagnosis["host"] == case["host"]
    assert diagnosis["signature"] == case.get("signature", "")
    assert diagnosis["line"].startswith(case.get("line", ""))
