"""The result of one phase or check on one host, as reports count it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Case:
    """One phase (or check) on one host ("" where it is about all of them). `lines` are the log lines that tell why it
    failed; `number` tells the prompts apart, from 1 on."""

    phase: str
    host: str
    state: Literal["passed", "failed", "skipped"]
    seconds: float = 0.0
    message: str = ""
    lines: tuple[str, ...] = ()
    number: int | None = None

    @property
    def title(self) -> str:
        """The phase, and which prompt."""
        return self.phase if self.number is None else f"{self.phase} {self.number}"
