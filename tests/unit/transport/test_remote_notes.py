"""What `-vv` shows of all that is run on hosts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flagscale_deploy import api
from flagscale_deploy.transport.remote_notes import note_program
from flagscale_deploy.transport.ssh_notes import NOTES, show_notes
from tests.unit.api.world import World

KEY = "s3cr3t-Key-0123456789"


@pytest.fixture(autouse=True)
def notes() -> Iterator[None]:
    handlers, level = list(NOTES.handlers), NOTES.level
    yield
    NOTES.handlers[:] = handlers
    NOTES.setLevel(level)


def test_a_program_is_shown_with_its_script_and_without_secrets() -> None:
    seen: list[str] = []
    show_notes(seen.append, programs=True)
    files = {"scripts/a.sh": ("#!/bin/bash\necho 100%s\n", "700"), "secrets/env": (f"K={KEY}\n", "600")}
    args = {
        "script": "a.sh",
        "token": KEY,
        "deep": [{"password": KEY, "tokens": 3}],
        "long": "x" * 9000,
        "files": files,
    }
    note_program("gpu01", "launch", args)
    (text,) = seen
    first, *rest = text.split("\n")
    assert first.startswith('gpu01: runs launch {"script": "a.sh", "token": "[REDACTED]", "deep": [{"password": "[RED')
    assert first.endswith("xxx …")
    assert rest == [
        "    sends scripts/a.sh (23 characters, mode 700)", "    | #!/bin/bash", "    | echo 100%s",
        f"    sends secrets/env ({len(KEY) + 3} characters, mode 600)",
    ]  # fmt: skip
    assert KEY not in text


def test_a_run_shows_every_program_and_script_on_every_host(tmp_path: Path) -> None:
    world, seen = World(tmp_path), list[str]()
    show_notes(seen.append, programs=True)
    api.run(world.request())
    assert {tuple(text.split()[:3:2]) for text in seen} == {(f"{call.host}:", call.module) for call in world.calls}
    assert any("    | #!/usr/bin/env bash" in text or "    | #!/bin/bash" in text for text in seen)
    seen.clear()
    show_notes(seen.append)
    api.status(world.request())
    assert seen == []
