"""Stop, run as a host runs it, against real processes."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote.deployment import processes, terminate
from flagscale_deploy.remote.system.proc import Process
from tests.component.remote.living import LOSE_ENVIRONMENT, SLEEP, Home, Household, birth, messages, runs
from tests.other_user import as_nobody, needs_root


def on_term(act: str) -> str:
    """Return a program that does something when it is asked to end."""
    return (
        "import os, signal, subprocess, sys, time\n"
        f"def asked(*_):\n    {act}\n    sys.exit()\n"
        "signal.signal(signal.SIGTERM, asked)\nprint('up', flush=True)\ntime.sleep(600)"
    )


def append(path: Path, word: str) -> str:
    return f"open({str(path)!r}, 'a').write({word + chr(10)!r})"


STUBBORN = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)"
)


def stop(home: Home, **args: Any) -> list[dict[str, Any]]:
    return home.run("stop", **{"run_id": None, "grace": 5.0, "ray_grace": 5.0, **args})


def stages(replies: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(message["stage"], message["signalled"]) for message in replies if message["event"] == "stage"]


def test_engines_end_before_ray_and_others_live_on(people: Household, home: Home, tmp_path: Path) -> None:
    order = tmp_path / "order"
    slow_end = f"time.sleep(0.3); {append(order, 'engine')}"
    (engine,) = people.python(on_term(slow_end), f"{home.deployment}/r1")
    (ray,) = people.python(on_term(append(order, "ray")), f"{home.deployment}/r1")
    (foreign,) = people.python(SLEEP)
    home.record({"engine": engine, "ray-head": ray})
    replies = stop(home, grace=60.0, ray_grace=60.0)
    assert replies[0] == {"event": "found", "count": 2}
    assert stages(replies) == [("engines", 1), ("ray", 1)]
    assert order.read_text().split() == ["engine", "ray"]
    assert replies[-1]["survivors"] == []
    assert replies[-1]["ended"] == 2
    assert replies[-1]["seconds"] < 60
    assert not runs(engine)
    assert not runs(ray)
    assert runs(foreign)


@pytest.mark.parametrize("ordered", [True, False])
def test_it_waits_with_ray_until_it_is_told_to_go_on(people: Household, home: Home, ordered: bool) -> None:
    (engine,) = people.python(SLEEP, f"{home.deployment}/r1")
    (ray,) = people.python(SLEEP, f"{home.deployment}/r1")
    (home.state / "scripts/after_stop.sh").write_text("exit 0")
    home.record({"engine": engine, "ray-head": ray})
    began = time.monotonic()
    with home.open("stop", run_id=None, grace=5.0, ray_grace=5.0, wait=60.0) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        first = [messages(program.stdout.readline())[0] for _ in range(3)]
        assert [event["event"] for event in first] == ["found", "stage", "waiting"]
        assert first[-1]["ended"] == 1
        assert not runs(engine)
        assert runs(ray)
        assert "stopped_at" not in home.read_record()
        time.sleep(2)
        if ordered:
            program.stdin.write(b'{"go": "on"}\n')
        program.stdin.close()
        rest = messages(program.stdout.read())
        program.wait(30)
    if not ordered:  # the operator has gone
        assert rest == []
        assert runs(ray)
        return
    assert stages(rest) == [("ray", 1)]
    assert (rest[-1]["ended"], rest[-1]["survivors"], rest[-1]["after_stop"]["exit_code"]) == (2, [], 0)
    assert rest[-1]["seconds"] < time.monotonic() - began - 2, "it has waited for 2 s, which are no part of it"
    assert not runs(ray)


def test_it_waits_no_longer_than_it_was_asked_to(people: Household, home: Home) -> None:
    (ray,) = people.python(SLEEP, f"{home.deployment}/r1")
    home.record({"ray-head": ray})
    with home.open("stop", run_id=None, grace=5.0, ray_grace=5.0, wait=0.2) as program:
        assert program.stdout is not None
        assert [message["event"] for message in messages(program.stdout.read())] == ["found", "waiting"]
        program.wait(30)
    assert runs(ray)


def test_what_ignores_sigterm_is_killed_after_the_grace(people: Household, home: Home) -> None:
    (engine,) = people.python(STUBBORN, f"{home.deployment}/r1")
    home.record({"engine": engine})
    replies = stop(home, grace=0.3)
    assert {"event": "killed", "count": 1} in replies
    assert 0.3 <= replies[-1]["seconds"] < 30
    assert not runs(engine)


def test_no_grace_kills_at_once(people: Household, home: Home, tmp_path: Path) -> None:
    (engine,) = people.python(on_term(append(tmp_path / "asked", "x")), f"{home.deployment}/r1")
    home.record({"engine": engine})
    stop(home, grace=0)
    assert not runs(engine)
    assert not (tmp_path / "asked").exists()


def test_what_is_born_during_the_stop_is_ended_too(people: Household, home: Home, tmp_path: Path) -> None:
    born = tmp_path / "born"
    heir = f"import os\nos.setsid()\n{LOSE_ENVIRONMENT}\n{SLEEP}"
    start = f"subprocess.Popen([sys.executable, '-c', {heir!r}])"
    act = f"open({str(born)!r}, 'w').write(str({start}.pid)); time.sleep(1.5)"
    (engine,) = people.python(on_term(act), f"{home.deployment}/r1")
    home.record({"engine": engine})
    replies = stop(home)
    assert replies[-1]["survivors"] == []
    assert replies[-1]["ended"] == 2
    assert not runs(int(born.read_text()))


def test_without_a_record_the_marker_is_enough_and_the_long_grace_holds(people: Household, home: Home) -> None:
    (engine,) = people.python(on_term("time.sleep(0.5)"), f"{home.deployment}/lost")
    replies = stop(home, ray_grace=0)
    assert stages(replies) == [("ray", 1)]
    assert not any(message["event"] == "killed" for message in replies)
    assert not runs(engine)


def test_one_run_is_stopped_and_another_left(people: Household, home: Home) -> None:
    (first,) = people.python(SLEEP, f"{home.deployment}/r1")
    (second,) = people.python(SLEEP, f"{home.deployment}/r2")
    home.record({"engine": first})
    replies = stop(home, run_id="r2")
    assert replies[-1]["ended"] == 1
    assert runs(first)
    assert not runs(second)
    assert "stopped_at" not in home.read_record()


def test_a_stopped_deployment_keeps_logs_and_scripts_and_loses_its_secrets(people: Household, home: Home) -> None:
    (engine,) = people.python(SLEEP, f"{home.deployment}/r1")
    for name in ("secrets/ray_token", "logs/vllm_serve.log", "scripts/vllm_serve.sh"):
        (home.state / name).write_text("x")
    before = home.record({"engine": engine}, digest="sha256:1")
    stop(home)
    after = home.read_record()
    assert {key: after[key] for key in before} == before
    assert abs(after["stopped_at"] - time.time()) < 60
    assert after["stopped_by"].startswith("root" if os.getuid() == 0 else "")
    assert list((home.state / "secrets").iterdir()) == []
    assert (home.state / "logs/vllm_serve.log").exists()
    assert (home.state / "scripts/vllm_serve.sh").exists()


def test_nothing_to_stop_is_no_fault(home: Home) -> None:
    replies = stop(home)
    assert replies[0] == {"event": "found", "count": 0}
    assert stages(replies) == []
    assert replies[-1]["survivors"] == []
    assert replies[-1]["ended"] == 0
    assert replies[-1]["after_stop"] is None


def test_after_stop_runs_once_when_all_is_gone_and_leaves_nothing(people: Household, home: Home) -> None:
    (engine,) = people.python(SLEEP, f"{home.deployment}/r1")
    home.record({"engine": engine})
    (home.state / "scripts/after_stop.sh").write_text(
        f"kill -0 {engine} 2>/dev/null && grep -q 'State:.[RSD]' /proc/{engine}/status && echo too early\n"
        "setsid sleep 600 >/dev/null & echo $!; echo done; exit 3"
    )
    done = stop(home)[-1]
    log = home.state / "logs/after_stop.log"
    left, *replies = log.read_text().split("\n")
    assert replies == ["done", ""]
    assert done["after_stop"] == {"exit_code": 3, "log": str(log)}
    assert done["survivors"] == []
    assert not runs(int(left))
    assert stop(home)[-1]["after_stop"] is None


def test_recorded_ports_that_are_still_held_are_told_with_their_holder(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held, socket.create_server(("127.0.0.1", 0)) as free:
        port, closed = held.getsockname()[1], free.getsockname()[1]
        free.close()
        home.record(ports=[port, closed])
        left = stop(home)[-1]["ports_left"]
    assert [(item["port"], item["pid"]) for item in left] == [(port, os.getpid())]


def test_it_goes_on_when_the_operator_has_gone(people: Household, home: Home) -> None:
    (engine,) = people.python(STUBBORN, f"{home.deployment}/r1")
    home.record({"engine": engine})
    with home.open("stop", run_id=None, grace=0.5, ray_grace=0.5) as program:
        assert program.stdout is not None
        first = program.stdout.readline()
        program.stdout.close()
        program.wait(30)
    assert messages(first) == [{"event": "found", "count": 1}]
    assert not runs(engine)
    assert "stopped_at" in home.read_record()


@needs_root
def test_what_may_not_be_signalled_is_told_as_a_survivor_without_waiting(people: Household) -> None:
    (pid,) = people.python(SLEEP)
    (killable,) = people.python(SLEEP)
    started = {other_pid: birth(other_pid)["start_ticks"] for other_pid in (pid, killable)}

    def end() -> list[Any]:
        family = processes.Family([(pid, started[pid])])
        act = terminate.Termination(family, lambda _: None)
        began = time.monotonic()
        act.end(terminate.Stage("engines", family, 60.0))
        return [act.survivors(family), time.monotonic() - began]

    survivors, seconds = as_nobody(end)
    assert [survivor["pid"] for survivor in survivors] == [pid]
    assert "root" in survivors[0]["why"]
    assert seconds < 30
    assert runs(pid)


def test_daemons_of_ray_are_not_waited_for_and_workers_are(people: Household, home: Home, tmp_path: Path) -> None:
    dashboard = tmp_path / "ray/dashboard/dashboard.py"
    dashboard.parent.mkdir(parents=True)
    dashboard.write_text(STUBBORN)
    order = tmp_path / "order"
    (daemon,) = people.start([sys.executable, str(dashboard)], f"{home.deployment}/r1")
    tidy = f"time.sleep(2 * {terminate.HASTE_SECONDS}); {append(order, 'tidy')}"
    (worker,) = people.python(on_term(tidy), f"{home.deployment}/r1")
    home.record({"ray-head": daemon, "ray-worker": worker})
    replies = stop(home, ray_grace=60.0)
    assert order.read_text().split() == ["tidy"]
    assert replies[-1]["survivors"] == []
    assert replies[-1]["seconds"] < 30
    assert {"event": "killed", "count": 1} in replies
    assert not runs(daemon)
    assert not runs(worker)


def test_a_crontab_that_hangs_keeps_processes_for_five_seconds_at_most(
    people: Household, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "crontab").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "bin" / "crontab").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (engine,) = people.python(SLEEP, f"{home.deployment}/r1")
    home.record({"engine": engine})
    began = time.monotonic()
    with home.open("stop", run_id=None, grace=1.0) as program:
        while runs(engine):
            assert time.monotonic() - began < 30
            time.sleep(0.05)
        output = program.communicate(timeout=30)[0]
    assert messages(output)[-1]["survivors"] == []


def test_of_many_survivors_some_are_listed_and_the_rest_counted() -> None:
    names = [Process(pid, 1, 1, pid, "D", 0, "\x01" * 300, "") for pid in range(1000, 1100)]

    class Everyone(processes.Family):
        def among(self, *_: Any) -> list[Process]:
            return names

    family = Everyone(())
    listed = terminate.Termination(family, lambda _: None).survivors(family)
    assert len(listed) == terminate.MOST_SURVIVORS + 1
    assert listed[-1]["why"] == "80 more are left"
    assert len(json.dumps(listed)) < 48 << 10


@pytest.mark.parametrize("failed", [True, False])
def test_the_record_of_a_run_that_failed_says_when_and_why(people: Household, home: Home, failed: bool) -> None:
    (engine,) = people.python(SLEEP, f"{home.deployment}/r1")
    home.record({"engine": engine})
    failure = {"ago": 40.0, "cause": "gpu02: no space left", "remedy": "make room"}
    stop(home, run_id="r1", **({"failure": failure} if failed else {}))
    kept = home.read_record()
    if not failed:
        assert "failure" not in kept
        return
    assert kept["failure"] == {"at": kept["stopped_at"] - 40.0, "cause": "gpu02: no space left", "remedy": "make room"}
    stop(home)
    assert home.read_record() == kept, "a later stop ends nothing and changes nothing"


def test_the_record_of_another_run_says_nothing_of_this_ones_failure(home: Home) -> None:
    before = home.record(stopped_at=1.0)
    stop(home, run_id="another", failure={"ago": 0.0, "cause": "c", "remedy": ""})
    assert home.read_record() == before
