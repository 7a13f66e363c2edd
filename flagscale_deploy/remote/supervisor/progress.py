"""Judge from samples whether an engine hangs: it owes something, and has shown no sign of life for too long.

A sign of life is a counter of tokens that moves, or a reply to a probe. An engine owes something while requests run or
wait in it, and from the start of a probe until one is answered. The clock is the caller's.
"""

from __future__ import annotations

from typing import Optional

from flagscale_deploy.remote.engine.metrics import Sample

LONGEST_STEPS = 1.5
"""An engine may be silent for this many of the longest silences that it has come back from: a long prefill, a graph
capture, a garbage collection."""


class Progress:
    """The progress of one engine of a server, or of its front end, which has no counters.

    `hang` are the seconds without a sign of life after which it hangs; `longest` is the longest silence before;
    `debt` says what it owes to a probe. It is alive at `now`.
    """

    def __init__(self, hang: float, longest: float = 0.0, debt: str = "no reply", now: float = 0.0) -> None:
        self.longest = longest
        self.since: Optional[float] = None
        """When what it owes was asked for, or its last sign of life, if that is later; None while it owes nothing."""
        self.probing = False
        self._hang = hang
        self._sample: Optional[Sample] = None
        self._failure = ""
        self._debt, self._alive = debt, now

    @property
    def limit(self) -> float:
        """Return the seconds without a sign of life after which it hangs."""
        return max(self._hang, LONGEST_STEPS * self.longest)

    @property
    def awake(self) -> bool:
        """Return whether it may be asked for a token."""
        return self._sample is None or self._sample.awake

    def saw(self, now: float, sample: Sample) -> None:
        """Note its metrics."""
        before, self._sample = self._sample, sample
        if before is not None and before.tokens != sample.tokens:
            self._lives(now)
        self._note_debt(now)

    def asked(self, now: float) -> None:
        """Note that a probe has begun."""
        self.probing = True
        self._note_debt(now)

    def answered(self, now: float) -> None:
        """Note that a probe was answered."""
        self.probing = False
        self._lives(now)
        self._note_debt(now)

    def failed(self, now: float, why: str) -> None:
        """Note that a probe has failed."""
        self.probing, self._failure = False, why
        self._note_debt(now)

    def excuse(self, seconds: float) -> None:
        """Leave out time in which nobody looked: the supervisor itself was stopped."""
        self.since = None if self.since is None else self.since + seconds

    def silent_for(self, now: float) -> float:
        """Return the seconds without a sign of life, also of one that owes nothing."""
        return now - self._alive

    def overdue(self, now: float) -> bool:
        """Return whether it hangs."""
        return self.since is not None and now - self.since >= self.limit

    def owes(self) -> str:
        """Return what it owes, as `2 requests running and no token`."""
        running, waiting = (round(self._sample.running), round(self._sample.waiting)) if self._sample else (0, 0)
        if running or waiting:
            count, where = (running, "running") if running else (waiting, "waiting")
            return "%d request%s %s and no token" % (count, "" if count == 1 else "s", where)
        return self._debt + (" (%s)" % self._failure if self._failure else "")

    def _lives(self, now: float) -> None:
        if self.since is not None:
            self.longest = max(self.longest, now - self.since)
        self.since, self._alive, self._failure = None, now, ""

    def _note_debt(self, now: float) -> None:
        sample = self._sample
        working = sample is not None and sample.awake and sample.running + sample.waiting > 0
        owing = working or self.probing or bool(self._failure)
        self.since = (now if self.since is None else self.since) if owing else None
