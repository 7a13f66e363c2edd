"""A fault at a stage: the command ends as it should, what follows tells the truth and takes everything away."""

from __future__ import annotations

import pytest

from tests.lab.faults.matrix import Cell, cells, chosen, go_through, of_day, proven
from tests.lab.faults.scene import Innocents, Scene
from tests.lab.faults.stages import STAGES, WHOLE


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


def test_days_that_follow_each_other_go_through_every_fault() -> None:
    seen = {cell.fault.name for day in range(7) for cell in of_day(20260101 + day)}
    assert seen == {cell.fault.name for cell in proven()}
    assert len(seen) > 20
