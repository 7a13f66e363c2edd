"""The tables of texts that are looked for in logs."""

from __future__ import annotations

from docs.generate.markdown import table
from flagscale_deploy.diagnosis.table import Level, signatures

_TITLES: tuple[tuple[Level, str], ...] = (
    ("cause", "Causes"),
    ("consequence", "Consequences"),
    ("echo", "What others see of it"),
    ("warning", "Warnings"),
    ("never", "Texts that say nothing of the cause"),
)


def tables() -> str:
    """Return a section for each level, with a row for each text."""
    return "\n".join(f"## {title}\n\n{_section(level)}" for level, title in _TITLES)


def _section(level: Level) -> str:
    rows = [
        (f"`{signature.name}`", signature.cause, signature.remedy, _source(signature.source))
        for signature in signatures()
        if signature.level == level
    ]
    return table(("name", "cause", "do", "source"), rows)


def _source(text: str) -> str:
    return " ".join(f"<{word}>" if word.startswith("https://") else word for word in text.split())
