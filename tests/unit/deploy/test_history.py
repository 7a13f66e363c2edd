"""The histories of several hosts as one."""

from __future__ import annotations

import json
import time
from typing import Any, cast

import pytest

from flagscale_deploy.deploy.history import LAST_TIME, LONGEST, LONGEST_ARGV, MOST_EVENTS, Change, History, read_history
from flagscale_deploy.errors import UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.output.console import Console
from flagscale_deploy.output.history import show_history
from flagscale_deploy.remote.messages.history import HistoryEvent
from tests.fakes import FakeFleet
from tests.unit.deploy.given import answering


def event(kind: str, at: float, **more: Any) -> HistoryEvent:
    return cast(
        HistoryEvent,
        {
            "schema": 1,
            "deployment": "qwen",
            "host": "x",
            "event": kind,
            "server": "",
            "reason": "",
            "time": at,
            **more,
        },
    )


def run(run_id: str, at: float, *argv: str, by: str = "ann@desk") -> HistoryEvent:
    return event("run", at, run_id=run_id, by=by, argv={"q/0": ["vllm", "serve", "/m", *argv]})


def read(**events: list[HistoryEvent]) -> History:
    def history(host: Host, _args: dict[str, Any]) -> Any:
        yield {"events": events[host.name][:1]}
        yield {"events": events[host.name][1:]}

    return read_history(FakeFleet(answering(history=history), list(events)), "qwen", "gpu01")


def changes(history: History) -> list[tuple[str, tuple[str, ...], float | None]]:
    return [(change.event, change.hosts, change.took) for change in history.changes]


def test_what_all_hosts_of_a_run_have_is_one_change() -> None:
    history = read(
        gpu02=[run("r1", 11.0, by="liar"), event("stopped", 52.0, run_id="r1", by="liar")],
        gpu01=[
            run("r1", 10.0),
            event("ready", 30.0, server="q/0", run_id="r1"),
            event("stopped", 50.0, run_id="r1", by="bob from 10.0.0.9"),
        ],
    )
    assert changes(history) == [
        ("run", ("gpu01", "gpu02"), None), ("ready", ("gpu01",), 20.0), ("stopped", ("gpu01", "gpu02"), 42.0),
    ]  # fmt: skip
    assert [change.by for change in history.changes] == ["ann@desk", "", "bob from 10.0.0.9"], "the head's word"


def test_a_run_says_what_it_changed() -> None:
    first, second, third = (change for change in read(
        gpu01=[
            run("r1", 1.0, "--port", "8000", "--max-model-len", "4096"),
            run("r2", 2.0, "--port", "8000", "--max-model-len", "8192", "--enforce-eager"),
            event("run", 3.0, run_id="r3", by="", argv={"q/1": ["vllm"]}),
        ]
    ).changes)  # fmt: skip
    assert first.changed == ()
    assert second.changed == (
        "- q/0: --max-model-len 4096", "+ q/0: --max-model-len 8192", "+ q/0: --enforce-eager",
    )  # fmt: skip
    assert third.changed == ("- q/0", "+ q/1")


def update(kind: str, run_id: str, at: float, reason: str = "q/0: --port 1 → 2", **more: Any) -> HistoryEvent:
    return event(kind, at, **{"run_id": run_id, "by": "bob@desk", "reason": reason, "took": 7.5, **more})


def test_an_update_is_a_configuration_with_what_it_changed() -> None:
    lines = "q/0: --port 1 → 2\nq/1: added"
    history = read(
        gpu02=[run("r1", 1.0), update("updated", "u1", 20.0, "lies", by="eve", took=9e9), run("r2", 41.0)],
        gpu01=[
            run("r1", 1.0), update("updated", "u1", 21.0, lines),
            event("ready", 20.5, run_id="u1", server="q/0", took=4.0),
            event("restarting", 25.0, server="q/0"), update("put back", "u2", 30.0, "q/0: x\nno token", by="eve"),
            event("stopped", 31.0, run_id="r1"), run("r2", 40.0, "--a"),
        ],
    )  # fmt: skip
    second = history.changes[2]
    assert (second.event, second.hosts, second.time) == ("updated", ("gpu01", "gpu02"), 21.0)
    assert (second.number, second.by, second.took) == (2, "bob@desk", 7.5)
    assert (second.changed, second.reason) == (tuple(lines.splitlines()), "")
    assert history.changes[1].took == 4.0, "since its process began: the run began long before"
    assert (history.changes[4].event, history.changes[4].reason) == ("put back", "q/0: x\nno token")
    assert history.runs == history.numbered == ("r1", "u1", "r2")
    assert [history.named(word) for word in ("2", "u", "u1", "3")] == ["u1", "u1", "u1", "r2"]
    assert [history.before(run_id) for run_id in history.runs] == [None, "r1", "u1"]
    assert [change.event for change in history.of_run("u1").changes] == ["ready", "updated", "restarting"]
    assert [change.event for change in history.of_run("r1").changes] == ["run", "stopped"]


def test_an_update_that_the_head_does_not_have_counts_for_nothing() -> None:
    lies = [update("updated", "r2", 1.5), update("updated", "forged", 2.5), event("failed", 2.6, run_id="r2")]
    ready = [event("ready", at, run_id=run_id, server="q/0") for at, run_id in ((1.1, "r1"), (3.1, "r2"))]
    history = read(gpu02=lies, gpu01=[run("r1", 1.0), *ready, run("r2", 3.0)])
    forged = [change for change in history.changes if change.event == "updated"]
    assert [(change.number, change.changed) for change in forged] == [(None, ())] * 2
    assert (history.numbered, history.served) == (("r1", "r2"), ("r1", "r2"))
    assert (history.before("r2"), history.named("r2"), history.named("2")) == ("r1", "r2", "r2")


def test_a_rollback_goes_back_to_what_has_served() -> None:
    def ready(run_id: str, at: float) -> HistoryEvent:
        return event("ready", at, run_id=run_id, server="q/0")

    history = read(
        gpu01=[
            run("r1", 1.0), ready("r1", 2.0), update("updated", "u1", 3.0), update("put back", "u2", 4.0),
            ready("u3", 4.5), update("update failed", "u3", 5.0), event("stopped", 6.0, run_id="r1"),
            run("never ready", 7.0), event("stopped", 8.0, run_id="never ready"),
            run("failed", 9.0), ready("failed", 9.5), event("failed", 10.0, run_id="failed"),
            run("r4", 11.0), update("update failed", "u5", 13.0), update("updated", "u5", 14.0),
        ],
        gpu02=[ready("r4", 12.0)],
    )  # fmt: skip
    assert history.served == ("r1", "u1", "r4", "u5")
    assert read(gpu01=[]).served == ()


@pytest.mark.parametrize("took", [-5.0, 1.7e308])
def test_what_a_host_says_of_an_update_is_bounded_and_shown(took: float, capsys: pytest.CaptureFixture[str]) -> None:
    reason = "\n".join(f"q/{number}: \x1b[31m--port 1" for number in range(900))
    events = [update("updated", "u1", 2.0, reason, took=took), update("update failed", "u2", 3.0, reason + "\nlast")]
    history = read(gpu01=[run("r1", 1.0), *events])
    _, updated, failed = history.changes
    assert updated.took == min(max(took, 0.0), LAST_TIME)
    assert sum(map(len, updated.changed)) + len(failed.reason) <= 2 * LONGEST
    show_history(Console(), history, whole=False)
    shown = capsys.readouterr().out
    assert ("updated 2" in shown, "more changes: `history u1`" in shown, "\x1b" in shown) == (True, True, False)
    assert len(shown.splitlines()) < 40
    json.loads(json.dumps(history.json(), allow_nan=False))


def test_restarts_belong_to_the_run_before_them() -> None:
    history = read(
        gpu01=[
            run("r1", 1.0),
            event("restarting", 5.0, server="q/0", reason="was ended by SIGKILL", attempt=1, max=5, evidence="/e"),
            event("restored", 9.0, server="q/0", reason="was ended by SIGKILL", attempt=1, max=5, evidence=""),
            event("failed", 10.0, run_id="r1", reason="no token"),
            run("r2", 11.0),
        ]
    )
    own = history.of_run("r1")
    assert changes(own) == [
        ("run", ("gpu01",), None), ("restarting", ("gpu01",), None), ("restored", ("gpu01",), 4.0),
        ("failed", ("gpu01",), 9.0),
    ]  # fmt: skip
    assert (own.changes[1].evidence, own.changes[3].reason) == ("/e", "no token")
    assert [change.run_id for change in history.of_run("r2").changes] == ["r2"]
    assert history.of_run("r3").changes == ()


def test_a_host_that_cannot_be_asked_is_named() -> None:
    fleet = FakeFleet(
        answering(history=lambda *_: iter([{"events": [run("r1", 1.0)]}])),
        ["gpu01", "gpu02"],
        refused={"gpu02": UnreachableError("gpu02", "no answer")},
    )
    history = read_history(fleet, "qwen", "gpu01")
    assert (history.unknown, history.exit_code) == ({"gpu02": "no answer"}, 3)
    assert history.json()["unknown"] == {"gpu02": "no answer"}
    assert isinstance(history.changes[0], Change)


def test_a_host_decides_neither_a_run_s_command_lines_nor_its_time_for_others() -> None:
    history = read(
        gpu01=[run("r1", 9000.0, "--a"), event("stopped", 9050.0, run_id="r1"), run("r2", 9900.0, "--b")],
        gpu02=[run("r1", 0.0, "--evil"), event("stopped", 1e18, run_id="r1"), run("forged", 9500.0, "--evil")],
    )
    runs = {change.run_id: change for change in history.changes if change.event == "run"}
    assert (runs["r1"].time, runs["forged"].argv, runs["forged"].hosts) == (9000.0, {}, ("gpu02",))
    assert runs["r2"].changed == ("- q/0: --a", "+ q/0: --b")
    (end,) = (change for change in history.changes if change.event == "stopped")
    assert (end.time, end.took) == (9050.0, 50.0)


def test_a_head_without_a_part_leaves_it_to_the_others() -> None:
    end = event("stopped", 30.0, run_id="r2")
    history = read(gpu01=[end], gpu02=[run("r1", 10.0, "--a"), run("r2", 20.0, "--b"), end])
    assert history.changes[1].changed == ("- q/0: --a", "+ q/0: --b")


def test_a_host_s_history_costs_what_a_host_keeps() -> None:
    """Of two command lines with 350,000 flags, each would be looked for among all of the other's."""
    many = [f"-{number}" for number in range(100_000)]
    began = time.thread_time()
    history = read(
        gpu01=[run("r1", 1.0, *many), run("r2", 2.0, *reversed(many)), event("ready", 3.0, reason="x" * 9999)]
    )
    assert [len(str(change)) < 9000 for change in history.changes] == [True] * 3
    pairs = [word for number in range(8000) for word in ("-a", f"{number}")][: LONGEST_ARGV // 8]
    read(gpu01=[run("r1", 1.0, *pairs), run("r2", 2.0, "-b", *pairs), *[event("ready", 3.0)] * 3000])
    assert time.thread_time() - began < 30
    history = read(gpu01=[event("ready", float(number)) for number in range(3000)])
    assert len(history.changes) == MOST_EVENTS


def test_a_host_s_clock_is_taken_as_one_of_a_calendar() -> None:
    history = read(gpu01=[run("r1", -1.7e308), event("ready", 1.7e308), event("stopped", 1.7e308, run_id="r1")])
    assert {change.time for change in history.changes} == {0.0, LAST_TIME}
    show_history(Console(), history, whole=True)
    json.loads(json.dumps(history.json(), allow_nan=False))


def test_no_host_moves_another_ones_restarts_into_a_run_that_it_makes_up() -> None:
    ended = {"server": "q/0", "reason": "was ended", "attempt": 1, "max": 5, "evidence": ""}
    lies = [run(f"forged{at}", 10.0 + at) for at in range(0, 90, 2)]
    history = read(
        gpu02=[*lies, event("restarting", 50.5, **{**ended, "server": "q/1"})],
        gpu01=[run("r1", 9.0), event("restarting", 41.0, **ended), event("restored", 43.0, **ended), run("r2", 60.0)],
    )
    assert [change.event for change in history.of_run("r1").changes] == ["run", "restarting", "restored"]
    assert [change.run_id for change in history.of_run("r2").changes] == ["r2"]
    assert [history.named(word) for word in ("1", "2", "r2", "forged88")] == ["r1", "r2", "r2", "forged88"]
    assert {change.number for change in history.changes if change.run_id.startswith("forged")} == {None}


def test_restarts_of_a_host_whose_own_run_is_forgotten_belong_to_the_heads() -> None:
    ended = event("restarting", 5.0, server="q/1", reason="", attempt=1, max=5, evidence="")
    for first, of_run in (([run("r1", 1.0)], 2), ([], 0)):
        history = read(gpu01=[*first, event("ready", 2.0, server="q/0", run_id="r1")], gpu02=[ended])
        assert len([change for change in history.of_run("r1").changes if change.event != "ready"]) == of_run


@pytest.mark.parametrize("at", [1e18, 1000.0, -1e18])
@pytest.mark.parametrize("kind", ["run", "ready", "restarting", "stopped", "restored"])
def test_no_host_pushes_what_others_say_out_of_the_newest_changes(at: float, kind: str) -> None:
    lies = [event(kind, at, run_id=f"forged{number}", server="q/1") for number in range(1000)]
    own = [run("r1", 1.0), *(event("ready", 2.0 + number, server="q/0", run_id="r1") for number in range(24))]
    history = read(gpu02=lies, gpu01=own)
    for number in (50, 80):
        shown = history.last(number).changes
        assert len(shown) == number
        assert [change.hosts for change in shown].count(("gpu01",)) == 25
        assert [change.time for change in shown] == sorted(change.time for change in shown)


def test_the_newest_changes_are_the_newest_where_hosts_have_few() -> None:
    history = read(gpu01=[run("r1", 1.0)], gpu02=[event("ready", 2.0 + at, server="q/1") for at in range(9)])
    assert [change.time for change in history.last(4).changes] == [1.0, 8.0, 9.0, 10.0]
    alone = read(gpu01=[event("ready", float(at), server="q/0") for at in range(9)])
    assert [change.time for change in alone.last(4).changes] == [5.0, 6.0, 7.0, 8.0]
    for number in range(12):
        assert len(history.last(number).changes) == min(number, 10)
    assert read(gpu01=[]).last(50).changes == ()


def test_without_the_head_command_lines_are_what_all_hosts_of_a_run_have() -> None:
    def history(host: Host, _args: dict[str, Any]) -> Any:
        second = run("r2", 2.0, "--evil" if host.name == "gpu03" else "--b")
        yield {"events": [run("r1", 1.0, "--a"), second]}

    lost = {"gpu01": UnreachableError("gpu01", "no answer")}
    fleet = FakeFleet(answering(history=history), ["gpu01", "gpu02", "gpu03"], refused=lost)
    first, second = read_history(fleet, "qwen", "gpu01").changes
    assert (first.argv, second.argv) == ({"q/0": ["vllm", "serve", "/m", "--a"]}, {})
