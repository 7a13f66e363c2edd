"""The files of the SSH configuration: which they are, what they include, and their state on disk."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from flagscale_deploy.errors import InputError
from flagscale_deploy.support.input_files import read_bytes

SYSTEM = "/etc/ssh/ssh_config"
DEPTH = 16
"""How deep ssh follows Include."""

RELEVANT = frozenset((
    "hostname", "user", "port", "identityfile", "certificatefile", "identityagent", "identitiesonly", "proxyjump",
    "proxycommand", "hostkeyalias", "userknownhostsfile", "userknownhostsfile2", "globalknownhostsfile",
    "globalknownhostsfile2", "stricthostkeychecking", "connecttimeout", "addressfamily", "bindaddress",
    "canonicalizehostname", "canonicaldomains", "canonicalizefallbacklocal", "canonicalizemaxdots",
    "canonicalizepermittedcnames", "revokedhostkeys",
))  # fmt: skip
"""The keywords that a connection of ours depends on."""

HARMLESS = frozenset((
    "host", "match", "include", "addkeystoagent", "batchmode", "checkhostip", "ciphers", "clearallforwardings",
    "compression", "controlmaster", "controlpath", "controlpersist", "dynamicforward", "enableescapecommandline",
    "escapechar", "exitonforwardfailure", "fingerprinthash", "forkafterauthentication", "forwardagent", "forwardx11",
    "forwardx11timeout", "forwardx11trusted", "gatewayports", "gssapiauthentication", "gssapidelegatecredentials",
    "gssapikeyexchange", "gssapirenewalforcesrekey", "gssapitrustdns", "gssapikexalgorithms", "hashknownhosts",
    "hostbasedauthentication", "hostkeyalgorithms", "ignoreunknown", "ipqos", "kbdinteractiveauthentication",
    "kexalgorithms", "localforward", "loglevel", "logverbose", "macs", "numberofpasswordprompts",
    "obscurekeystroketiming", "passwordauthentication", "permitlocalcommand", "localcommand", "permitremoteopen",
    "pkcs11provider", "preferredauthentications", "pubkeyacceptedalgorithms", "rekeylimit", "remotecommand",
    "remoteforward", "requesttty", "sendenv", "serveralivecountmax", "serveraliveinterval", "sessiontype", "setenv",
    "stdinnull", "streamlocalbindmask", "streamlocalbindunlink", "syslogfacility", "tcpkeepalive", "tunnel",
    "tunneldevice", "updatehostkeys", "visualhostkey", "xauthlocation",
))  # fmt: skip
"""The keywords that no connection of ours depends on: where no others stand, ssh need not be asked."""

_LINE = re.compile(r"\s*\"?([A-Za-z][A-Za-z0-9]*)\"?(?:\s*=\s*|\s+|$)(.*)", re.DOTALL)
_ARGUMENT = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'([^']*)'|(#.*)|(\S+)", re.DOTALL)


@dataclass(frozen=True)
class ConfigFile:
    """A file: its lines, what each Include among them names (by line number), and its state on disk."""

    path: str
    lines: tuple[str, ...]
    state: tuple[int, ...]
    included: Mapping[int, tuple[ConfigFile, ...]] = field(default_factory=dict)

    def walk(self) -> Iterator[ConfigFile]:
        """Yield this file and all that it includes."""
        yield self
        for files in self.included.values():
            for file in files:
                yield from file.walk()

    @cached_property
    def directives(self) -> tuple[tuple[str, str], ...]:
        """Return keyword (in lower case) and the rest of each line, those of included files too."""
        return tuple(
            (match[1].lower(), match[2].strip())
            for file in self.walk()
            for line in file.lines
            if (match := _LINE.match(line))
        )


def directive(line: str) -> tuple[str, str]:
    """Return keyword and arguments of a line; empty for blanks and comments."""
    match = _LINE.match(line)
    return (match[1].lower(), match[2].strip()) if match else ("", "")


def arguments(rest: str) -> list[str]:
    """Return the words of a line, up to a comment."""
    words = []
    for match in _ARGUMENT.finditer(rest):
        if match[3] is not None:
            break
        words.append(next(group for group in (match[1], match[2], match[4]) if group is not None))
    return words


def read_config(path: str, home: str, *, system: bool = False, depth: int = 0) -> ConfigFile | None:
    """Return a configuration file with what it includes; None where it cannot be read, or is too deep."""
    try:
        status = os.stat(path)
        text = read_bytes(path, pipes=False).decode(errors="surrogateescape")
    except (OSError, InputError):
        return None
    lines = tuple(text.splitlines())
    included = {}
    for at, line in enumerate(lines):
        keyword, rest = directive(line)
        if keyword == "include" and depth < DEPTH and (words := arguments(rest)):
            paths = [name for word in words for name in _matches(word, home, system)]
            files = (read_config(name, home, system=system, depth=depth + 1) for name in paths)
            included[at] = tuple(file for file in files if file is not None)
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return ConfigFile(path, lines, state, included)


def _matches(pattern: str, home: str, system: bool) -> list[str]:
    if pattern.startswith("~/"):
        pattern = home + pattern[1:]
    base = "/etc/ssh" if system else f"{home}/.ssh"
    return sorted(glob.glob(os.path.join(base, os.path.expanduser(pattern))))
