"""The meaning of ssh options in Ansible variables such as `ansible_ssh_common_args`.

Options that only tune OpenSSH (ControlMaster, ServerAliveInterval, …) have no effect here and are ignored.
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

_FLAGS = {"J": "proxyjump", "p": "port", "l": "user", "i": "identityfile"}

_OPTIONS = {
    "proxyjump": "proxy_jump",
    "port": "port",
    "user": "user",
    "identityfile": "identity_file",
    "hostname": "address",
    "userknownhostsfile": "known_hosts",
}


def read_ssh_options(arguments: str) -> dict[str, str]:
    """Return our host keys as the arguments set them; the first mention of a key counts, as in OpenSSH.

    Raises ValueError for arguments that cannot be split, and for those that a connection depends on and that cannot be
    followed.
    """
    keys: dict[str, str] = {}
    for name, value in _options(shlex.split(arguments)):
        for key, meaning in _meaning(name, value):
            keys.setdefault(key, meaning)
    return keys


def _meaning(name: str, value: str) -> Iterator[tuple[str, str]]:
    if name in _OPTIONS:
        # UserKnownHostsFile may list several files; the first is the one that ssh writes to.
        yield _OPTIONS[name], value.split()[0] if name == "userknownhostsfile" and value else value
    elif name == "stricthostkeychecking":
        checking = _CHECKING.get(value.lower(), "")
        if checking == "":
            raise ValueError(f"found StrictHostKeyChecking={value}, expected yes, no or accept-new")
        if checking is not None:
            yield "host_key_checking", checking
    elif name == "proxycommand" and value.lower() != "none":
        yield "proxy_jump", _jump_of(value)
    elif name == "F":
        raise ValueError(f"found -F {value}; expected its settings in ~/.ssh/config, which is the file that is read")


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    waiting = list(reversed(words))
    while waiting:
        word = waiting.pop()
        flags, value = _split_flag(word, waiting.pop if waiting else None)
        if flags == "o":
            setting = re.match(r"\s*(\w+)\s*=?\s*(.*)", value, re.DOTALL)
            if setting is not None:
                yield setting[1].lower(), setting[2].strip().strip('"')
        elif flags:
            yield _FLAGS.get(flags, flags), value


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


def _jump_of(command: str) -> str:
    """Return the ProxyJump that means the same as `ssh -W %h:%p [-p PORT] [-l USER] [USER@]HOST`."""
    refused = ValueError(
        f"found ProxyCommand={quoted(command)}; expected ProxyJump=[user@]host[:port], or a ~/.ssh/config entry"
    )
    words = shlex.split(command)
    if not words or words[0].rsplit("/", 1)[-1] != "ssh":
        raise refused
    user = port = target = forward = None
    waiting = list(reversed(words[1:]))
    while waiting:
        word = waiting.pop()
        flag, value = _split_flag(word, waiting.pop if waiting else None)
        if not word.startswith("-"):
            if target is not None:
                raise refused
            target = word
        elif flag == "W":
            forward = value.strip("[]").replace("]:", ":")
        elif flag == "p":
            port = value
        elif flag == "l":
            user = value
        elif flag in ("i", "F", "J") or (flag == "o" and value.lower().startswith("proxy")):
            raise refused
    if target is None or forward != "%h:%p":
        raise refused
    return (f"{user}@" if user and "@" not in target else "") + target + (f":{port}" if port else "")
