"""Notice that a server hangs: its counters of tokens stand still while it has work, or it answers nobody.

`/health` is 200 while an engine hangs (measured with vLLM 0.32). So `/metrics` is asked for every few seconds. Where no
counter has moved for a while, each data-parallel rank is asked for one token. That finds what no counter shows: a dead
rank, and requests that came after an engine had stopped. `progress.py` judges.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Callable, Dict, NamedTuple, Optional

from flagscale_deploy.remote.deployment.port_guard import ForeignListenerError, NotThisHostError
from flagscale_deploy.remote.engine import metrics, openai
from flagscale_deploy.remote.engine.client import Client
from flagscale_deploy.remote.engine.metrics import Sample
from flagscale_deploy.remote.supervisor import evidence
from flagscale_deploy.remote.supervisor.descendants import Descendants
from flagscale_deploy.remote.supervisor.ends import duration
from flagscale_deploy.remote.supervisor.health import Lifetime
from flagscale_deploy.remote.supervisor.progress import Progress
from flagscale_deploy.remote.system import proc
from flagscale_deploy.remote.system.background import Background
from flagscale_deploy.remote.wire import cut

if TYPE_CHECKING:
    import argparse

    from flagscale_deploy.remote.messages.status import RestartState

POLL_SECONDS, LEAST_POLL_SECONDS = 5.0, 0.25
METRICS_SECONDS, LEAST_METRICS_SECONDS = 5.0, 1.0
PROBE_SECONDS, LEAST_PROBE_SECONDS = 60.0, 5.0
"""How long a probe may take before it has failed; the next one follows."""
ASLEEP_SECONDS = 30.0
"""A longer time between two looks is one in which this process itself was stopped."""
FRONT = "front end"
WHY_CHARACTERS = 200


class Limits(NamedTuple):
    """Seconds of `deploy.restart`: `hang`, and `interval`, after which an engine without a sign of life is probed."""

    hang: float
    interval: float
    """0 for no probes."""


class Judge:
    """All engines of one run of a server, and its front end, which must answer for them."""

    def __init__(self, limits: Limits, longest: float = 0.0) -> None:
        self._limits = limits
        self._longest = longest
        self.parts = {FRONT: Progress(limits.hang, longest, "no reply to /metrics")}
        self._looked: Optional[float] = None

    @property
    def longest(self) -> float:
        """Return the longest silence that one of them came back from."""
        return max(part.longest for part in self.parts.values())

    def saw(self, now: float, samples: Dict[str, Sample]) -> None:
        """Note the metrics of all engines; none at all is a reply, too.

        An engine without counters is not judged: a probe that waits behind other requests looks like a hang then.
        """
        self.parts[FRONT].answered(now)
        self._longest = self.longest
        new = {name: Progress(self._limits.hang, self._longest, "no token for a probe", now) for name in samples}
        self.parts = {FRONT: self.parts[FRONT], **{name: self.parts.get(name, part) for name, part in new.items()}}
        for engine, sample in samples.items():
            self.parts[engine].saw(now, sample)

    def failed(self, now: float, why: str) -> None:
        """Note that there was no reply to a request for metrics."""
        self.parts[FRONT].failed(now, why)

    def look(self, now: float) -> None:
        """Note that this process asks for metrics; a time in which it did not is nobody's hang."""
        if self._looked is not None and now - self._looked > ASLEEP_SECONDS:
            for part in self.parts.values():
                part.excuse(now - self._looked)
        self._looked = now
        self.parts[FRONT].asked(now)

    def to_probe(self, now: float) -> Dict[str, Progress]:
        """Return the engines that are to be probed now: those without a sign of life for `interval`, if not asleep."""
        quiet = {
            name: part
            for name, part in self.parts.items()
            if name != FRONT and part.awake and not part.probing and part.silent_for(now) >= self._wait(part)
        }
        return quiet if self._limits.interval else {}

    def data_rank(self, engine: str) -> Optional[int]:
        """Return the number by which an engine is asked; None where it is the only one, or others have the numbers."""
        numbers = sorted(int(name) for name in self.parts if name.isdigit())
        return int(engine) if len(numbers) > 1 and numbers == list(range(len(numbers))) else None

    def problem(self, now: float, wall: float) -> str:
        """Return what hangs, since when (by the wall clock), and why that is known; "" while nothing does."""
        for name, part in self.parts.items():
            if part.since is not None and part.overdue(now):
                whose = "engine %s: " % name if self.data_rank(name) is not None else ""
                since = time.strftime("%H:%M:%S", time.localtime(wall - (now - part.since)))
                return "hung %s: %s%s since %s" % (duration(now - part.since), whose, part.owes(), since)
        return ""

    def hung_since(self, now: float) -> Optional[float]:
        """Return since when the first that hangs does."""
        return min(
            (part.since for part in self.parts.values() if part.since is not None and part.overdue(now)), default=None
        )

    def next_look(self, now: float) -> float:
        """Return the seconds until the next look: a hang is noticed at its limit, and not a whole period later."""
        left = [part.since + part.limit - now for part in self.parts.values() if part.since is not None]
        return max(LEAST_POLL_SECONDS, min([POLL_SECONDS, self._limits.hang / 8, *left]))

    def _wait(self, part: Progress) -> float:
        """Return the seconds of silence before a probe; after one that failed there are several more to the limit."""
        return min(self._limits.interval, part.limit / 4) if part.since is not None else self._limits.interval


class HangDetector:
    """Watches one server through all its runs, unless that is off (`hang` 0); a `Watcher` of its supervisor."""

    def __init__(
        self, client: Client, options: argparse.Namespace, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client, self._options = client, options
        self._url = options.health[: -len("/health")]
        self._limits = Limits(options.hang, options.interval)
        self._clock = clock
        self._judge = Judge(self._limits)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._problem = ""

    def start(self, lifetime: Lifetime) -> None:
        """Begin to look at a new run of the server; what was seen of the longest silence holds on."""
        self._problem = ""
        self._over = threading.Event()
        self._judge = Judge(self._limits, self._judge.longest)
        if not self._limits.hang:
            return
        threading.Thread(target=self._watch, args=(lifetime, self._judge, self._over), daemon=True).start()

    def problem(self) -> str:
        """Return why the server hangs, "" while it does not."""
        return self._problem

    def keep_evidence(self, problem: str, log: Callable[[str], None], wanted: Callable[[], bool]) -> RestartState:
        """Keep the evidence of a server that hangs, or whose group does; return what is to be noted of it."""
        hung = evidence.Hung(self._options.state, self._options.name, self._options.script, problem)
        folder = evidence.keep_in_time(hung, Descendants().among(proc.scan()), wanted)
        if not folder:
            return {}
        log("keeps evidence in %s/%s" % (evidence.NAME, folder))
        return {"evidence": folder}

    def end(self) -> None:
        """Stop looking."""
        self._over.set()

    def _watch(self, lifetime: Lifetime, judge: Judge, over: threading.Event) -> None:
        while not over.wait(judge.next_look(self._clock())):
            if lifetime.healthy_at is None:
                continue
            self._look(judge)
            with self._lock:
                now = self._clock()
                problem = judge.problem(now, time.time())
                lifetime.hung_since = judge.hung_since(now)
            if problem and not over.is_set():
                self._problem = problem
                return

    def _look(self, judge: Judge) -> None:
        with self._lock:
            judge.look(self._clock())
        seconds = max(LEAST_METRICS_SECONDS, min(METRICS_SECONDS, self._limits.hang / 4))
        try:
            status, text = self._client.request(self._url + "/metrics", timeout=seconds)
        except (ForeignListenerError, NotThisHostError):  # who that is has no part in this
            with self._lock:
                judge.parts[FRONT].answered(self._clock())
        except (OSError, ValueError) as error:
            with self._lock:
                judge.failed(self._clock(), describe(error))
        else:
            with self._lock:
                judge.saw(self._clock(), metrics.engines(text) if status == 200 else {})
        with self._lock:
            now = self._clock()
            for engine, part in judge.to_probe(now).items():
                part.asked(now)
                Background(self._probe, part, judge.data_rank(engine))

    def _probe(self, part: Progress, data_rank: Optional[int]) -> None:
        """Ask an engine for a token. That it refuses the request is an answer: the engine's state is the question."""
        seconds = max(LEAST_PROBE_SECONDS, min(PROBE_SECONDS, part.limit / 4))
        why = ""
        try:
            reply = openai.ask_for_token(self._client, self._url, self._options.model, seconds, data_rank)
            if not reply.ok and (reply.status == 404 or not 400 <= reply.status < 500):
                why = reply.text or "no token"
        except (ForeignListenerError, NotThisHostError):
            pass
        except (OSError, ValueError) as error:
            why = describe(error)
        with self._lock:
            now = self._clock()
            if why:
                part.failed(now, cut(" ".join(why.split()), WHY_CHARACTERS))
            else:
                part.answered(now)


def describe(error: Exception) -> str:
    """Return an error as text; a time-out has none of its own in every Python."""
    return cut(" ".join(str(error).split()), WHY_CHARACTERS) or "timed out"
