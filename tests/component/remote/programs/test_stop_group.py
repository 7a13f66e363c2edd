"""One group of a run is ended, exactly its processes, and may not come back until it is started anew."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from flagscale_deploy.remote.deployment import restart_permits
from flagscale_deploy.remote.system.proc import SCRIPT
from tests.component.remote.living import LOSE_ENVIRONMENT, SLEEP, Home, Household, birth, runs

OURS, OTHERS = "serve_m_0.sh", "serve_m_1.sh"
STUBBORN = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)"
)


def stop(home: Home, **args: Any) -> dict[str, Any]:
    (reply,) = home.run("stop_group", **{"run_id": "r1", "scripts": [OURS], "grace": 5.0, **args})
    return reply


def record(home: Home, **scripts: int) -> None:
    """Write a record with the leaders of two groups' scripts, `ours` and `others`."""
    names = {"ours": OURS, "others": OTHERS}
    entries = [{"role": "engine", **birth(pid), "log": "", "script": names[name]} for name, pid in scripts.items()]
    home.record(processes=entries)


def start(people: Household, home: Home, script: str, code: str = SLEEP, run_id: str = "r1") -> int:
    """Start what a script of a run starts, in a session of its own."""
    mark = f"{SCRIPT}={script}"
    return people.start(["env", mark, sys.executable, "-c", code], f"{home.deployment}/{run_id}")[0]


def test_its_processes_end_and_those_of_other_groups_and_runs_go_on(people: Household, home: Home) -> None:
    ours, others = start(people, home, OURS), start(people, home, OTHERS)
    ray = start(people, home, "ray_head.sh")
    another_run = start(people, home, OURS, run_id="r2")
    record(home, ours=ours, others=others)
    reply = stop(home)
    assert (reply["ended"], reply["killed"], reply["survivors"]) == (1, 0, [])
    assert not runs(ours)
    assert all(map(runs, (others, ray, another_run)))
    assert [process["script"] for process in home.read_record()["processes"]] == [OTHERS]
    assert stop(home)["ended"] == 0


@pytest.mark.parametrize("marked", [True, False], ids=["an orphan by its marks", "a nameless child by its session"])
def test_what_its_leader_left_is_found(people: Household, home: Home, marked: bool) -> None:
    child = "import time; time.sleep(600)"
    spawn = f"import os, subprocess, sys, time\n{'' if marked else LOSE_ENVIRONMENT}\n"
    code = f"{spawn}child = subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session={marked})\n"
    code += "print(child.pid, flush=True)\n" + ("os._exit(0)" if marked else "time.sleep(600)")
    mark = [f"{SCRIPT}={OURS}", sys.executable, "-c", code]
    leader, orphan = people.start(["env", *mark], f"{home.deployment}/r1")
    if marked:
        people.reap(leader)
        home.record(processes=[])
    else:
        record(home, ours=leader)
    assert runs(orphan)
    stop(home)
    assert not runs(orphan)


def test_what_ignores_sigterm_is_killed(people: Household, home: Home) -> None:
    ours = start(people, home, OURS, STUBBORN)
    record(home, ours=ours)
    assert stop(home, grace=0.2)["killed"] == 1
    assert not runs(ours)


def test_its_supervisor_may_not_restart_it_and_those_of_others_may(home: Home) -> None:
    own, other = (restart_permits.Files(home.state, "r1", script) for script in (OURS, OTHERS))
    own.permit()
    other.permit()
    own.write({"state": "gave up"})
    home.record()
    stop(home)
    assert own.forbidden
    assert own.read() is None
    own.permit()
    assert not own.permitted, "what waited for a token while it was stopped permits nothing"
    assert other.permitted
    assert not restart_permits.is_forbidden(home.deployment, home.host, "r1")
    own.begin_anew()
    assert not own.forbidden
    assert not own.permitted


def test_another_run_is_left_alone(people: Household, home: Home) -> None:
    ours = start(people, home, OURS)
    record(home, ours=ours)
    home.stderr = os.open(os.devnull, os.O_WRONLY)
    with home.open("stop_group", run_id="r0", scripts=[OURS], grace=1.0) as program:
        program.communicate(timeout=60)
    assert program.returncode != 0
    assert runs(ours)
