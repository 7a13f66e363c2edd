"""What `status` shows of a group of ranks."""

from __future__ import annotations

import pytest

from flagscale_deploy.output.console import Console
from flagscale_deploy.output.status import show_status
from tests.unit.deploy.test_group_status import reply, status


@pytest.mark.parametrize("verbose", [False, True])
def test_the_rank_that_is_not_well_is_named_and_v_shows_all(verbose: bool, capsys: pytest.CaptureFixture[str]) -> None:
    show_status(Console(verbose=verbose), status(reply("gpu01"), reply("gpu02", ranks={})))
    lines = capsys.readouterr().out.splitlines()
    assert any("qwen/0 " in line and "rank 1 on gpu02: has 0 of 2 ranks" in line for line in lines)
    rows = [" ".join(line.split()) for line in lines if "follower" in line]
    assert rows == (["qwen/0 rank 1 unwell follower gpu02 0, 1 has 0 of 2 ranks"] if verbose else [])


def test_a_change_that_is_not_over_is_shown_with_its_step(capsys: pytest.CaptureFixture[str]) -> None:
    change = {
        "run_id": "c1",
        "base": "r1",
        "groups": ["qwen/0"],
        "done": [],
        "secrets": False,
        "step": "stop",
        "operator": "me@here",
        "at": 1500.0,
    }
    whole = reply("gpu01")
    show_status(Console(), status({**whole, "record": {**whole["record"], "change": change}}, reply("gpu02")))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("qwen: changing")
    assert lines[1].startswith("  change c1 of me@here, since ")
    assert lines[1].endswith(": qwen/0: stopping")
