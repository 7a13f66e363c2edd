"""The result of one phase or check on one host, as JUnit reports count them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Case:
    """One phase or check on one host (`host` is "" where it concerns all hosts).

    `lines` are the log lines that show why it failed; `number` counts prompts, from 1 on.
    """

    phase: str
    host: str
    state: Literal["passed", "failed", "skipped"]
    seconds: float = 0.0
    message: str = ""
    lines: tuple[str, ...] = ()
    number: int | None = None

    @property
    def title(self) -> str:
        """Return the phase, with the number of its prompt."""
        return self.phase if self.number is None else f"{self.phase} {self.number}"
