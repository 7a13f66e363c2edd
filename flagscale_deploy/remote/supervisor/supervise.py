"""Runs a server on its host, and starts it again when it dies: what a launch script hands its command line to.

`python3 STATE/supervisor supervise OPTIONS -- COMMAND…` runs in the place of the command, as the leader of the script's
session. A server that ends before it was ever ready ends its supervisor with the same exit status: then the run has
failed, and says so. One that was ready is started again after a wait; before that, whatever it has left behind is
ended, and Ray has to have its GPUs back. `stop` wins always: see `restarts.py`. What is done goes to the server's own
log; the engine gets one SIGTERM, from whoever sends it, and never one because the supervisor has died.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Sequence

from flagscale_deploy.remote.deployment import processes, record, restart_state, shared_memory, terminate
from flagscale_deploy.remote.engine import openai, ranks, ray_nodes
from flagscale_deploy.remote.supervisor.descendants import Descendants, adopt_orphans, reap
from flagscale_deploy.remote.supervisor.health import Lifetime
from flagscale_deploy.remote.supervisor.signals import Signals
from flagscale_deploy.remote.system import proc

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.run import RayNodesReply
    from flagscale_deploy.remote.messages.status import RestartState

POLL_SECONDS = 0.5
ASK_SECONDS = 2.0
REMAINS_SECONDS = 5.0
"""The grace of what a dead engine has left: it has nobody to work for any more."""
GAVE_UP = 1


def command(words: Sequence[str]) -> None:
    """Supervise until there is nothing to supervise; exits with the server's status."""
    asked = parse(words)
    adopt_orphans()
    sys.exit(Supervisor(asked, Signals()).run())


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="supervise", allow_abbrev=False)
    parser.add_argument("--state", type=Path, required=True, help="the deployment's state directory on this host")
    parser.add_argument("--run", required=True, help="the run's id")
    parser.add_argument("--script", required=True, help="the launch script's name")
    parser.add_argument("--name", required=True, help="what the server is called")
    parser.add_argument("--max", type=int, required=True, help="restarts in a row before it is given up")
    parser.add_argument("--first", type=float, required=True, help="seconds before the first of them")
    parser.add_argument("--factor", type=float, required=True, help="how much longer each further one waits")
    parser.add_argument("--ceiling", type=float, required=True, help="seconds that one waits at most")
    parser.add_argument("--reset-after", type=float, required=True, help="seconds of health that begin the count anew")
    parser.add_argument("--health", default="", help="the URL that a healthy server answers with 200")
    parser.add_argument("--certificate", help="the file of the certificate that it serves TLS with")
    parser.add_argument("--ray-gpus", type=int, help="GPUs that Ray has to have free before a restart")
    parser.add_argument("--ray-seconds", type=float, default=180.0, help="how long that may take")
    parser.add_argument("--may-end", action="store_true", help="exit status 0 is the end of its work")
    end = list(words).index("--")
    asked = parser.parse_args(list(words[:end]))
    asked.command = list(words[end + 1 :])
    return asked


class Supervisor:
    """One server, as often as it has to be started."""

    def __init__(self, asked: argparse.Namespace, signals: Signals) -> None:
        self._asked, self._signals = asked, signals
        if asked.certificate:
            openai.trust(asked.certificate)
        self._files = restart_state.Files(asked.state, asked.run, asked.script)
        self._segments = shared_memory.Segments({})
        before = self._files.read() or {}  # of an earlier boot
        self._said: RestartState = {
            "state": "running",
            "restarts": before.get("restarts", 0),
            "in_a_row": 0,
            "max": asked.max,
            "last_restart": before.get("last_restart"),
            "last_exit": before.get("last_exit", ""),
            "healthy": False,
            "why": "",
        }

    def run(self) -> int:
        """Its exit status: the server's own, or 1 when it is given up."""
        while True:
            life = Lifetime(self._asked.health if self._files.permitted else "")
            status = self._live(life)
            if self._over(status):
                return status if status >= 0 else 128 - status
            if life.healthy_for >= self._asked.reset_after:
                self._said["in_a_row"] = 0
            ended = "%s after %s" % (how_it_ended(status), duration(life.seconds))
            self._say({"last_exit": how_it_ended(status)})
            if self._said["in_a_row"] >= self._asked.max:
                self._end_remains()
                times = "%d restart%s" % (self._asked.max, "" if self._asked.max == 1 else "s")
                problem = "%s; gave up after %s" % (ended, times)
                return self._give_up(problem, line=problem)
            problem = self._prepare(ended)
            if not self._may_go_on:
                self._say({"state": "ended"})
                return 0
            if problem:
                return self._give_up(problem, line="gave up: %s" % problem)

    def _live(self, life: Lifetime) -> int:
        """Start it, and wait for its end: its exit status, or the negative number of the signal that ended it."""
        try:
            child = os.posix_spawnp(
                self._asked.command[0],
                self._asked.command,
                os.environ,
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores these two
            )
        except OSError as error:
            self._tell("%s: %s" % (self._asked.command[0], error.strerror))
            return 127
        since = proc.start_ticks(child)
        boot_id = record.boot_id()
        self._say({"state": "running", "healthy": False, "pid": child, "start_ticks": since, "boot_id": boot_id})
        passed_on = False
        while True:
            status = reap(child)
            if status is not None:
                life.end()
                return status
            if self._signals.ending and not passed_on:
                passed_on = True
                if not self._files.forbidden:  # else `stop` asks it itself
                    with contextlib.suppress(OSError):
                        os.kill(child, signal.SIGTERM)
            self._look_at(life)
            self._signals.wait(POLL_SECONDS)

    def _look_at(self, life: Lifetime) -> None:
        if self._said["healthy"]:
            return
        if not life.polls and self._files.permitted:
            life.healthy()
        if life.healthy_at is not None:
            self._say({"healthy": True})
            self._segments.note(Descendants().among(proc.scan()))
            if life.polls:
                self._tell("answers again, %s after its start" % duration(life.seconds))

    def _over(self, status: int) -> bool:
        """Whether it is none of our business that it has ended."""
        return not self._may_go_on or (self._asked.may_end and status == 0)

    @property
    def _may_go_on(self) -> bool:
        return not self._signals.ending and self._files.permitted

    def _prepare(self, ended: str) -> str:
        """Wait until it may be started again; why it can't be, or ""."""
        number = self._said["in_a_row"] + 1
        seconds = delay(number, self._asked.first, self._asked.factor, self._asked.ceiling)
        said = "%s; restart %d of %d in %g s" % (ended, number, self._asked.max, seconds)
        self._say({"state": "restarting", "healthy": False, "in_a_row": number, "why": said})
        self._tell(said)
        until = time.monotonic() + seconds
        problem = self._end_remains()
        while not problem and self._may_go_on and time.monotonic() < until:
            self._signals.wait(min(POLL_SECONDS, max(0.0, until - time.monotonic())))
        if not problem and self._asked.ray_gpus is not None:
            problem = self._wait_for_ray()
        if not problem and self._may_go_on:
            self._say({"restarts": self._said["restarts"] + 1, "last_restart": time.time(), "why": ""})
        return problem

    def _end_remains(self) -> str:
        """End what descends from the dead engine, and remove the shared memory that it had."""
        family = Descendants()
        act = terminate.Termination(family, lambda _: None)
        act.end(terminate.Stage("remains", family, REMAINS_SECONDS))
        left = act.survivors(family)
        reap(0)
        self._segments.remove()
        if act.seen and not left:
            self._tell("ended %d processes that it left" % len(act.seen))
        return "its process {pid} ({command}) can't be ended: {why}".format(**left[0]) if left else ""

    def _wait_for_ray(self) -> str:
        """Until Ray counts every node, and the GPUs of this instance as free."""
        until = time.monotonic() + self._asked.ray_seconds
        script = self._asked.state / "scripts" / "ray_nodes.sh"
        told = ""
        while self._may_go_on:
            if not self._has_raylet():
                return "Ray itself is gone on this host: stop the deployment, and run it again"
            lacking = what_ray_lacks(ray_nodes.ask(script), self._asked.ray_gpus)
            if not lacking:
                return ""
            if time.monotonic() >= until:
                return "%s, after %s" % (lacking, duration(self._asked.ray_seconds))
            if lacking != told:
                self._tell("waits: %s" % lacking)
                told = lacking
            self._signals.wait(ASK_SECONDS)
        return ""

    def _has_raylet(self) -> bool:
        ours = processes.marked(os.environ.get(proc.MARKER, ""))
        return any(ours(each) and ranks.part(each) == "raylet" for each in proc.scan())

    def _give_up(self, why: str, line: str) -> int:
        """Record that it is given up, with a line for the server's log; return the supervisor's exit status."""
        self._say({"state": "gave up", "why": why})
        self._tell(line)
        return GAVE_UP

    def _say(self, change: RestartState) -> None:
        """Keep the state file up to date; a full disk keeps nobody from serving."""
        self._said = {**self._said, **change}
        with contextlib.suppress(OSError):
            self._files.write(self._said)

    def _tell(self, text: str) -> None:
        """A line in the server's log, also behind half a line of its own."""
        line = "\nflagscale-deploy %s: %s %s\n" % (
            time.strftime("%Y-%m-%d %H:%M:%S"),
            " ".join(self._asked.name.split()),
            text,
        )
        with contextlib.suppress(OSError):
            os.write(1, line.encode("utf-8", "replace"))


def delay(number: int, first: float, factor: float, ceiling: float) -> float:
    """Seconds before the nth restart in a row."""
    try:
        return min(ceiling, first * factor ** (number - 1))
    except OverflowError:
        return ceiling


def what_ray_lacks(answer: RayNodesReply, gpus: int) -> str:
    """Why an instance can't be started on Ray yet; "" when it can."""
    if answer.get("why"):
        return "Ray does not answer: %s" % answer["why"]
    if answer.get("missing"):
        return "Ray misses %s" % ", ".join(map(str, answer["missing"]))
    free = answer.get("available", {}).get("GPU", 0)
    return "" if free >= gpus else "Ray has %g of %d GPUs free" % (free, gpus)


def how_it_ended(status: int) -> str:
    """In words."""
    if status >= 0:
        return "ended with exit status %d" % status
    try:
        return "was ended by %s" % signal.Signals(-status).name
    except ValueError:
        return "was ended by signal %d" % -status


def duration(seconds: float) -> str:
    """In words."""
    return "%.0f s" % seconds if seconds < 120 else "%.0f min" % (seconds / 60)
