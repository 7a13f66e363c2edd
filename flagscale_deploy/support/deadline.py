"""Time budgets: one deadline is passed down, and every wait below it is limited to what is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Deadline:
    """A point in (monotonic) time, `seconds` from its making."""

    seconds: float
    now: Callable[[], float] = time.monotonic
    started: float = field(default=-1.0)

    def __post_init__(self) -> None:
        if self.started < 0:
            object.__setattr__(self, "started", self.now())

    @property
    def elapsed(self) -> float:
        """Return the seconds since its making."""
        return self.now() - self.started

    @property
    def remaining(self) -> float:
        """Return the seconds left, never below 0."""
        return max(0.0, self.seconds - self.elapsed)

    @property
    def expired(self) -> bool:
        """Return whether no time is left."""
        return self.remaining <= 0
