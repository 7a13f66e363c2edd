"""The page about diagnoses, made from the table."""

from __future__ import annotations

from flagscale_deploy.diagnosis.table import Level, signatures

_HEAD = """\
# Diagnosis

When `run` fails, `status` finds something dead or unwell, or you ask with `logs --diagnose`, the logs of all hosts are
searched for these texts. The first that is named is the earliest **cause** by the times that the lines bear; where
times are not known, the one nearest to the top of this page. A **consequence** follows from something else: it is named
only where there is no cause, and no unknown exception before it. What **others see** of a process that ended (a
connection that closes) is often written down before anybody knows whose it was: it is named only where no log tells
of the end itself. Some texts **say nothing** of a cause and are never named. A line that came from another host
(`ip=10.0.0.2` in front of it) belongs to that host.

Made from [`signatures.yaml`](../flagscale_deploy/diagnosis/signatures.yaml), where the patterns are; `make check` fails
where the two differ, and prints the command that makes it anew.
"""
_TITLES: tuple[tuple[Level, str], ...] = (
    ("cause", "Causes"),
    ("consequence", "Consequences"),
    ("echo", "What others see of it"),
    ("never", "Texts that say nothing of the cause"),
)


def page() -> str:
    """The page, in Markdown."""
    parts = [_HEAD]
    for level, title in _TITLES:
        rows = [
            f"| `{each.name}` | {_cell(each.cause)} | {_cell(each.remedy)} | {_source(each.source)} |"
            for each in signatures()
            if each.level == level
        ]
        parts.append("\n".join((f"## {title}", "", "| name | cause | do | source |", "|---|---|---|---|", *rows, "")))
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _source(text: str) -> str:
    return _cell(" ".join(f"<{word}>" if word.startswith("https://") else word for word in text.split()))
