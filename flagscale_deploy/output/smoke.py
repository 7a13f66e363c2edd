"""A smoke deploy: its prompts in, its table out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flagscale_deploy.api.smoke import Prompt, Smoke
from flagscale_deploy.errors import InputError
from flagscale_deploy.output.console import Console


def prompts(texts: Sequence[str], expectations: Sequence[str], min_tokens: int, max_tokens: int) -> list[Prompt]:
    """Prompts with the expectation of the same position. Raises InputError for one too many, or a bad expression."""
    asked = list(texts) or ["Introduce yourself in one sentence."]
    if len(expectations) > len(asked):
        raise InputError.at(
            "--expect", f"{len(expectations)} expectations for {len(asked)} prompts", "one for each --prompt"
        )
    for each in expectations:
        try:
            re.compile(each)
        except re.error as error:
            raise InputError.at("--expect", f"{each!r} is not a regular expression: {error}") from error
    wanted = [*expectations, *[None] * (len(asked) - len(expectations))]
    return [Prompt(text, expect, min_tokens, max_tokens) for text, expect in zip(asked, wanted, strict=True)]


def show_smoke(console: Console, result: Smoke) -> None:
    """`smoke`: a table with times."""
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
        for line in case.lines:
            console.error(line)
    console.print(f"\n{'passed' if result.passed else 'FAILED'}; artifacts in {result.artifacts}")
