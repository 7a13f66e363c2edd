"""Every stage with every fault: which cells there are, what has to hold after each, and the table of what did."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.lab.faults import healing
from tests.lab.faults.faults import FAULTS, Fault
from tests.lab.faults.healing import HEALINGS, Healing
from tests.lab.faults.scene import Innocents, Scene
from tests.lab.faults.stages import LOADING, WHOLE, Stage
from tests.lab.faults.stages import STAGES as MOMENTS
from tests.lab.keepers import REPOSITORY
from tests.lab.product.operator import Result, eventually

STAGES = (*MOMENTS, *healing.STAGES)
CELLS_A_DAY = 6
HEALING_A_DAY = 2
FIGURES = REPOSITORY / "docs/internals/reliability.md"
SETUP_ONLY = "how a host is set up does not change midway"


@dataclass(frozen=True)
class Cell:
    """One stage with one fault."""

    stage: Stage
    fault: Fault

    @property
    def name(self) -> str:
        return f"{self.fault.name} / {self.stage.name}"

    @property
    def healing(self) -> Healing | None:
        """Return what is expected where the deployment restarts what dies; None at other stages."""
        return HEALINGS.get(self.fault.name, {}).get(self.stage.name)


@dataclass
class Outcome:
    """How a cell went: the command's exit status (None: no command ran), and the seconds that it took to end."""

    cell: Cell
    code: int | None = None
    seconds: float = 0.0
    whole_seconds: float = 0.0
    passed: bool = False


@dataclass
class Matrix:
    """The results of this session."""

    outcomes: list[Outcome] = field(default_factory=list)
    chosen_by: str = ""
    notes: list[str] = field(default_factory=list)
    """What other tests found, for people."""


MATRIX = Matrix()


def cells() -> list[Cell]:
    pairs = [Cell(stage, fault) for fault in FAULTS for stage in STAGES]
    return [cell for cell in pairs if cell.healing or cell.stage.name in cell.fault.stages]


def chosen(environ: Mapping[str, str] = os.environ) -> list[Cell]:
    """All cells (FSD_FAULTS=all), those whose name has a text (FSD_FAULTS=power), or today's.

    Today's: the faults are shuffled once for all days, and each day takes the next few of them, with a stage by chance;
    FSD_FAULTS_SEED repeats a day.
    """
    wish = environ.get("FSD_FAULTS", "")
    if wish:
        MATRIX.chosen_by = f"FSD_FAULTS={wish}"
        return [cell for cell in cells() if wish == "all" or any(word in cell.name for word in wish.split(","))]
    seed = int(environ.get("FSD_FAULTS_SEED") or time.strftime("%Y%m%d", time.gmtime()))
    MATRIX.chosen_by = f"FSD_FAULTS_SEED={seed} repeats this choice, FSD_FAULTS=all runs every cell"
    return of_day(seed)


def proven() -> list[Cell]:
    """Return the cells whose figures stand in docs/internals/reliability.md: a day's part is taken from these."""
    rows = [[word.strip() for word in line.strip("| ").split("|")] for line in FIGURES.read_text().splitlines()]
    shown = {(row[0], stage.name): text for row in rows for stage, text in zip(STAGES, row[1:], strict=False)}
    return [cell for cell in cells() if shown.get((cell.fault.name, cell.stage.name), "·") not in "·–"]


def of_day(seed: int, most: int = CELLS_A_DAY) -> list[Cell]:
    """So many cells of a seed, each of another fault; HEALING_A_DAY of them restart what dies, where faults have such.

    Days that follow each other go through all faults in turn.
    """
    from_these = proven()
    faults = list({cell.fault.name: cell.fault for cell in from_these}.values())
    shuffled = random.Random(0).sample(faults, len(faults))
    healing_faults = {cell.fault.name for cell in from_these if cell.healing}
    halves = [[fault for fault in shuffled if (fault.name in healing_faults) is heals] for heals in (True, False)]
    spread = [((at + 0.5) / len(half), fault) for half in halves for at, fault in enumerate(half)]
    order = [fault for _, fault in sorted(spread, key=lambda item: item[0])]  # so that each day has some of both
    day = int(time.mktime(time.strptime(str(seed), "%Y%m%d")) // 86400) if re.fullmatch(r"20\d{6}", str(seed)) else seed
    chance = random.Random(seed)
    picked = [order[(day * most + at) % len(order)] for at in range(most)]
    chosen_cells: list[Cell] = []
    for fault in picked:
        of_it = [cell for cell in from_these if cell.fault is fault]
        healing_cells = [cell for cell in of_it if cell.healing]
        due = sum(cell.healing is not None for cell in chosen_cells) < HEALING_A_DAY
        chosen_cells.append(chance.choice((healing_cells if due else []) or of_it))
    return chosen_cells


def go_through(cell: Cell, scene: Scene, innocents: Innocents) -> None:
    """Reach the stage, let the fault strike, and see that all holds that has to."""
    scene.at = cell.stage.at
    outcome = Outcome(cell)
    MATRIX.outcomes.append(outcome)
    began = time.monotonic()
    undo = Once(cell.fault.undo)
    try:
        _go_through(cell, scene, innocents, outcome, undo)
        outcome.passed = True
    finally:
        with suppress(Exception):  # the next cell has hosts as they were, whatever happened in this one
            undo(scene)
        with suppress(Exception):
            cell.stage.release(scene)
        cell.fault.after(scene)
        outcome.whole_seconds = time.monotonic() - began


class Once:
    """Undoes a fault, the first time that it is asked to."""

    def __init__(self, undo: Callable[[Scene], None]) -> None:
        self._undo: Callable[[Scene], None] | None = undo

    def __call__(self, scene: Scene) -> None:
        undo, self._undo = self._undo, None
        if undo is not None:
            undo(scene)


def _go_through(cell: Cell, scene: Scene, innocents: Innocents, outcome: Outcome, undo: Once) -> None:
    fault, stage = cell.fault, cell.stage
    fault.prepare(scene)
    if stage.name == WHOLE:
        fault.strike(scene)
        stage.reach(scene)
    else:
        stage.reach(scene)
        scene.before = scene.everywhere()
        fault.strike(scene)
    struck = time.monotonic()
    if cell.healing:
        healing.heal(scene, cell.healing, undo)
        outcome.seconds = time.monotonic() - struck
        pretend_reuse(scene, innocents)
        scene.start("stop").end(0)
        healing.assert_gone(scene)
        nothing_is_left_after_cleanup(scene)
        assert innocents.harmed() == []
        return
    if not (fault.held and stage.name == LOADING):
        stage.release(scene)
    if scene.command is not None:
        ended = scene.command.end(None, fault.within + 60)
        outcome.code, outcome.seconds = ended.code, time.monotonic() - struck
    stage.release(scene)
    if scene.command is not None:
        judge(ended, outcome, cell)
    pretend_reuse(scene, innocents)
    status_tells_the_truth(scene, fault)
    stop_does_what_it_says(scene, fault)
    undo(scene)
    nothing_is_left_after_cleanup(scene)
    assert innocents.harmed() == []
    scene.start("run").end(0)
    assert scene.answers()
    nothing_is_left_after_cleanup(scene)
    assert innocents.harmed() == []


def judge(ended: Result, outcome: Outcome, cell: Cell) -> None:
    """In time, with the right exit status, naming host and cause, and no traceback."""
    assert outcome.seconds <= cell.fault.within, f"took {outcome.seconds:.1f} s\n{ended.said}"
    assert ended.code in cell.fault.exits(cell.stage.name), f"exit status {ended.code}\n{ended.said}"
    assert "Traceback" not in ended.said, ended.said
    assert "internal error" not in ended.said, ended.said
    if ended.code not in (0, -9):
        assert re.search(cell.fault.says, ended.said), ended.said


def pretend_reuse(scene: Scene, innocents: Innocents) -> None:
    """Have the records name processes that are not ours: one that got the pid later, one of another boot."""
    for index, host in enumerate(scene.lab.hosts):
        if not host.alive or "python" in scene.kept or host.run("test -w /root", check=False).returncode:
            continue
        (one, start), (other, begun) = innocents.of(index)[:2]
        entry = "dict(role='engine', script='x', log='', pid={}, start_ticks={}, boot_id={})"
        boot = "open('/proc/sys/kernel/random/boot_id').read().strip()"
        later, earlier = entry.format(one, start - 1, boot), entry.format(other, begun, "'another'")
        if host.run("dd if=/dev/zero of=/root/probe bs=8k count=1", check=False).returncode == 0:
            scene.record(host, f"known['processes'] += [{later}, {earlier}]")
        host.run("rm -f /root/probe")


def status_tells_the_truth(scene: Scene, fault: Fault) -> None:
    """UNKNOWN for a host that can't be asked, and no other; processes as they are; ready only what answers."""
    texts: dict[str, str] = {}

    def true() -> bool:
        result = scene.start("status", "--json").end(None, 100)
        assert "Traceback" not in result.said, result.said
        texts["last"] = result.said
        return _is_true(result, scene, fault)

    assert eventually(true, within=30.0), texts["last"]


def _is_true(result: Result, scene: Scene, fault: Fault) -> bool:
    status = result.json
    hosts = {host["host"]: host for host in status["hosts"]}
    unasked = fault.lost or "python" in scene.kept
    for index, host in enumerate(scene.lab.hosts):
        seen = hosts[host.name]
        if unasked and index == scene.at:
            if seen["state"] != "UNKNOWN" or result.code == 0:
                return False
        elif seen["state"] == "UNKNOWN" or seen["processes"] != len(scene.processes(host)):
            return fault.name == "host at 1 kB/s" and seen["state"] == "UNKNOWN"
        if seen["uptime"] is not None and seen["uptime"] < 0:
            return False
    if status["state"] == "ready":
        return scene.answers() and not fault.spoiled
    return True


def stop_does_what_it_says(scene: Scene, fault: Fault) -> None:
    """Also while the fault lasts: it ends what it can reach, and exits with 0 only where nothing is left."""
    result = scene.start("stop").end(None, 200)
    assert "Traceback" not in result.said, result.said
    unasked = fault.lost or "python" in scene.kept
    left = {host.name: scene.processes(host) for host in scene.lab.hosts}
    if unasked:
        assert result.code in (1, 3), result.said
        assert re.search(rf"{scene.host.name}: .*(UNKNOWN|[Pp]ython)", result.said), result.said
        assert left[scene.lab.hosts[1 - scene.at].name] == [], result.said
    elif fault.name == "host at 1 kB/s":
        assert result.code or not any(left.values()), result.said
    else:
        assert left == {host.name: [] for host in scene.lab.hosts}, result.said
        assert result.code in (0, 1), result.said


def nothing_is_left_after_cleanup(scene: Scene) -> None:
    scene.start("cleanup").end(0)
    assert scene.leftovers() == []
    scene.before = []


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the matrix in Markdown: exit status and seconds to the command's end; a dash for senseless cells."""
    seen = {(outcome.cell.fault.name, outcome.cell.stage.name): outcome for outcome in outcomes}
    head = ["fault", *(stage.name for stage in STAGES)]
    rows = [[fault.name, *(_shown(seen.get((fault.name, stage.name)), fault, stage) for stage in STAGES)]
            for fault in FAULTS if any(name == fault.name for name, _ in seen)]  # fmt: skip
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [head, *rows]]
    ruler = ["-" * width for width in widths]
    return [f"| {' | '.join(line)} |" for line in [lines[0], ruler, *lines[1:]]]


def reasons(faults: Iterable[Fault] = FAULTS) -> list[str]:
    """Why cells are left out, by fault."""
    return [
        f"{fault.name}: {', '.join(f'{stage}: {why}' for stage, why in fault.why_not.items())}"
        for fault in faults
        if fault.why_not
    ] + [f"{name}: where it restarts what dies: {why}" for name, why in healing.NOT_STRUCK.items()]


def _shown(outcome: Outcome | None, fault: Fault, stage: Stage) -> str:
    if outcome is None:
        return "·" if stage.name in fault.stages or Cell(stage, fault).healing else "–"
    mark = "" if outcome.passed else "FAILED "
    code = "" if outcome.code is None else f"{outcome.code}, {outcome.seconds:.0f} s"
    if expected := outcome.cell.healing:
        code = f"{expected.shown}, {outcome.seconds:.0f} s"
    return f"{mark}{code or 'ok'}"
