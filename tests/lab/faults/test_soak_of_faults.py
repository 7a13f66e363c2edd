"""Faults by chance, one after another, on one deployment with `deploy.restart`: it serves after each, nothing piles up.

`FSD_FAULTS=all` lets 50 strike a deployment over Ray, and 50 a group of ranks without Ray; CI lets three strike one of
them. FSD_FAULTS_SEED repeats a choice, which is printed.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.lab import Host
from tests.lab.faults import faults
from tests.lab.faults.healing import (
    HANG,
    LOST,
    RESTARTS,
    Healing,
    assert_gone,
    history,
    is_healed,
    last_words,
    serve_with,
    without_cron,
)
from tests.lab.faults.matrix import MATRIX, nothing_is_left_after_cleanup
from tests.lab.faults.scene import NAME, Innocents, Scene, pause
from tests.lab.faults.test_soak import on_host
from tests.lab.leftovers import inspect
from tests.lab.product.operator import eventually

ALL = os.environ.get("FSD_FAULTS") == "all"
TODAY = int(time.strftime("%Y%m%d", time.gmtime()))
SEED = int(os.environ.get("FSD_FAULTS_SEED") or (TODAY if ALL else 100 + TODAY % 2))
"""CI takes two choices in turn: what it has not drawn before is for `make faults`."""
STRIKES = 50 if ALL else 3
RESET_AFTER, SLACK = 10.0, 3.0
MOST = RESTARTS["max"]
WAYS = {"Ray": False, "group": True}
HELD = """
import json, os, sys
print(json.dumps({pid: [len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))]
                  for pid in sys.argv[1:] if os.path.exists(f"/proc/{pid}/fd")}))
"""
KEPT_LATER = re.compile(r"/(history\.(jsonl|lock)|boot\.log|evidence/.*|ray/.*|.*\.pyc)$")
"""Files that come and go with certain faults; `evidence` has five folders at most."""


@dataclass(frozen=True)
class Strike:
    """A fault at a host, and how many restarts of the instance it costs."""

    name: str
    act: Callable[[Scene], None]
    at: int
    restarts: int = 1


def cut_for_long(scene: Scene) -> None:
    faults.cut(scene)
    pause(LOST + 6)
    faults.join(scene)


def ask_engine_to_end(scene: Scene) -> None:
    scene.engine_host.run(["kill", str(scene.engine()["pid"])])


EITHER = (
    Strike("engine killed", faults.kill_engine, 0),
    Strike("SIGTERM to engine", ask_engine_to_end, 0),
    Strike("core killed", faults.kill_worker, 0),
    Strike("engine hangs", faults.hang, 0),
    Strike("/tmp cleaned, engine killed", faults.clean_tmp_and_kill_engine, 0),
    Strike("connections dropped", faults.drop_connections, 0, restarts=0),
    Strike("cable cut and joined", faults.cut_and_join, 1, restarts=0),
)
ON_RAY = (
    Strike("raylet killed", faults.kill_daemon("raylet"), 0),
    Strike("GCS killed", faults.kill_daemon("gcs_server"), 0),
    Strike("worker's raylet killed", faults.kill_daemon("raylet"), 1, restarts=0),
    Strike("worker rebooted", faults.reboot, 1, restarts=0),
)
IN_GROUP = (
    Strike("follower killed", faults.kill_engine, 1),
    Strike("follower's core killed", faults.kill_worker, 1),
    Strike("follower cut off", cut_for_long, 1),
    Strike("driver cut off", cut_for_long, 0),
    Strike("follower rebooted", faults.reboot, 1),
)


@dataclass
class Soak:
    """What has struck, when, and what was counted so far."""

    scene: Scene
    strikes: list[tuple[Strike, float]] = field(default_factory=list)

    @property
    def restarts(self) -> int:
        return sum(strike.restarts for strike, _ in self.strikes)

    @property
    def in_a_row(self) -> int:
        """The restarts in a row that still count: of the instance or of a Ray node, whichever has more."""
        servers = (history(self.scene), history(self.scene, 0, "ray-head"), history(self.scene, 1, "ray-worker"))
        since = time.time() - RESET_AFTER - SLACK
        return max((events[-1]["attempt"] for events in servers if events and events[-1]["time"] > since), default=0)

    def go_through(self, strike: Strike) -> None:
        """Let it strike, and wait until the deployment serves again, with every restart counted."""
        self.scene.at = strike.at
        self.strikes.append((strike, time.time()))
        strike.act(self.scene)
        seen: dict[str, Any] = {}

        def healed() -> bool:
            seen["status"] = self.scene.start("status", "--json").end(None, 100).json
            return is_healed(self.scene, Healing(self.restarts), seen["status"])

        names = [passed.name for passed, _ in self.strikes]
        assert eventually(healed, 120, every=0.3), f"{names}\n{json.dumps(seen, indent=1)}\n{last_words(self.scene)}"

    def assert_budget(self) -> tuple[int, int]:
        """Assert that every restart is in the history, and counts on from the one before unless health lay in between.

        Return how many counted on, and how many began anew.
        """
        events = history(self.scene)
        times = [struck for strike, struck in self.strikes if strike.restarts]
        restarting = [event for event in events if event["event"] == "restarting"]
        restored = [event["time"] for event in events if event["event"] == "restored"]
        assert len(restarting) == len(restored) == len(times), events
        counted, anew = 0, 0
        for at in range(1, len(restarting)):
            before, attempt = restarting[at - 1]["attempt"], restarting[at]["attempt"]
            end = times[at] if restarting[at]["reason"].startswith("hung") else restarting[at]["time"]
            assert attempt in (1, before + 1), events
            if times[at] - restored[at - 1] >= RESET_AFTER + SLACK:
                assert attempt == 1, (self.strikes[at], events)
                anew += 1
            elif end - restored[at - 1] < RESET_AFTER - SLACK:
                assert attempt == before + 1, (self.strikes[at], events)
                counted += 1
        return counted, anew


def held(host: Host) -> Any:
    """Return the deployment's processes with their descriptors and threads, its ports and its files."""
    inspection = inspect(host, NAME)
    pids = {str(process.pid): re.sub(r"\d+", "N", process.command) for process in inspection.processes}
    numbers = json.loads(host.run(["python3", "-c", HELD, *pids]).stdout)
    processes = sorted([pids[pid], *numbers[pid]] for pid in numbers)
    paths = [path for path in on_host(host)["files"] if not KEPT_LATER.search(path) and not path.startswith("/run/")]
    return {"processes": processes, "ports": inspection.ports, "files": sorted(paths)}


def difference(before: dict[str, list[Any]], after: dict[str, list[Any]]) -> list[Any]:
    """Return what is no longer there of each kind, and what is there since."""
    return [
        (
            [item for item in before[kind] if item not in after[kind]],
            [item for item in after[kind] if item not in before[kind]],
        )
        for kind in before
    ]


@pytest.mark.timeout(3600 if ALL else 600)
@pytest.mark.parametrize("way", WAYS if ALL else [list(WAYS)[SEED % 2]])
def test_it_serves_after_each_fault_and_counts_its_restarts(way: str, scene: Scene, innocents: Innocents) -> None:
    chance, group, began = random.Random(f"{SEED} {way}"), WAYS[way], time.monotonic()
    serve_with({**RESTARTS, "reset_after": RESET_AFTER}, group=group)(scene)
    soak = Soak(scene)
    try:
        soak.go_through(EITHER[0])
        first = [held(host) for host in scene.lab.hosts]
        for _ in range(STRIKES - 1):
            if soak.in_a_row == MOST or chance.random() < 0.4:
                pause(RESET_AFTER + SLACK)
            soak.go_through(chance.choice((*EITHER, *(IN_GROUP if group else ON_RAY))))
        pause(HANG)  # nothing more comes of the last one
        assert scene.answers()
        counted, anew = soak.assert_budget()
        now: list[Any] = []

        def as_after_the_first() -> bool:
            now[:] = [held(host) for host in scene.lab.hosts]
            return now == first

        assert eventually(as_after_the_first, 30), list(map(difference, first, now))
        for host in scene.lab.hosts:
            folders = host.run("ls -d /root/.flagscale-deploy/*/*/evidence/*", check=False).stdout.split()
            assert len(folders) <= 5
        scene.start("stop").end(0)
        assert_gone(scene)
        nothing_is_left_after_cleanup(scene)
        assert innocents.harmed() == []
    finally:
        MATRIX.notes.append(
            f"soak of {len(soak.strikes)} faults ({way}, FSD_FAULTS_SEED={SEED}) in {time.monotonic() - began:.0f} s:"
            f" {soak.restarts} restarts; {', '.join(strike.name for strike, _ in soak.strikes)}"
        )
        without_cron(scene)
    assert not ALL or (counted and anew), (counted, anew)
