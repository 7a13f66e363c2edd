"""Which names ssh resolves alike, so that it need be asked once for all of them.

The meaning of the lines is left to `ssh -G`. Read here is only which Host blocks apply to a name. Names are alike where
the same blocks apply, or blocks of their own that differ in nothing but a plain HostName.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from flagscale_deploy.transport.ssh_config_files import HARMLESS, ConfigFile, arguments, directive

_VARYING = re.compile(r"\b(exec|localnetwork)\b", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z0-9._:-]+")
_NAME = re.compile(r"[a-z0-9._-]+")


@dataclass(frozen=True)
class Group:
    """A text that names have in common which ssh resolves alike; and the HostName of the name, if it has one."""

    key: str
    hostname: str | None = None


@dataclass
class _Block:
    """Lines that apply where every one of the Host lines does, and a Match that is left to ssh."""

    hosts: tuple[tuple[str, ...], ...]
    match: bool = False
    lines: list[tuple[str, str]] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of its one Host line, if that has nothing else."""
        plain = len(self.hosts) == 1 and not self.match and all(_PLAIN.fullmatch(word) for word in self.hosts[0])
        return self.hosts[0] if plain else ()

    @property
    def hostname(self) -> str | None:
        """Return its HostName, which may have the token %h; "" where it has others, or is no plain name."""
        for keyword, rest in self.lines:
            if keyword == "hostname":
                words = arguments(rest)
                return words[0] if len(words) == 1 and _PLAIN.fullmatch(words[0].replace("%h", "h")) else ""
        return None

    def applies(self, name: str) -> bool:
        return all(host_line_applies(words, name) for words in self.hosts)

    def content(self) -> tuple[tuple[str, str], ...]:
        """Return its lines without the value of HostName."""
        return tuple((keyword, "" if keyword == "hostname" else rest) for keyword, rest in self.lines)


class Groups:
    """The names that the lines of some files tell apart."""

    def __init__(self, files: tuple[ConfigFile, ...]) -> None:
        lines = [line for file in files for line in file.directives]
        self.matter = any(keyword not in HARMLESS for keyword, _ in lines)
        """Whether any keyword stands there that a connection may depend on."""
        self.vary = any(map(_varies, lines))
        """Whether the values depend on more than these files: on a program, the network or the environment."""
        self._each = any(
            ("%" in rest and keyword in ("user", "include"))
            or (keyword in ("host", "match", "hostname") and re.search(r"[\"'\\\\]", rest))
            for keyword, rest in lines
        )
        self._hostnames = {rest.split()[0].lower() for keyword, rest in lines if keyword == "hostname" and rest.split()}
        words = {word for keyword, rest in lines if keyword == "match" for word in re.split(r"[\s,=!]+", rest) if word}
        self._of_match = [_pattern(word.lower()) for word in sorted(words)]
        self._final = any(
            keyword == "match" and re.search("final|canonical", rest, re.IGNORECASE) for keyword, rest in lines
        )
        self._blocks = [block for file in files for block in _blocks(file, _Block(()))]
        self._by_name: dict[str, list[int]] = {}
        for at, block in enumerate(self._blocks):
            for name in block.names:
                self._by_name.setdefault(name, []).append(at)
        self._others = [at for at, block in enumerate(self._blocks) if not block.names]

    def of(self, name: str) -> Group:
        """Return the group of a name: one of its own where it cannot be known what it has in common with others."""
        alone = Group(f"={name}")
        if self._each or not _NAME.fullmatch(name) or name in self._hostnames:
            return alone
        others = [at for at in self._others if self._blocks[at].applies(name)]
        applying = sorted({*self._by_name.get(name, ()), *others})
        naming = [self._blocks[at] for at in applying if self._blocks[at].hostname is not None]
        varying = [block for block in naming if block.names or "%" in (block.hostname or "%")]
        if varying and (self._final or naming[0].match or any(not block.hostname for block in varying)):
            return alone
        hostname = (naming[0].hostname or "").replace("%h", name) if naming and not naming[0].match else None
        parts = [self._blocks[at].content() if self._blocks[at].names else at for at in applying]
        hits = [
            bool(pattern.fullmatch(text)) for pattern in self._of_match for text in (name, (hostname or "").lower())
        ]
        return Group(repr((parts, hits)), hostname)


def _blocks(file: ConfigFile, outer: _Block) -> Iterator[_Block]:
    """Yield the blocks of a file that stands where `outer` applies, in their order, with those of included files."""
    block = _Block(outer.hosts, outer.match)
    for at, line in enumerate(file.lines):
        keyword, rest = directive(line)
        if keyword in ("host", "match", "include"):
            yield block
        if keyword == "host":
            block = _Block((*outer.hosts, tuple(arguments(rest))), outer.match)
        elif keyword == "match":
            block = _Block(outer.hosts, match=True, lines=[(keyword, rest)])
        elif keyword == "include":
            for included in file.included.get(at, ()):
                yield from _blocks(included, block)
            block = _Block(block.hosts, block.match)
        elif keyword:
            block.lines.append((keyword, rest))
    yield block


def host_line_applies(words: Sequence[str], name: str) -> bool:
    """Return whether a Host line applies to a name (ssh_config(5), PATTERNS)."""
    if any(word.startswith("!") and _pattern(word[1:]).fullmatch(name) for word in words):
        return False
    return any(_pattern(word).fullmatch(name) for word in words if not word.startswith("!"))


def _pattern(word: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in word), re.DOTALL)


def _varies(line: tuple[str, str]) -> bool:
    keyword, rest = line
    if keyword == "match":
        return bool(_VARYING.search(rest))
    if keyword == "canonicalizehostname":
        return rest.strip('"').lower() != "no"
    return keyword in ("include", "hostname", "user") and ("$" in rest or (keyword == "include" and "%" in rest))
