"""Read the SSH configuration with Paramiko, where there is no ssh program to ask.

Known differences from ssh: `Match exec`, `localnetwork` and CanonicalizeHostname are not evaluated; an Include within a
Host or Match block applies as if it stood outside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import paramiko

from flagscale_deploy.transport.ssh_config_files import RELEVANT, ConfigFile, arguments, directive
from flagscale_deploy.transport.ssh_settings import DEFAULT_KEYS, Answer, ConfigProblem, Destination, local_user

_LISTS = ("identityfile", "certificatefile")
_AS_WRITTEN = ("proxycommand", "userknownhostsfile", "globalknownhostsfile")


def answer(destination: Destination, files: tuple[ConfigFile, ...]) -> Answer:
    """Return the values as `ssh -G` would print them. Raises ConfigProblem for what Paramiko cannot read."""
    user, _, alias = destination.alias.rpartition("@")
    lines = [*_options(destination), *(line for file in files for line in ("Host *", *_flattened(file)))]
    try:
        read = paramiko.SSHConfig.from_text("\n".join(lines)).lookup(alias)
    except (paramiko.SSHException, ImportError, ValueError, LookupError) as error:
        problem = f"the SSH configuration cannot be read without an ssh program: {error}"
        raise ConfigProblem(problem, "install the OpenSSH client on this machine") from error
    values = {key: list(value) if isinstance(value, list) else [str(value)] for key, value in read.items()}
    values |= {"user": [destination.user or user or (values.get("user") or [local_user()])[0]]}
    values.setdefault("identityfile", list(DEFAULT_KEYS))
    return values | ({"port": [str(destination.port)]} if destination.port else {})


def _options(destination: Destination) -> Iterator[str]:
    """Yield the options of a command line as lines of a file, which come before those of the files."""
    yield "Host *"
    words = iter((*destination.settings, *destination.options))
    for word in words:
        if word == "-o":
            yield re.sub(r"^\s*(\w+)\s*=\s*", r"\1 ", next(words))


def _flattened(file: ConfigFile) -> Iterator[str]:
    """Yield the lines that matter, in a form that Paramiko reads; those of an included file in place of its Include."""
    block = "Host *"
    for at, line in enumerate(file.lines):
        keyword, rest = directive(line)
        if keyword in ("host", "match"):
            block = " ".join([keyword, *(arguments(rest.replace("=", " ") if keyword == "match" else rest))])
            yield block
        elif keyword == "include":
            for included in file.included.get(at, ()):
                yield from _flattened(included)
                yield block
        elif keyword in RELEVANT and not keyword.startswith("canonical"):
            words = arguments(rest)
            value = rest if keyword in _AS_WRITTEN else words[0] if words else ""
            yield f"{keyword} {value}"
