"""Host names with ranges: `gpu[01:16]`, `rack[a:c]-node[1:9:2]`, `gpu[01-04,07]`, `ubuntu@gpu[01:04]:2222`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address
from itertools import product
from string import ascii_letters

from flagscale_deploy.support.quote import quoted

MOST_HOSTS = 100_000
"""No inventory is larger; a slip such as `[1:99999999]` would fill the memory."""
LONGEST_NAME = 253
"""Characters of a name in DNS."""

_MOST_DIGITS = 18
_NAME = re.compile(r"\w[\w.:-]*")
_BRACKETED = re.compile(r"\[([^\[\]:]*:[^\[\]:]*:[^\[\]]*)\]:([0-9]+)")
_SLURM_LIST = re.compile(r"(?=.*[-,])[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")
_WITH_PORT = re.compile(r"((?:[^:\[\]]|\[[^\]]*\])+):([0-9]+)")


def expand(pattern: str) -> list[str]:
    """Return every name that a pattern stands for, the leftmost range turning slowest.

    Both ends are included; a leading zero fixes the width; an absent begin is 0. Raises ValueError with what is wrong
    and what was expected. The rules are Ansible's (docs.ansible.com, "Adding ranges of hosts"), save that a range
    without members is an error here, and that a name must be fit for a file path. Lists of Slurm (`[01-04,07]`) are
    read, too.
    """
    if is_ip_address(pattern):
        return [pattern]
    if len(pattern) > 2 * LONGEST_NAME:
        raise ValueError(f"found a host name of {len(pattern):,} characters, expected {LONGEST_NAME} at most")
    parts = re.split(r"\[([^\[\]]*)\]", pattern)
    texts, ranges = parts[::2], [_members(bounds) for bounds in parts[1::2]]
    if any("[" in text or "]" in text for text in texts):
        raise ValueError(f"found {quoted(pattern)} with a bracket that has no partner")
    _limit_size(pattern, ranges)
    names = ["".join(_interleave(texts, chosen)) for chosen in product(*ranges)]
    for name in names:
        if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
            raise ValueError(
                f"found the host name {quoted(name)}, expected letters, digits, '.', '-', '_' or an IP address"
            )
    return names


def split_port(pattern: str) -> tuple[str, int | None]:
    """Split `gpu01:22` → (`gpu01`, 22), `[fe80::1]:22` → (`fe80::1`, 22); leave ranges and bare IPv6 addresses."""
    match = _BRACKETED.fullmatch(pattern) or _WITH_PORT.fullmatch(pattern)
    if match is None or is_ip_address(pattern):
        return pattern, None
    return match[1], int((match[2].lstrip("0") or "0")[:9])


def split_login(text: str) -> tuple[str | None, str, int | None]:
    """Split `user@host:port` → (user, host, port); user and port may be absent."""
    user, at, rest = text.rpartition("@")
    host, port = split_port(rest)
    return (user if at else None), host, port


def is_ip_address(text: str) -> bool:
    """Return whether a text is an IP address rather than a name."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _members(bounds: str) -> Sequence[str]:
    members: Sequence[str]
    if _SLURM_LIST.fullmatch(bounds):
        listed: list[str] = []
        for part in bounds.split(","):
            listed += _members(":".join(_ends(part)))
            _limit_size(f"[{bounds}]", [listed])
        return listed
    begin, end, step = _bounds(bounds)
    if len(begin) == len(end) == 1 and begin in ascii_letters and end in ascii_letters:
        members = ascii_letters[ascii_letters.index(begin) : ascii_letters.index(end) + 1 : step]
    elif begin.isdecimal() and end.isdecimal() and max(len(begin), len(end)) <= _MOST_DIGITS:
        members = _numbers(begin, end, step)
    else:
        raise ValueError(f"found the range [{bounds}], expected two numbers or two letters")
    if not members:
        raise ValueError(f"found the range [{bounds}], which has no members: its end comes before its begin")
    return members


def _ends(part: str) -> tuple[str, str]:
    begin, _, end = part.partition("-")
    return begin, end or begin


def _bounds(bounds: str) -> tuple[str, str, int]:
    parts = bounds.split(":")
    if len(parts) not in (2, 3) or not parts[1]:
        raise ValueError(f"found the range [{bounds}], expected [begin:end] or [begin:end:step]")
    step = parts[2] if len(parts) == 3 else "1"
    if not step.isdecimal() or len(step) > _MOST_DIGITS or int(step) == 0:
        raise ValueError(f"found the step {quoted(step)} in the range [{bounds}], expected a whole number above 0")
    return parts[0] or "0", parts[1], int(step)


def _numbers(begin: str, end: str, step: int) -> Sequence[str]:
    padded = begin.startswith("0") and len(begin) > 1
    if padded and len(begin) != len(end):
        raise ValueError(f"found the range [{begin}:{end}], expected both ends to have as many digits")
    numbers = range(int(begin), int(end) + 1, step)
    _limit_size(f"[{begin}:{end}]", [numbers])
    width = len(begin) if padded else 0
    return [str(number).zfill(width) for number in numbers]


def _limit_size(pattern: str, ranges: Sequence[Sequence[object]]) -> None:
    size = 1
    for members in ranges:
        size *= len(members)
    if size > MOST_HOSTS:
        raise ValueError(f"found {quoted(pattern)}, which names {size} hosts; expected {MOST_HOSTS} at most")


def _interleave(texts: Sequence[str], chosen: Sequence[str]) -> Sequence[str]:
    return [part for pair in zip(texts, (*chosen, ""), strict=True) for part in pair]
