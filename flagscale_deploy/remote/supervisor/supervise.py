"""Run a server on its host, and restart it when it dies; launch scripts give it their command line.

`python3 STATE/supervisor supervise OPTIONS -- COMMAND…` runs in the place of the command, as the leader of the script's
session. If a server ends before it was ever ready, its supervisor ends with the same exit status, and the run fails.
One that was ready is restarted after a delay; before that, its remaining processes are ended, and Ray must count its
GPUs as free. `stop` always has priority: see `restart_permits.py`. The supervisor logs to the server's own log; the
engine gets one SIGTERM, from whoever sends it, and none because the supervisor has died.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple

from flagscale_deploy.remote.deployment import ray_temp, record, restart_permits
from flagscale_deploy.remote.deployment.port_guard import PortGuard
from flagscale_deploy.remote.engine import openai
from flagscale_deploy.remote.engine.client import Client
from flagscale_deploy.remote.supervisor import evidence, hand_over, on_ray, server_log
from flagscale_deploy.remote.supervisor.descendants import Descendants, adopt_orphans, reap, spawn
from flagscale_deploy.remote.supervisor.ends import End, Watcher, delay, duration
from flagscale_deploy.remote.supervisor.hang import HangDetector
from flagscale_deploy.remote.supervisor.health import Lifetime
from flagscale_deploy.remote.supervisor.membership import join_group
from flagscale_deploy.remote.supervisor.notify import Events
from flagscale_deploy.remote.supervisor.options import parse
from flagscale_deploy.remote.supervisor.parts import Parts
from flagscale_deploy.remote.supervisor.remains import Remains
from flagscale_deploy.remote.supervisor.signals import Signals
from flagscale_deploy.remote.system import proc

if TYPE_CHECKING:
    import argparse
    from typing import Literal

    from flagscale_deploy.remote.messages.status import RestartState

POLL_SECONDS = 0.5
REMAINS_SECONDS = 5.0
"""How long processes that a dead engine has left have between SIGTERM and SIGKILL."""
GAVE_UP = 1


def command(words: Sequence[str]) -> None:
    """Supervise a server until it is not restarted any more; exit with its status."""
    options = parse(words)
    adopt_orphans()
    try:
        supervisor = Supervisor(options, Signals())
    except OSError as error:
        sys.exit("the group of %s: %s" % (options.name, error))
    sys.exit(supervisor.run())


class Supervisor:
    """The supervisor of one server, through all its restarts."""

    remains_seconds = REMAINS_SECONDS

    def __init__(self, options: argparse.Namespace, signals: Signals) -> None:
        self._options, self._signals = options, signals
        certificates = list(filter(None, [options.certificate]))
        self._client = Client(PortGuard(Descendants()), certificates, openai.api_key_in(options.state))
        self._files = restart_permits.Files(options.state, options.run, options.script)
        self._attempt: Optional[int] = None  # of the restart that is under way
        self._evidence = ""
        before = self._files.read() or {}  # from an earlier boot
        self._group = join_group(options, self._files, before, self._log)
        self._hang = HangDetector(self._client, options)
        self._events = Events(options, leads=self._group.leads)
        self._remains = Remains(lambda: self._events.notifying, self.remains_seconds, self._log)
        raylet = [on_ray.RayletWatcher()] if options.ray_gpus is not None else []
        self._watchers: List[Watcher] = [*([Parts()] if options.parts else []), *raylet, self._group, self._hang]
        self._state: RestartState = {
            "state": "running",
            "restarts": before.get("restarts", 0),
            "in_a_row": 0,
            "max": options.max,
            "last_restart": before.get("last_restart"),
            "last_exit": "its host was rebooted" if before else "",
            "healthy": False,
            "why": "",
            "generation": self._group.generation,
        }
        if options.router and hand_over.goes_on(before):
            self._state.update(hand_over.kept(before))
            self._attempt = self._state["in_a_row"]
        rebooted = before and (self._group.several or before.get("boot_id") != record.boot_id())
        self._ended = self._state["last_exit"] if rebooted and not self._group.stands_by else ""

    def run(self) -> int:
        """Run the server until it is not restarted any more; return its exit status, 1 if it is given up."""
        waits = self._group.stands_by or (self._ended and self._may_restart)
        status = self._restart(self._ended) if waits else None
        if status is None and self._attempt is not None and not self._may_restart:
            status = self._end()
        while status is None:
            lifetime = Lifetime(self._client, self._options.health if self._files.permitted else "")
            end = self._run_once(lifetime)
            if self._is_final(end):
                return end.status if end.status >= 0 else 128 - end.status
            if lifetime.healthy_for >= self._options.reset_after:
                self._state["in_a_row"] = 0
            ended = end.cause or "%s after %s" % (end.text, duration(lifetime.seconds))
            self._update({"last_exit": end.text})
            own = not self._group.excuses_end
            if self._group.leads and own and self._state["in_a_row"] >= self._options.max:
                self._remains.end()
                times = "%d restart%s" % (self._options.max, "" if self._options.max == 1 else "s")
                problem = "%s; gave up after %s" % (ended, times)
                return self._give_up(problem, line=problem)
            status = self._restart(ended, end.cause, own=own)
        return status

    def _restart(self, ended: str, cause: str = "", *, own: bool = True) -> Optional[int]:
        """Wait until the server may be started again; return an exit status where it may not.

        A restart counts where the end was the server's `own`.
        """
        deadline, text = self._announce(ended, cause, own) if ended else (time.monotonic(), "")
        problem = self._prepare(deadline, text)
        script = self._group.new_script()
        if script and not problem and self._may_restart:
            self._log("starts with its script as it is by now")
            hand_over.run_instead(script, self._signals, self._events, lambda: self._may_restart, self._log)
        if not self._may_restart:
            return self._end()
        return self._give_up(problem, line="gave up: %s" % problem) if problem else None

    def _run_once(self, lifetime: Lifetime) -> End:
        """Start the server; wait for its end, or until a watcher finds a problem, and end it then."""
        with contextlib.suppress(OSError):
            ray_temp.renew(self._options.state, self._options.run)
        try:
            child = spawn(self._group.command(self._options.command))
        except OSError as error:
            self._log("%s: %s" % (self._options.command[0], error.strerror))
            self._group.note_end(End(127).text)
            return End(127)
        since = proc.start_ticks(child)
        boot_id = record.boot_id()
        self._update({"state": "running", "healthy": False, "pid": child, "start_ticks": since, "boot_id": boot_id})
        for watcher in self._watchers:
            watcher.start(lifetime)
        try:
            return self._wait_for_end(child, lifetime)
        finally:
            lifetime.end()
            for watcher in self._watchers:
                watcher.end()

    def _wait_for_end(self, child: int, lifetime: Lifetime) -> End:
        forwarded = False
        while True:
            status = reap(child)
            if status is not None:
                self._group.note_end(End(status).text)
                return End(status)
            if self._signals.ending and not forwarded:
                forwarded = True
                if not self._files.forbidden:  # else `stop` signals it itself
                    with contextlib.suppress(OSError):
                        os.kill(child, signal.SIGTERM)
            self._note_health(lifetime)
            problem = self._problem()
            if problem:
                self._update({"state": "restarting", "healthy": False, "why": problem})
                self._log(problem)
                self._group.note_end(problem, bool(self._hang.problem()))
                if self._hang.problem() or self._group.hung:
                    kept = self._hang.keep_evidence(problem, self._log, lambda: self._may_restart)
                    self._update(kept)
                    self._evidence = str(self._options.state / evidence.NAME / kept["evidence"]) if kept else ""
            if problem and self._may_restart:  # else whoever stops it ends it
                return self._end_for(problem, child)
            self._signals.wait(POLL_SECONDS)

    def _problem(self) -> str:
        """Return the first problem that a watcher has found of a server that may be restarted."""
        problems = (watcher.problem() for watcher in self._watchers if self._may_restart)
        return next(filter(None, problems), "")

    def _end_for(self, problem: str, child: int) -> End:
        """End the server and its descendants for this problem."""
        self._remains.terminate()
        status = reap(child)
        return End(-signal.SIGKILL if status is None else status, problem)

    def _note_health(self, lifetime: Lifetime) -> None:
        if self._state["healthy"]:
            return
        if not lifetime.polls and self._files.permitted:
            lifetime.healthy()
        if lifetime.foreign != self._state["why"]:
            self._update({"why": lifetime.foreign})
            if lifetime.foreign:
                self._log(lifetime.foreign)
        if lifetime.healthy_at is not None:
            self._update({"healthy": True})
            self._remains.note_segments()
            if self._attempt is not None:
                self._log("is healthy again, %s after its start" % duration(lifetime.seconds))
                self._events.tell("restored", self._state["last_exit"], self._attempt)
                self._attempt = None

    def _is_final(self, end: End) -> bool:
        """Return whether the server is not to be restarted after this end."""
        self._group.learn_permission()
        return not self._may_restart or (self._options.may_end and end == End(0))

    @property
    def _may_restart(self) -> bool:
        """Return whether the server may be started: it was ready once, or is one of a spare, and was not stopped."""
        permitted = self._files.permitted or (self._group.stands_by and not self._files.forbidden)
        return permitted and not self._signals.ending

    def _prepare(self, deadline: float, text: str) -> str:
        """Wait until the server may be restarted; return why it cannot be, "" if it can."""
        problem = self._remains.end()
        if not problem:
            self._group.note_down()
            problem = self._wait_until(deadline, text)
        if not problem and self._options.ray_gpus is not None:
            options = self._options
            ray = on_ray.Waiting(options.state, options.run, options.ray_gpus, options.ray_seconds, options.ray_spare)
            problem = ray.until_whole(lambda: self._may_restart, self._signals.wait, self._log)
        if not problem and self._may_restart:
            self._group.begin()
            self._update({
                "restarts": self._state["restarts"] + 1, "last_restart": time.time(), "why": "",
                "generation": self._group.generation, "hosts": list(self._group.hosts),
            })  # fmt: skip
        return problem

    def _announce(self, ended: str, cause: str, own: bool) -> Tuple[float, str]:
        """Tell that the server is to be restarted; return when, and what is waited for in words."""
        number = self._state["in_a_row"] + own
        seconds = delay(max(1, number), self._options.first, self._options.factor, self._options.ceiling)
        text = "%s; restart %d of %d in %g s" % (ended, number, self._options.max, seconds)
        if not self._group.leads:
            text = "%s; restarts with its group" % ended
            # A leader gives up before; one that does not would fill this disk with logs.
            seconds = 0.0 if number <= self._options.max else seconds
        elif not own:
            text = "%s; no restart is counted for a head that is away" % ended
        self._log(text)
        if cause and self._group.leads:
            text = "%s → restarting (%d of %d)" % (cause, number, self._options.max)
        self._update({"state": "restarting", "healthy": False, "in_a_row": number, "why": text})
        self._attempt = number
        self._events.tell("restarting", ended, number, self._evidence)
        self._evidence = ""
        return time.monotonic() + seconds, text

    def _wait_until(self, deadline: float, text: str) -> str:
        """Wait for a time, and for the group; return why that is given up, "" if it is not."""
        logged = asked = False
        while self._may_restart and not self._group.over:
            left, missing = deadline - time.monotonic(), self._group.missing()
            if left <= 0 and not missing:
                return ""
            state: Literal["spare", "restarting"] = "spare" if self._group.stands_by else "restarting"
            why = "%s; %s" % (text, missing) if missing and text and state != "spare" else missing or text
            if (state, why) != (self._state["state"], self._state["why"]):
                self._update({"state": state, "healthy": False, "why": why})
            if missing and left <= 0 and not logged:
                logged = True
                self._log(missing)
            if missing and self._group.remedy and not (asked or self._group.stands_by):
                asked = True
                self._log(missing)
                self._events.tell("waiting", missing, self._state["in_a_row"])
            self._signals.wait(min(POLL_SECONDS, left) if left > 0 else POLL_SECONDS)
        return self._group.over

    def _end(self) -> int:
        """Record that the server may not be started any more; return the supervisor's exit status."""
        self._update({"state": "ended"})
        return 0

    def _give_up(self, why: str, line: str) -> int:
        """Record that the server is given up, with a line for its log; return the supervisor's exit status."""
        self._update({"state": "gave up", "why": why})
        self._log(line)
        self._group.give_up(why)
        self._events.tell("gave up", why, self._state["in_a_row"])
        return GAVE_UP

    def _update(self, change: RestartState) -> None:
        """Update the state file; ignore a full disk."""
        self._state = {**self._state, **change}
        with contextlib.suppress(OSError):
            self._files.write(self._state)

    def _log(self, text: str) -> None:
        server_log.write(self._options.name, text)
