"""`.ci/run`, with a `make` that only says what it was asked for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "run"
MAKE = '#!/bin/sh\necho "$1 with ${FSD_FLAGSCALE_CONFIGS-nothing}"\n'


@pytest.mark.parametrize(
    ("beside", "given", "expected"),
    [(True, None, "{place}/shared/flagscale-configs"), (False, None, "nothing"), (True, "/elsewhere", "/elsewhere")],
)
def test_files_of_flagscale_beside_the_clone_are_planned(
    tmp_path: Path, beside: bool, given: str | None, expected: str
) -> None:
    script, tools = tmp_path / "clone" / ".ci" / "run", tmp_path / "bin"
    script.parent.mkdir(parents=True)
    shutil.copy(SCRIPT, script)
    tools.mkdir()
    (tools / "make").write_text(MAKE)
    (tools / "make").chmod(0o755)
    if beside:
        (tmp_path / "shared" / "flagscale-configs").mkdir(parents=True)
    variables = {name: value for name, value in os.environ.items() if name != "FSD_FLAGSCALE_CONFIGS"}
    variables |= {"PATH": f"{tools}:{os.environ['PATH']}"} | ({"FSD_FLAGSCALE_CONFIGS": given} if given else {})
    done = subprocess.run([script], env=variables, capture_output=True, text=True, check=True)
    folder = expected.format(place=tmp_path.resolve())
    *targets, times = done.stdout.splitlines()
    assert targets == [
        f"{target} with {folder}" for target in ("lint", "docs", "unit-all", "demo", "bench-quick", "test")
    ]
    assert re.fullmatch(r"── .ci/run: make lint \d+ s, .*, make test \d+ s, \d+ s in all", times)
