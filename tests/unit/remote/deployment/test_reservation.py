"""Who has a deployment's name, where its run is launched while somebody looks."""

from __future__ import annotations

import os
from typing import Any

import pytest

from flagscale_deploy.remote.deployment import record, reservation
from flagscale_deploy.remote.system import proc


def test_a_run_that_is_launched_during_a_look_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else neither of two runs on different hosts sees the other: one reads who is there, the other one starts."""
    reserved: Any = {
        "deployment": "qwen", "host": "gpu02", "run_id": "r1", "head": "gpu02", "roles": ["engine"], "processes": [],
        "boot_id": record.boot_id(), "machine": os.uname().nodename, "operator": "eve@desk",
    }  # fmt: skip

    def launched() -> list[proc.Process]:
        """Return what ran before the launch, which ends as this does."""
        reserved["processes"] = [{"pid": 7}]
        return []

    monkeypatch.setattr(proc, "scan", launched)
    monkeypatch.setattr(record, "of_this_machine", lambda _host: [{**reserved}])
    wanted: Any = {"gpus": [], "ports": {}, "head": "gpu01"}
    look: Any = {"deployment": "qwen", "host": "gpu02", "run_id": "r2", "record": wanted, "exclusive": []}
    assert [conflict["what"] for conflict in reservation.conflicts(look)] == ["the name qwen"]
