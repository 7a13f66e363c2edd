"""Keep text of hosts from being commands to a CI system: those of GitHub, Azure and TeamCity read them in their logs.

`::set-output …` at the beginning of a line is one, and `##[…]`, `##vso[…]` or `##teamcity[…]` anywhere.
"""

from __future__ import annotations

import os
import re

SYSTEMS = ("GITHUB_ACTIONS", "TF_BUILD", "TEAMCITY_VERSION")
"""Variables that a CI system sets which reads commands (Gitea and Forgejo set GitHub's)."""
LONGEST_TAIL = 64
_COMMAND = re.compile(r"^[^\S\n]*:(?=:)|#(?=#\w{0,20}\[)", re.MULTILINE)


def is_ci() -> bool:
    """Return whether a CI system reads commands in what this process prints."""
    return any(map(os.environ.get, SYSTEMS))


def in_json(text: str) -> str:
    """Return JSON that means the same, and that holds no command."""
    return text.replace("##", "#\\u0023") if is_ci() else text


class Breaker:
    """Puts a space into each command of a text that comes in pieces."""

    def __init__(self) -> None:
        self._tail = ""
        """What was written of the last line: its end, behind an `x` where more stands before it."""

    def broken(self, text: str) -> str:
        """Return the next piece, without commands."""
        whole, start = self._tail + text, len(self._tail)
        ends = [match.end() for match in _COMMAND.finditer(whole)]
        cuts = sorted({start, *(max(end, start) for end in ends)})
        pieces = [whole[at:to] for at, to in zip(cuts, [*cuts[1:], len(whole)], strict=True)]
        result = (" " if any(end <= start for end in ends) else "") + " ".join(pieces)
        self._tail = _end_of_line(self._tail + result)
        return result


def _end_of_line(text: str) -> str:
    line = text.rpartition("\n")[2]
    if len(line) <= LONGEST_TAIL:
        return line
    return (" " if line.strip() in ("", ":") else "x") + line[-LONGEST_TAIL // 2 :]
