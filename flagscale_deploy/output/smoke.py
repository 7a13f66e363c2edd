"""Read the prompts of a smoke deploy, and show its results."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flagscale_deploy.api.smoke import Prompt, Smoke
from flagscale_deploy.errors import InputError
from flagscale_deploy.output.console import Console
from flagscale_deploy.support.units import counted


def prompts(texts: Sequence[str], expectations: Sequence[str], min_tokens: int, max_tokens: int) -> list[Prompt]:
    """Return prompts, each with the expectation at its position. Raises InputError for bad or superfluous ones."""
    questions = list(texts) or ["Introduce yourself in one sentence."]
    if len(expectations) > len(questions):
        raise InputError.at(
            "--expect",
            f"{counted(len(expectations), 'expectation')} for {counted(len(questions), 'prompt')}",
            "give at most one --expect for each --prompt",
        )
    for pattern in expectations:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputError.at("--expect", f"{pattern!r} is not a regular expression: {error}") from error
    patterns = [*expectations, *[None] * (len(questions) - len(expectations))]
    return [Prompt(text, expect, min_tokens, max_tokens) for text, expect in zip(questions, patterns, strict=True)]


def show_smoke(console: Console, result: Smoke) -> None:
    """Show `smoke`: a table of phases with times."""
    rows = [
        (
            case.title,
            case.host,
            console.state(case.state),
            f"{case.seconds:.1f} s" if case.seconds else "",
            case.message,
        )
        for case in result.cases
    ]
    console.table(f"smoke {result.deployment}", ("PHASE", "HOST", "STATE", "TIME", ""), rows)
    for case in result.cases:
        if case.lines:
            console.error(*case.lines)
    console.print("", f"{'passed' if result.passed else 'FAILED'}; artifacts in {result.artifacts}")
