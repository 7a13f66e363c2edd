"""The table of known error texts, `signatures.yaml`."""

from __future__ import annotations

import functools
import importlib.resources
import re
from dataclasses import dataclass
from typing import Literal

from flagscale_deploy.support.yaml import load_packaged

Level = Literal["cause", "consequence", "echo", "never"]


_POSSIBLE = re.compile(r"(?:Possible reasons|Some common causes|common causes) include")


@dataclass(frozen=True)
class Signature:
    """An error text that users meet, what causes it, and what to do. `source` is where the fact comes from.

    A consequence follows from something else, and is named only where nothing better is known; an echo, what others
    see of it, only where the consequence itself is not told either. What says nothing of
    the cause at all is never named. `rank` is its place in the table: the earlier is nearer to the cause. `hopeless`:
    the engine that says it lives on, and never gets further.
    """

    name: str
    regex: re.Pattern[str]
    cause: str
    remedy: str
    source: str
    level: Level
    rank: int
    hopeless: bool = False


@functools.cache
def signatures() -> tuple[Signature, ...]:
    """The table, in its order."""
    text = (importlib.resources.files("flagscale_deploy.diagnosis") / "signatures.yaml").read_text(encoding="utf-8")
    return tuple(
        Signature(
            each["name"],
            re.compile(each["pattern"]),
            each["cause"],
            each["remedy"],
            each["source"],
            each.get("level", "cause"),
            rank,
            each.get("hopeless", False),
        )
        for rank, each in enumerate(load_packaged(text))
    )


def match(text: str) -> Signature | None:
    """The first entry of the table that a line is; what says nothing of the cause goes before all others.

    What a line only thinks possible (Ray lists everything that kills a process) is not looked at.
    """
    text = _POSSIBLE.split(text, maxsplit=1)[0]
    found = [each for each in _order() if each.regex.search(text)] if _any().search(text) else []
    return found[0] if found else None


@functools.cache
def _order() -> tuple[Signature, ...]:
    return tuple(sorted(signatures(), key=lambda each: each.level != "never"))


@functools.cache
def _any() -> re.Pattern[str]:
    """All patterns at once: most lines match none."""
    return re.compile("|".join(f"(?:{each.regex.pattern})" for each in signatures()))
