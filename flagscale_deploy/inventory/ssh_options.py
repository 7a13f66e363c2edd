"""The meaning of ssh options in Ansible variables such as `ansible_ssh_common_args`.

Those that have a key of ours become that key. Of the others, those that decide where a connection goes are kept for
ssh to read (`ssh_options`). Options that only tune OpenSSH (ControlMaster, ServerAliveInterval, …) have no effect here
and are ignored.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping

from flagscale_deploy.support.quote import quoted

_WITH_VALUE = frozenset("BbcDEeFIiJLlmOopQRSWw")
"""Flags of ssh(1) that take a value."""

_CHECKING: Mapping[str, str | None] = {
    "yes": "strict",
    "true": "strict",
    "no": "off",
    "off": "off",
    "false": "off",
    "accept-new": "accept-new",
    "ask": None,
}

_FLAGS = {"J": "proxyjump", "p": "port", "l": "user", "i": "identityfile", "b": "bindaddress"}

_FAMILIES = {"-4": "inet", "-6": "inet6"}

_OPTIONS = {
    "proxyjump": "proxy_jump",
    "port": "port",
    "user": "user",
    "identityfile": "identity_file",
    "hostname": "address",
    "userknownhostsfile": "known_hosts",
}

_KEPT = {
    "proxycommand": "ProxyCommand",
    "identityagent": "IdentityAgent",
    "identitiesonly": "IdentitiesOnly",
    "certificatefile": "CertificateFile",
    "hostkeyalias": "HostKeyAlias",
    "globalknownhostsfile": "GlobalKnownHostsFile",
    "connecttimeout": "ConnectTimeout",
    "addressfamily": "AddressFamily",
    "bindaddress": "BindAddress",
    "canonicalizehostname": "CanonicalizeHostname",
    "canonicaldomains": "CanonicalDomains",
}
"""Options that are left to ssh, as it spells them."""


def read_ssh_options(arguments: str) -> dict[str, str]:
    """Return our host keys as the arguments set them; the first mention of a key counts, as in OpenSSH.

    Raises ValueError for arguments that cannot be split, and for values that cannot be followed.
    """
    keys: dict[str, str] = {}
    left: list[str] = []
    for name, value in _options(shlex.split(arguments)):
        if name == "F":
            left += ["-F", value]
        elif name == "proxycommand" and (jump := _jump_of(value)):
            keys.setdefault("proxy_jump", jump)
        elif name in _KEPT:
            left += ["-o", f"{_KEPT[name]}={value}"]
        for key, meaning in _meaning(name, value):
            keys.setdefault(key, meaning)
    return keys | ({"ssh_options": shlex.join(left)} if left else {})


def checked_ssh_options(text: str) -> str:
    """Return the options that are left to ssh of those that a user wrote; the same text where these are all.

    Raises ValueError for those that have a key of their own.
    """
    keys = read_ssh_options(text)
    own = [key for key in keys if key != "ssh_options"]
    if own:
        raise ValueError(f"{own[0]} has a key of its own")
    return keys.get("ssh_options", "")


def _meaning(name: str, value: str) -> Iterator[tuple[str, str]]:
    if name in _OPTIONS:
        yield _OPTIONS[name], value
    elif name == "stricthostkeychecking":
        checking = _CHECKING.get(value.lower(), "")
        if checking == "":
            raise ValueError(f"found StrictHostKeyChecking={quoted(value)}, expected yes, no or accept-new")
        if checking is not None:
            yield "host_key_checking", checking


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    waiting = list(reversed(words))
    while waiting:
        word = waiting.pop()
        flags, value = _split_flag(word, waiting.pop if waiting else None)
        if word in _FAMILIES:
            yield "addressfamily", _FAMILIES[word]
        elif flags == "o":
            setting = re.match(r"\s*(\w+)\s*=?\s*(.*)", value, re.DOTALL)
            if setting is not None:
                yield setting[1].lower(), _unquoted(setting[2].strip())
        elif flags:
            yield _FLAGS.get(flags, flags), value


def _unquoted(value: str) -> str:
    """Return a value without quotes around the whole of it; ProxyCommand keeps those within."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' and '"' not in value[1:-1] else value


def _split_flag(word: str, next_word: Callable[[], str] | None) -> tuple[str, str]:
    """Return the flag that takes a value and its value, joined (`-p22`) or apart (`-p 22`); empty for `-q`, `-4`."""
    if not word.startswith("-"):
        return "", ""
    for index, flag in enumerate(word[1:], start=1):
        if flag in _WITH_VALUE:
            joined = word[index + 1 :]
            if not joined and next_word is None:
                raise ValueError(f"found -{flag} without a value")
            return flag, joined or (next_word() if next_word else "")
    return "", ""


def _jump_of(command: str) -> str | None:
    """Return the ProxyJump that is the same as `ssh -W %h:%p [-q] [-p PORT] [-l USER] [USER@]HOST`, else None."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    given: dict[str, str] = {}
    waiting = list(reversed(words[1:]))
    while waiting:
        word = waiting.pop()
        flag, value = _split_flag(word, waiting.pop if waiting else None) if word.startswith("-") else ("host", word)
        if (flag or word) not in ("host", "W", "p", "l", "-q") or flag in given:
            return None
        given[flag] = value
    if words[:1] != ["ssh"] or given.get("W") not in ("%h:%p", "[%h]:%p") or "host" not in given:
        return None
    user = f"{given['l']}@" if "l" in given and "@" not in given["host"] else ""
    return user + given["host"] + (f":{given['p']}" if "p" in given else "")
