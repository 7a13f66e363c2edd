"""Read the SSH configuration with Paramiko, where there is no ssh program to ask.

Known differences from ssh: `Match exec`, `localnetwork` and CanonicalizeHostname are not evaluated; unknown keywords
are passed over; of several CertificateFile lines the first counts. `READER_DIFFERS` in the tests lists others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import paramiko

from flagscale_deploy.transport.ssh_config_files import RELEVANT, ConfigFile, arguments, directive
from flagscale_deploy.transport.ssh_config_groups import host_line_applies
from flagscale_deploy.transport.ssh_settings import (
    DEFAULT_KEYS,
    Answer,
    ConfigProblem,
    Destination,
    local_user,
    parse_jump,
    percent_expanded,
)

_PATHS = ("userknownhostsfile", "globalknownhostsfile")
_PROXIES = ("proxyjump", "proxycommand")
_FIRST_PROXY = "firstproxy"
"""A keyword of our own for which of the two stands first: it takes effect."""
_APPLIES = "applies"
"""A keyword of our own, to ask whether a Match applies."""
_EVERYWHERE = "host *"
_AT_THE_END = re.compile(r"\b(?:final|canonical)\b", re.IGNORECASE)


class _Reader(paramiko.SSHConfig):
    """Paramiko's reader without its tokens: `ssh_settings` has all of them."""

    def _allowed_tokens(self, _key: str) -> list[str]:
        return []


def answer(destination: Destination, files: tuple[ConfigFile, ...]) -> Answer:
    """Return the values as `ssh -G` would print them. Raises ConfigProblem for what cannot be read."""
    user, _, alias = destination.alias.rpartition("@")
    lines = _Lines(alias)
    for option in _options(destination, user):
        lines.set(*directive(option))
    for file in files:
        lines.add(file, _EVERYWHERE)
    values = lines.look_up()
    first = values.get(_FIRST_PROXY)
    values = {key: value for key, value in values.items() if key not in _PROXIES or [key] == first}
    for keyword in ("hostname", "hostkeyalias"):
        if keyword in values:
            values[keyword] = [values[keyword][0].lower()]
    for hop in values["proxyjump"][0].split(",") if "proxyjump" in values else ():
        parse_jump(hop)  # ssh refuses others, too
    return {"user": [local_user()], "identityfile": DEFAULT_KEYS, **values}


def _options(destination: Destination, user: str) -> Iterator[str]:
    """Yield the options of a command line as lines of a file, which come before those of the files."""
    words = iter((*destination.settings, *destination.options))
    yield from (next(words) for word in words if word == "-o")
    if destination.user or user:
        yield f"user {destination.user or user}"
    if destination.port:
        yield f"port {destination.port}"


class _Lines:
    """The lines that matter to one name, in a form that Paramiko reads."""

    def __init__(self, alias: str) -> None:
        self._alias, self._lines = alias, [_EVERYWHERE]

    def add(self, file: ConfigFile, block: str) -> None:
        """Add the lines of a file, which stands where `block` applies; those of an included file at its Include."""
        self._lines.append(block)
        began = len(self._lines)
        for at, line in enumerate(file.lines):
            keyword, rest = directive(line)
            if keyword in ("host", "match"):
                block = " ".join([keyword, *(arguments(rest.replace("=", " ") if keyword == "match" else rest))])
                began = len(self._lines)
                self._lines.append(block)
            elif keyword == "include" and file.included.get(at) and self._applies(block, began):
                block = block if _AT_THE_END.search(block) else _EVERYWHERE
                for included in file.included[at]:
                    self.add(included, block)
                self._lines.append(block)
            else:
                self.set(keyword, rest)

    def set(self, keyword: str, rest: str) -> None:
        """Add a line, unless it does not matter."""
        if keyword not in RELEVANT or keyword.startswith("canonical"):
            return
        words = arguments(rest)
        value = words[0] if words else ""
        if keyword == "proxycommand" or (keyword == "proxyjump" and value.lower() != "none"):
            self._lines.append(f"{_FIRST_PROXY} {keyword}")
        if keyword == "hostname":
            value = percent_expanded(value, {"%": "%", "h": self._alias})
        if keyword in _PATHS:
            value = " ".join(words)
        self._lines.append(f"{keyword} {rest if keyword == 'proxycommand' else value}")

    def look_up(self, end: int | None = None, *more: str) -> dict[str, list[str]]:
        """Return the values for the name, of all lines or of those up to one. Raises ConfigProblem."""
        try:
            read = _Reader.from_text("\n".join([*self._lines[:end], *more])).lookup(self._alias)
        except (paramiko.SSHException, ImportError, ValueError, LookupError) as error:
            problem = f"the SSH configuration cannot be read without an ssh program: {error}"
            raise ConfigProblem(problem, "install the OpenSSH client on this machine") from error
        return {key: list(value) if isinstance(value, list) else [str(value)] for key, value in read.items()}

    def _applies(self, block: str, began: int) -> bool:
        """Return whether a block that begins at a line applies to the name, or may do so at the end."""
        keyword, *words = block.split(" ")
        if keyword == "host":
            return host_line_applies(words, self._alias)
        return _AT_THE_END.search(block) is not None or _APPLIES in self.look_up(began, block, f"{_APPLIES} yes")
