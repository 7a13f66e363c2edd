"""A fault at a stage: the command ends as it should, what follows tells the truth and takes everything away."""

from __future__ import annotations

import pytest

from tests.lab.faults.faults import FAULTS
from tests.lab.faults.healing import HEALINGS, NOT_STRUCK
from tests.lab.faults.matrix import HEALING_A_DAY, Cell, cells, chosen, go_through, of_day, proven
from tests.lab.faults.scene import Innocents, Scene
from tests.lab.faults.stages import READY, STAGES, WHOLE


@pytest.mark.timeout(600)
@pytest.mark.parametrize("cell", chosen(), ids=lambda cell: cell.name)
def test_a_fault(cell: Cell, scene: Scene, innocents: Innocents) -> None:
    go_through(cell, scene, innocents)


def test_every_cell_is_there_or_has_a_reason() -> None:
    moments = {stage.name for stage in STAGES if stage.name != WHOLE}
    for fault in {cell.fault.name: cell.fault for cell in cells()}.values():
        if set(fault.stages) & moments:
            assert set(fault.stages) - {WHOLE} | set(fault.why_not) == moments, fault.name
            assert not set(fault.stages) & set(fault.why_not), fault.name


def test_whatever_happens_while_it_serves_happens_where_it_restarts_what_dies_or_there_is_a_reason() -> None:
    serving = {fault.name for fault in FAULTS if READY in (*fault.stages, *fault.why_not)}
    assert not serving - set(HEALINGS) - set(NOT_STRUCK)
    assert not set(HEALINGS) & set(NOT_STRUCK)
    assert set(HEALINGS) <= {fault.name for fault in FAULTS}


def test_each_day_has_deployments_that_restart_what_dies() -> None:
    days = [of_day(20260101 + day) for day in range(28)]
    assert all(sum(cell.healing is not None for cell in day) >= HEALING_A_DAY for day in days)
    stages = {cell.stage.name for day in days for cell in day if cell.healing}
    assert stages == {cell.stage.name for cell in proven() if cell.healing}


def test_days_that_follow_each_other_go_through_every_fault() -> None:
    seen = {cell.fault.name for day in range(7) for cell in of_day(20260101 + day)}
    assert seen == {cell.fault.name for cell in proven()}
    assert len(seen) > 20
