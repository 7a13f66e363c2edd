"""Tell how far an engine's start has come from the lines that vLLM logs."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from flagscale_deploy.diagnosis.log_lines import matched_part

_STAGES = tuple(
    (re.compile(pattern), stage)
    for pattern, stage in (
        (r"vLLM API server version|non-default args: ", "reading the model's configuration"),
        (r"Resolved architecture|Using max model len|Waiting for \d+ local, ", "starting the engine"),
        (r"Initializing an? (?:V\d )?LLM engine", "initializing the engine"),
        (r"placement group", "asking Ray for GPUs"),
        (r"\((?:(?=\w{0,40}Worker)\w{6,80}[ )]|pid=\d)", "starting workers"),
        (r"distributed_init_method=|is using nccl|is assigned as DP rank", "connecting ranks"),
        (r"[Ll]oading (?:\w{1,40} ){0,9}shards|Loading \S+ weights|Starting to load model", "loading weights"),
        (r"Model loading took|Loading weights took", "weights loaded"),
        (r"Dynamo bytecode|torch\.compile t(?:akes|ook)|Compiling a graph|Compile and warm", "compiling"),
        (r"KV cache size|Available KV cache memory|for KV cache on node|# \w+ blocks: ", "allocating the KV cache"),
        (r"Captur\w{1,20} .{0,200}(?:CUDA|cuda) ?graph", "capturing graphs"),
        (r"init engine \(profile", "engine initialized"),
        (r"Starting vLLM (?:API )?server", "starting the server"),
        (r"Application startup complete", "answering"),
    )
)
"""In the order of a start: a line, and what the engine does after it. Texts of vLLM 0.6 to 0.32, measured with 0.32
on CPU over two hosts, else from vLLM's source."""

_PERCENT = re.compile(r"(\d{1,3})%(?: Completed|\s?\|)")

LAST_RANK = len(_STAGES)


@dataclass(frozen=True)
class Progress:
    """What an engine does now; `percent` where its log has one. `rank` grows from stage to stage of its start."""

    stage: str
    percent: float | None = None
    rank: int = 0


ASKING = Progress("answers /health; asking for a token", rank=LAST_RANK + 1)


def engine_progress(line: str, above: int = 0) -> Progress | None:
    """Return the progress that a line of vLLM's log reports, None if none. The furthest stage counts.

    Stages up to the rank `above` are not looked for.
    """
    line = matched_part(line)
    for rank in range(LAST_RANK, above, -1):
        pattern, stage = _STAGES[rank - 1]
        if pattern.search(line):
            match = _PERCENT.search(line)
            return Progress(stage, min(float(match.group(1)), 100.0) if match else None, rank)
    return None


@functools.cache
def any_above(rank: int) -> re.Pattern[str]:
    """Return the patterns of all stages above a rank as one: most lines match none."""
    return re.compile("|".join(f"(?:{pattern.pattern})" for pattern, _ in _STAGES[rank:]))


@dataclass
class Start:
    """The start of one engine, followed line by line in its log.

    It never goes back: every rank prints the same progress bar, and Ray forwards lines of other hosts late.
    """

    now: Progress | None = None

    def read(self, line: str) -> Progress | None:
        """Read a line; return the progress that it reports, None if it is no step ahead."""
        return self.advance(engine_progress(line))

    def advance(self, progress: Progress | None) -> Progress | None:
        """Take a step; return it, or None if it is no step ahead."""
        if progress is None or (self.now is not None and _place(progress) <= _place(self.now)):
            return None
        self.now = progress
        return progress


def _place(progress: Progress) -> tuple[int, float]:
    return progress.rank, -1.0 if progress.percent is None else progress.percent
