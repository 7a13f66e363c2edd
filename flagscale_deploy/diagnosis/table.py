"""Load the table of known error texts, `signatures.yaml`."""

from __future__ import annotations

import functools
import importlib.resources
import re
from dataclasses import dataclass
from typing import Literal

from flagscale_deploy.diagnosis.log_lines import matched_part
from flagscale_deploy.support.yaml import load_packaged

Level = Literal["cause", "consequence", "echo", "warning", "never"]


_POSSIBLE = re.compile(r"(?:Possible reasons|Some common causes|common causes) include")


@dataclass(frozen=True)
class Signature:
    """An error text that users meet, what causes it, and what to do. `source` is where the fact comes from.

    A consequence follows from something else, and is shown only where there is no cause. An echo is what other
    processes see of a consequence, and is shown only where the consequence itself is not logged. A warning is shown
    only where nothing else is: what logs it goes on. A text of the level `never` says nothing about the cause. `rank`
    is the position in the table: the earlier is nearer to the cause.
    `fatal`: the engine that logs it stays alive but never becomes ready.
    """

    name: str
    regex: re.Pattern[str]
    cause: str
    remedy: str
    source: str
    level: Level
    rank: int
    fatal: bool = False


@functools.cache
def signatures() -> tuple[Signature, ...]:
    """Return the entries of the table, in its order."""
    text = (importlib.resources.files("flagscale_deploy.diagnosis") / "signatures.yaml").read_text(encoding="utf-8")
    return tuple(
        Signature(
            entry["name"],
            re.compile(entry["pattern"]),
            entry["cause"],
            entry["remedy"],
            entry["source"],
            entry.get("level", "cause"),
            rank,
            entry.get("fatal", False),
        )
        for rank, entry in enumerate(load_packaged(text))
    )


def match(text: str) -> Signature | None:
    """Return the first entry of the table that matches a line, None if none; the level `never` is tried first.

    Lists of possible reasons are ignored: Ray prints everything that can kill a process.
    """
    text = _POSSIBLE.split(matched_part(text), maxsplit=1)[0]
    if not _any().search(text):
        return None
    return next((signature for signature in _order() if signature.regex.search(text)), None)


@functools.cache
def _order() -> tuple[Signature, ...]:
    return tuple(sorted(signatures(), key=lambda signature: signature.level != "never"))


@functools.cache
def _any() -> re.Pattern[str]:
    """Return all patterns as one: most lines match none."""
    return re.compile("|".join(f"(?:{signature.regex.pattern})" for signature in signatures()))
