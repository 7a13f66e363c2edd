"""Every regular expression takes time linear in its text: hosts, programs and their clients choose these texts."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator

import pytest

from flagscale_deploy.diagnosis.find import diagnose, error_lines
from flagscale_deploy.diagnosis.log_lines import MATCHED, clean
from flagscale_deploy.diagnosis.progress import engine_progress
from flagscale_deploy.diagnosis.table import match, signatures
from tests.unit.patterns import Use, doubled_texts, hostile_texts, uses

SIZE = 64 << 10
SECONDS = 0.5
"""Processor time for a text of 64 KiB. A pattern whose time grows with the square of it takes many seconds."""
WHOLE = os.environ.get("FSD_FAULTS") == "all"
DIAGNOSING: dict[str, Callable[[str], object]] = {
    "match": match,
    "clean": clean,
    "engine_progress": engine_progress,
    "error_lines": lambda line: error_lines([line]),
    "diagnose": lambda line: diagnose([("gpu01", "engine.log", ["ERROR 11-22 11:05:09 [a.py:1] Traceback", line])]),
}


def seconds(act: Callable[[], object]) -> float:
    """Return the processor time that an act takes, the least of some tries if the first was slow."""
    least = SECONDS
    for _ in range(5):
        began = time.process_time()
        act()
        least = min(least, time.process_time() - began)
        if least < SECONDS:
            break
    return least


def slow_texts(use: Use) -> Iterator[str]:
    texts = list(hostile_texts(use.pattern, SIZE))
    if WHOLE:
        texts += doubled_texts(use.pattern, SIZE, random.Random(1), 400)
    for text in texts:
        if seconds(lambda text=text: use.apply(text)) >= SECONDS:  # type: ignore[misc]
            yield f"{use}: {text[:60]!r}…"


def test_every_pattern_is_found() -> None:
    places = {use.place.split(".")[0].split(":")[0] for use in uses()}
    assert len(uses()) >= 180
    assert {"diagnosis", "remote", "config", "inventory", "output", "support", "deploy"} <= places
    assert sum(use.place.startswith("signature ") for use in uses()) == len(signatures())


def test_no_pattern_is_slow_on_repetitions_of_its_own_parts() -> None:
    assert [text for use in uses() for text in slow_texts(use)] == []


@pytest.mark.parametrize(
    "text",
    [
        "(APIServer pid=1) ERROR 11-22 11:05:09 [serving.py:1] The model `" + "vocab" * 13000 + "` does not exist.",
        "ERROR 11-22 11:05:09 [serving.py:1] " + "a.b." * 16000 + ": x",
        "(" + "pid=" * 16000,
        "Error: " * 9000,
        "x" * SIZE,
    ],
    ids=lambda text: text[:30],
)
@pytest.mark.parametrize("name", DIAGNOSING)
def test_no_line_of_64_kib_is_slow_to_diagnose(name: str, text: str) -> None:
    assert seconds(lambda: DIAGNOSING[name](text)) < SECONDS


def test_no_line_made_of_parts_of_patterns_is_slow_to_diagnose() -> None:
    chosen = random.Random(1)
    of_logs = [use for use in uses() if use.place.startswith(("signature", "diagnosis"))]
    for use in of_logs if WHOLE else chosen.sample(of_logs, 30):
        text = chosen.choice(list(hostile_texts(use.pattern, SIZE)))
        for name, act in DIAGNOSING.items():
            assert seconds(lambda act=act, text=text: act(text)) < SECONDS, (name, text[:60])  # type: ignore[misc]


def test_of_a_long_line_both_ends_are_matched() -> None:
    cause = "torch.OutOfMemoryError: CUDA out of memory"
    for line in (cause + " x" * SIZE, "x " * SIZE + cause):
        entry = match(line)
        assert entry is not None
        assert entry.name == "gpu-out-of-memory"
    assert len(clean("x" * SIZE)) < MATCHED + 10
