"""Make text of hosts and other programs fit to be shown: no escape sequences, and one line where one is meant.

Whoever writes a log line, a file name or a reply on a host must neither move the cursor nor begin a line that looks
like one of ours.
"""

from __future__ import annotations

import re

LONGEST_LINE = 20_000
"""Characters of a line that are shown."""
_SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-9;:?]{0,64}m")
"""Colour codes, which logs often contain."""
_ANY_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]"  # CSI
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x80-\x9f]{0,2000}(?:\x07|\x1b\\|\x9c)"  # OSC and its kind
    r"|\x1b[ -/]{0,8}[0-~]"
)
_START = re.compile(r"[\x1b\x80-\x9f]")
_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Characters that show nothing although Unicode counts them as printable."""
_MARK = "\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0e31\u0e34-\u0e3a\u0e47-\u0e4e" \
        "\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f\U000e0100-\U000e01ef"  # fmt: skip
_UNUSUAL = re.compile(r"[^ -~\n\t]+")
_BLANKS = re.compile(f"[{_BLANK}]")
_FLOOD = re.compile(rf"([{_MARK}]{{4}})[{_MARK}]+")
"""More accents and variation selectors on one character than any language has."""
_ENDS = {"\n": "\\n", "\r": "\\r", **{end: f"\\x{ord(end):02x}" for end in "\v\f\x1c\x1d\x1e\x85\u2028\u2029"}}
_END = re.compile(f"[{''.join(_ENDS)}]")


def without_colours(text: str) -> str:
    """Return text without colour codes."""
    return _SEQUENCE.sub("", text) if "\x1b" in text or "\x9b" in text else text


def plain(text: str) -> str:
    """Return text without colour codes; what else is not printable is escaped, except line ends and tabs."""
    if text.isascii() and text.isprintable():
        return text
    text = without_colours(text)
    if not text.isascii():
        text = _FLOOD.sub(r"\1", text)
    return _UNUSUAL.sub(lambda run: run[0] if _shows(run[0]) else "".join(map(_escaped, run[0])), text)


def bare(text: str) -> str:
    """Return text as a terminal would show it: without escape sequences and characters that show nothing."""
    if text.isascii() and text.isprintable():
        return text
    if _START.search(text):
        text = _ANY_SEQUENCE.sub("", text)
    if not text.isascii():
        text = _FLOOD.sub("", text)
    return _UNUSUAL.sub(lambda run: run[0] if _shows(run[0]) else "".join(filter(_shows, run[0])), text)


def one_line(text: str) -> str:
    """Return text as `bare` does, on one line: line ends within it are escaped, and a very long line is cut."""
    if len(text) > LONGEST_LINE:
        text = f"{text[:LONGEST_LINE]} … [{len(text) - LONGEST_LINE:,} characters cut]"
    if text.isascii() and text.isprintable():
        return text
    return bare(_END.sub(lambda end: _ENDS[end[0]], text.strip("\r\n")))


def _shows(text: str) -> bool:
    return text.isprintable() and not _BLANKS.search(text)


def _escaped(char: str) -> str:
    return char if _shows(char) else f"\\x{ord(char):02x}"
