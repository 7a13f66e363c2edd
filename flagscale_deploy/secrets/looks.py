"""What keys look like, whatever their names are."""

from __future__ import annotations

import re

HIDDEN = "[REDACTED]"

LOOKS = tuple(
    (mark, re.compile(pattern, re.IGNORECASE if mark == "?" else 0))
    for mark, pattern in (
        ("hf_", r"hf_[A-Za-z0-9]{16,}"),
        ("sk-", r"sk-(?<![A-Za-z0-9]sk-)(?=[A-Za-z_-]{0,60}\d)[\w-]{20,}"),
        ("gh", r"gh[oprsu]_[A-Za-z0-9]{20,}"),
        ("github_pat_", r"github_pat_\w{20,}"),
        ("glpat-", r"glpat-[\w-]{16,}"),
        ("xox", r"xox[abprs]-[\w-]{10,}"),
        ("nvapi-", r"nvapi-[\w-]{20,}"),
        ("AKIA", r"AKIA[0-9A-Z]{16}"),
        ("ASIA", r"ASIA[0-9A-Z]{16}"),
        ("AIza", r"AIza[\w-]{30,}"),
        ("eyJ", r"eyJ(?<![\w-]eyJ)[\w-]{8,2000}\.[\w-]{8,}\.[\w-]{8,}"),
        (
            "PRIVATE KEY-----",
            r"-{5}BEGIN [A-Z ]{0,30}PRIVATE KEY-{5}"
            r"(?:[^-]{0,16000}-{5}END [A-Z ]{0,30}KEY-{5}|[A-Za-z0-9+/=\s\\'\",]{0,16000})",
        ),
        ("earer ", r"(?<=earer )(?=[A-Za-z.~+/=_-]{0,60}\d|\S{20})[\w.~+/=-]{8,}"),
        ("Basic ", r"(?<=Basic )[A-Za-z0-9+/=]{8,}"),
        ("://", r"(://)[^\s/:@'\"]{0,100}:(?!\d{1,5}/)[^\s@'\"]{1,200}(?=@)"),
        ("hooks.slack.com/", r"(hooks\.slack\.com/\w{1,20}/)[\w/-]{10,200}"),
        ("/api/webhooks/", r"(/api/webhooks/\d{5,25}/)[\w-]{20,200}"),
        ("/bot/v2/hook/", r"(/bot/v2/hook/)[\w-]{16,100}"),
        (".webhook.office.com/", r"(\.webhook\.office\.com/\w{1,20}/)[\w@/-]{20,400}"),
        ("?", r"([?&][\w.-]{0,30}(?:token|key|secret|password|passwd|signature|sig|auth)=)[^\s&#'\"<>\\]{4,}"),
    )
)
"""What keys look like, whatever their names are: a text that each contains, and its pattern. JWT, PEM, HTTP, URLs."""


LONGEST_LOOK = 20_000


def by_look(text: str) -> str:
    """Return the text with `[REDACTED]` in place of what looks like a key or a password."""
    for mark, pattern in LOOKS:
        if mark in text:
            text = pattern.sub(lambda match: (match[1] if match.re.groups else "") + hidden(match[0]), text)
    return text


def hidden(text: str) -> str:
    """Return what stands in place of a text, on as many lines."""
    return HIDDEN if "\n" not in text else "\n".join([HIDDEN] * (text.count("\n") + 1))
