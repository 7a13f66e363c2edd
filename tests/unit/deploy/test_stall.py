"""Whose start stands still, by logs and processes, with a clock that tests turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flagscale_deploy.deploy.stall import Stalls
from flagscale_deploy.remote.messages.run import Stillness
from tests.unit.deploy.given import HOSTS, Heard
from tests.unit.plan.given import inventory, model, planned, spec

LIMIT = 30.0
SPANNING = planned(inventory(*HOSTS), spec(model(tp=16, port=4567)))
TWO = planned(inventory(*HOSTS), spec(model("one", tp=4, port=4567), model("two", tp=4, port=4568), ray="off"))


class Bench:
    """Stalls of a plan, and what was said."""

    def __init__(self, plan: Any) -> None:
        self.now = 0.0
        self.heard = Heard()
        self.stalls = Stalls(plan.instances, LIMIT, self.heard, lambda: self.now)

    def at(self, now: float, host: str, groups: Mapping[str, tuple[float, float]], *stopped: str) -> list[str]:
        """Return the events after a host reported since when its processes have not read, and not used CPU time."""
        self.now = now
        activity: dict[str, Stillness] = {
            script: {"read": now - read, "used": now - used, "stopped": list(stopped)}
            for script, (read, used) in groups.items()
        }
        before = len(self.heard.events)
        self.stalls.note_activity(host, activity)
        return [event.text for event in self.heard.events[before:]]


def test_nothing_is_said_of_a_load_that_reads_or_logs_within_the_time() -> None:
    bench = Bench(SPANNING)
    for now in range(0, 200, 10):
        assert bench.at(now, "gpu02", {"": (max(0.0, now - 29.0), 0.0)}) == []
        assert bench.at(now, "gpu01", {"": (0.0, 0.0)}) == []
    bench.now = 200.0
    bench.stalls.note_output("qwen/0")
    assert bench.at(229.0, "gpu02", {"": (190.0, 0.0)}) == []


def test_one_child_that_spins_hides_no_stall() -> None:
    bench = Bench(SPANNING)
    bench.at(0.0, "gpu01", {"": (0.0, 0.0)})
    texts = bench.at(31.0, "gpu02", {"": (0.0, 31.0)})
    activity = "CPU is in use on gpu02: it compiles, or waits in a loop"
    assert texts == [f"no log line and no data read on gpu01, gpu02 for 31 s; {activity}"]
    assert bench.at(40.0, "gpu02", {"": (0.0, 40.0)}) == []
    (still,) = bench.at(71.0, "gpu02", {"": (0.0, 40.0)}, "ray::RayWorkerProc")
    assert still.startswith("no progress on gpu02: no log line, no data read, no CPU time used for ")
    assert still.endswith("(ray::RayWorkerProc on gpu02 is stopped, or waits for a disk)")
    assert bench.at(72.0, "gpu02", {"": (0.0, 72.0)}) == []
    assert bench.at(73.0, "gpu02", {"": (73.0, 73.0)}) == ["it makes progress again"]


def test_another_models_log_and_processes_hide_no_stall() -> None:
    bench = Bench(TWO)
    first, second = (instance.script for instance in TWO.instances)
    drivers = {instance.driver for instance in TWO.instances}
    assert drivers == {"gpu01"}
    for now in range(0, 30, 5):
        bench.stalls.note_output("two/0")
        assert bench.at(now, "gpu01", {first: (0.0, 0.0), second: (now, now)}) == []
    bench.stalls.note_output("two/0")
    (text,) = bench.at(31.0, "gpu01", {first: (0.0, 0.0), second: (31.0, 31.0)})
    assert text == "one/0: no progress on gpu01: no log line, no data read, no CPU time used for 31 s"
    assert bench.at(32.0, "gpu01", {first: (0.0, 0.0), second: (32.0, 32.0)}) == []
    bench.stalls.note_output("one/0")
    assert bench.heard.events[-1].text == "one/0: it makes progress again"


def test_who_is_ready_may_be_silent() -> None:
    bench = Bench(TWO)
    scripts = [instance.script for instance in TWO.instances]
    bench.stalls.mark_ready("one/0")
    texts = bench.at(99.0, "gpu01", dict.fromkeys(scripts, (0.0, 0.0)))
    assert [text.partition(":")[0] for text in texts] == ["two/0"]


def test_before_any_host_has_told_nothing_is_known() -> None:
    bench = Bench(SPANNING)
    bench.now = 99.0
    bench.stalls.note_output("a router")
    assert bench.heard.events == []
