"""Which processes are a deployment's, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from flagscale_deploy.remote.deployment import processes
from flagscale_deploy.remote.deployment.processes import Recorded
from flagscale_deploy.remote.system import proc
from flagscale_deploy.remote.system.proc import MARKER
from tests.component.remote.living import LOSE_ENVIRONMENT, SLEEP, Household, birth, runs, wait_until
from tests.other_user import needs_root

FORK = "import os, time, sys\n"
TELL_AND_SLEEP = "print(os.getpid(), flush=True)\ntime.sleep(600)"


def found(marker: str, recorded_before: tuple[Recorded, ...] = ()) -> set[int]:
    return {process.pid for process in processes.ours(proc.scan(), marker, recorded_before)}


def recorded(pid: int, role: str = "engine") -> Recorded:
    return Recorded(role, pid, birth(pid)["start_ticks"])


def test_a_marked_process_is_ours_and_one_with_the_same_command_line_is_not(people: Household, deployment: str) -> None:
    (mine,) = people.python(SLEEP, f"{deployment}/r1")
    (other,) = people.python(SLEEP)
    (another_run,) = people.python(SLEEP, f"{deployment}/r2")
    (longer_name,) = people.python(SLEEP, f"{deployment}-2/r1")
    (nested_name,) = people.python(SLEEP, f"{deployment}/nested/r1")
    assert found(f"{deployment}/") == {mine, another_run}
    assert found(f"{deployment}/r1") == {mine}
    assert not {other, longer_name, nested_name} & found(f"{deployment}/")


def test_a_child_that_lost_its_environment_in_a_session_of_its_own_is_ours_by_descent(
    people: Household, deployment: str
) -> None:
    child = f"{FORK}os.setsid()\n{LOSE_ENVIRONMENT}\nprint(os.getpid(), flush=True)\ntime.sleep(600)"
    parent = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    mine, renamed = people.python(parent, f"{deployment}/r1")
    assert next(process for process in proc.scan() if process.pid == renamed).marker == ""
    assert found(f"{deployment}/") == {mine, renamed}


def leave_orphans(*environments: str) -> str:
    """Run a session leader that ends, leaving an orphan for each `env` prefix; each prints its pid before the next."""
    child = f"[sys.executable, '-c', {FORK + TELL_AND_SLEEP!r}]"
    start = "subprocess.Popen({words} + " + child + ", stdout=subprocess.PIPE)"
    relay = "print(int({start}.stdout.readline()), flush=True)\n"
    return "import subprocess, sys\n" + "".join(
        relay.replace("{start}", start.replace("{words}", repr(words.split()))) for words in environments
    )


def test_an_orphan_without_environment_is_ours_by_the_recorded_leader_of_its_session(
    people: Household, deployment: str
) -> None:
    leader, nameless = people.python(leave_orphans("env -i"), f"{deployment}/r1")
    people.reap(leader)
    assert found(f"{deployment}/") == set()
    assert found(f"{deployment}/", (Recorded("engine", leader, 0),)) == {nameless}


def test_an_orphan_without_environment_is_ours_by_a_marked_one_in_its_session(
    people: Household, deployment: str
) -> None:
    leader, marked, nameless = people.python(leave_orphans("env", "env -i"), f"{deployment}/r1", expect=2)
    people.reap(leader)
    assert found(f"{deployment}/") == {marked, nameless}


def test_an_older_orphan_stays_foreign_when_a_marked_one_shares_its_session(people: Household, deployment: str) -> None:
    mark = f"env {MARKER}={deployment}/r1"
    leader, unmarked, marked = people.python(leave_orphans("env", mark), expect=2)
    people.reap(leader)
    assert found(f"{deployment}/") == {marked}
    assert runs(unmarked)


def test_a_marked_process_makes_nothing_else_of_a_living_foreign_session_ours(
    people: Household, deployment: str
) -> None:
    shell = (
        "sleep 600 & echo $!\n"
        f"{MARKER}={deployment}/r1 sleep 600 & echo $!\n"
        f"export {MARKER}={deployment}/r1\n"
        "sleep 600 & echo $!\nwait"
    )
    leader, unmarked, marked, exported = people.start(["bash", "-c", shell], expect=3)
    # each child has bash's own environment until it has become `sleep`
    wait_until(lambda: found(f"{deployment}/") == {marked, exported})
    assert {leader, unmarked}.isdisjoint(found(f"{deployment}/"))


@needs_root
def test_a_process_of_another_user_is_not_ours_whatever_its_marker(people: Household, deployment: str) -> None:
    argv = ["setpriv", "--reuid=65534", "--clear-groups", "bash", "-c", "echo up; exec sleep 600"]
    (other,) = people.start(argv, f"{deployment}/r1")
    assert found(f"{deployment}/") == set()
    assert runs(other)


@needs_root
def test_a_process_of_another_pid_namespace_is_not_ours_whatever_its_marker(people: Household, deployment: str) -> None:
    inside = f"env {MARKER}={deployment}/r1 sleep 600 & echo up; wait"
    people.start(["unshare", "--pid", "--fork", "--kill-child", "bash", "-c", inside])
    wait_until(lambda: any(process.command == "sleep 600" and process.uid == os.getuid() for process in proc.scan()))
    assert found(f"{deployment}/") == set()


def test_the_program_that_asks_its_ancestors_and_its_session_are_never_ours(people: Household, deployment: str) -> None:
    answer_pids = f"print(*[each.pid for each in processes.ours(proc.scan(), '{deployment}/')])"
    ask = (
        "from flagscale_deploy.remote.deployment import processes\n"
        "from flagscale_deploy.remote.system import proc\n"
        f"{answer_pids}"
    )
    script = f'sleep 600 & echo $!; env -u {MARKER} sleep 600 & echo $!; echo $$; {sys.executable} -c "$ASK"'
    environment = os.environ | {"ASK": ask, MARKER: f"{deployment}/r1"}
    shell = subprocess.Popen(
        ["bash", "-c", f"{script}; kill %1 %2"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    )
    output, _ = shell.communicate(timeout=30)
    marked, _unmarked, _shell, *answer = output.split()
    assert answer == [marked]


def test_a_recorded_process_is_ours_only_with_its_own_start_time(people: Household, deployment: str) -> None:
    (pid,) = people.python(f"{LOSE_ENVIRONMENT}\n{SLEEP}")
    right = recorded(pid)
    assert found(f"{deployment}/", (right,)) == {pid}
    assert found(f"{deployment}/", (right._replace(start_ticks=right.start_ticks - 1),)) == set()


def test_a_family_remembers_an_orphan_whose_parent_has_gone(people: Household, deployment: str) -> None:
    child = f"{FORK}os.setsid()\n{LOSE_ENVIRONMENT}\nprint(os.getpid(), flush=True)\ntime.sleep(600)"
    parent = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    mine, renamed = people.python(parent, f"{deployment}/r1")
    family = processes.Family((), processes.marked(f"{deployment}/"))
    assert {process.pid for process in family.among(proc.scan())} == {mine, renamed}
    os.kill(mine, signal.SIGKILL)
    people.reap(mine)
    assert {process.pid for process in family.among(proc.scan())} == {renamed}
    assert found(f"{deployment}/") == set()


def test_a_record_names_nothing_after_a_clean_stop_or_a_reboot(people: Household) -> None:
    (pid,) = people.python(SLEEP)
    entry: Any = {"role": "engine", **birth(pid)}
    assert processes.recorded({"processes": [entry]}) == [recorded(pid)]
    assert processes.recorded({"processes": [entry], "stopped_at": 1.0}) == []
    for changed in ({"boot_id": "another"}, {"start_ticks": None}):
        other: Any = {**entry, **changed}
        assert processes.recorded({"processes": [other]}) == []


def test_a_signal_reaches_only_the_very_process(people: Household) -> None:
    (pid,) = people.python(SLEEP)
    target = next(process for process in proc.scan() if process.pid == pid)
    assert proc.send(target._replace(start_ticks=target.start_ticks - 1), signal.SIGKILL) == "gone"
    assert runs(pid)
    assert proc.send(target, signal.SIGKILL) == "sent"
    wait_until(lambda: not runs(pid))
    assert proc.send(target, signal.SIGKILL) == "gone"


def test_zombies_are_not_found(people: Household, deployment: str) -> None:
    (pid,) = people.python("print('up', flush=True)", f"{deployment}/r1")
    wait_until(lambda: b") Z " in Path(f"/proc/{pid}/stat").read_bytes())
    assert found(f"{deployment}/") == set()


@needs_root
def test_a_setuid_program_that_another_user_started_with_our_marker_is_not_ours(
    people: Household, deployment: str
) -> None:
    """For an operator who logs in as root: such a program runs as root, in an environment that the other user chose."""
    give_up = "import os, time\n{ids}\nprint('up', flush=True)\ntime.sleep(600)"
    for ids in ("os.setresuid(65534, 0, 0)", "os.setresuid(0, 0, 65534)", "os.setresuid(65534, 0, 65534)"):
        (other,) = people.python(give_up.format(ids=ids), f"{deployment}/r1")
        process = next(process for process in proc.scan() if process.pid == other)
        assert process.marker == "", ids
        assert found(f"{deployment}/") == set(), ids
