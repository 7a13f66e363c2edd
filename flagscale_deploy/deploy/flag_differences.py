"""Tell what differs between the command lines of two runs, by what hosts have of them in their histories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

Argv = Mapping[str, Sequence[str]]
"""The command line of each server."""


def flag_differences(before: Argv, after: Argv) -> Iterator[str]:
    """Yield servers that came and went, and for the others the flags that did."""
    for server in dict.fromkeys((*before, *after)):
        if server not in before or server not in after:
            yield f"{'+' if server in after else '-'} {server}"
            continue
        old, new = dict.fromkeys(_flags(before[server])), dict.fromkeys(_flags(after[server]))
        yield from (f"- {server}: {flag}" for flag in old if flag not in new)
        yield from (f"+ {server}: {flag}" for flag in new if flag not in old)


def _flags(argv: Sequence[str]) -> list[str]:
    """Return the flags of a command line with their values: `--port 8000`; words before the first one by themselves."""
    flags: list[list[str]] = []
    for word in argv:
        if word.startswith("-") or not flags or not flags[-1][0].startswith("-"):
            flags.append([word])
        else:
            flags[-1].append(word)
    return [" ".join(words) for words in flags]
