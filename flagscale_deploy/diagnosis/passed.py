"""Follow what an engine does after a line of its log: trouble that it went past is not what ended it."""

from __future__ import annotations

import re
from collections import deque
from typing import Literal, NamedTuple

from flagscale_deploy.diagnosis.log_lines import earlier, matched_part, process_of, stamp_of
from flagscale_deploy.diagnosis.progress import LAST_RANK, any_above, engine_progress

TOKEN_SECONDS = 20.0
"""vLLM logs the tokens of its last 10 s: those logged later than this were generated after the trouble."""
_TOKENS = re.compile(r"Avg generation throughput: (?!0\.0 )\d")
_START = "vLLM API server version"
_REPLY = re.compile(r'"POST [^ "]{1,2000} HTTP/1\.\d" [234]\d\d\b')
"""A request that was served. /health and /metrics answer, too, where the engine behind its server has died."""


class Step(NamedTuple):
    """What a line proves: a stage of the start was reached, the server replied, or tokens were generated.

    `at` is the time of the line by its host's clock, None for one without.
    """

    number: int
    what: Literal["stage", "reply", "tokens"]
    process: str
    rank: int = 0
    at: float | None = None


class Trouble(NamedTuple):
    """What decides whether a step passes a line of trouble. `warning`: a text that programs log and go on.

    `end`: it tells of a process that ended.
    """

    number: int
    process: str
    stage: int
    at: float | None
    warning: bool
    end: bool


def passes(step: Step, trouble: Trouble) -> bool:
    """Return whether an engine went past trouble, as a later step proves.

    A warning is passed by every later stage, an error by a later stage or reply of the same process. Whatever was
    logged before the engine answered did not end it.
    """
    if step.number <= trouble.number:
        return False
    if step.what == "tokens":
        return step.at is not None and trouble.at is not None and not earlier(step.at, trouble.at + TOKEN_SECONDS)
    if step.what == "reply":
        return trouble.warning or (step.process == trouble.process and not trouble.end)
    if step.rank == LAST_RANK:
        return True
    if trouble.warning:
        return step.rank > trouble.stage
    return step.process != "" and step.process == trouble.process and not trouble.end


class Course:
    """The steps of one engine, read line by line. `steps` are those that were not yet taken out of it."""

    def __init__(self) -> None:
        self.steps: deque[Step] = deque()
        self.is_engine = self.answers = False
        """Whether the log is an engine's own, and whether that engine answers."""
        self._rank = 0

    def read(self, number: int, line: str) -> None:
        """Read a line that is no trouble. A new start begins where the engine logs its version again."""
        if _START in line:
            self._rank = 0
        if self._rank < LAST_RANK:
            if " DEBUG " not in line and any_above(self._rank).search(matched_part(line)):
                self._read_stage(number, line)
        elif "HTTP/1." in line and _REPLY.search(line):
            self._add(Step(number, "reply", process_of(line)))
        if self._rank in (0, LAST_RANK) and "generation throughput" in line and _TOKENS.search(line):
            self.is_engine, self.answers, self._rank = True, True, LAST_RANK
            stamp = stamp_of(line)
            self._add(Step(number, "tokens", "", at=stamp and stamp.at))

    def _read_stage(self, number: int, line: str) -> None:
        progress = engine_progress(line, self._rank)
        if progress is None:
            return
        self._rank, self.answers = progress.rank, progress.rank == LAST_RANK
        self.is_engine |= progress.rank in (1, LAST_RANK)
        self._add(Step(number, "stage", process_of(line), progress.rank))

    def _add(self, step: Step) -> None:
        """Add a step; of replies in a row the last is enough."""
        if self.steps and self.steps[-1].what == step.what != "stage" and self.steps[-1].process == step.process:
            self.steps.pop()
        self.steps.append(step)
