"""What `run` says at its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flagscale_deploy import api
from flagscale_deploy.deploy.bring_up import BroughtUp
from flagscale_deploy.deploy.run_folder import RunFolder
from flagscale_deploy.output.console import Console
from flagscale_deploy.output.run import show_run
from flagscale_deploy.plan.program import PROGRAM
from tests.unit.deploy.given import PLAN


@pytest.mark.parametrize(
    ("engine", "finished", "words"),
    [
        ("vllm", (), "is ready: its first token came 12.3 s after its start"),
        (PROGRAM, (), "is ready 12.3 s after its start"),
        (PROGRAM, ("qwen/0",), "has finished 12.3 s after its start"),
    ],
)
def test_only_an_engine_has_a_first_token_and_only_a_program_finishes(
    capsys: pytest.CaptureFixture[str], engine: str, finished: tuple[str, ...], words: str
) -> None:
    instances = tuple(replace(instance, engine=engine) for instance in PLAN.instances)
    assert [instance.name for instance in instances] == ["qwen/0"]
    up = BroughtUp({"qwen/0": 12.3}, finished=finished)
    plan = replace(PLAN, instances=instances)
    show_run(Console(), api.RunResult(plan, None, up, RunFolder(Path("/out"), str), (), False))
    assert f"qwen/0 {words}\n" in capsys.readouterr().out
