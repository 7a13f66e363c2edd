"""The way to a host: its settings, and those of the jump hosts before it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace

from flagscale_deploy.inventory.model import Host
from flagscale_deploy.inventory.ranges import split_login
from flagscale_deploy.transport.ssh_config import Resolver
from flagscale_deploy.transport.ssh_settings import ConfigProblem, Destination, Settings, expanded, parse_jump

LONGEST = 16
"""How many jump hosts a way may have: more are a loop."""


def destination_of(host: Host) -> Destination:
    """Return what ssh would be given for a host of the inventory."""
    user, address, port = split_login(host.address)
    words, config_file = _words(host.ssh_options or "")
    return Destination(
        address,
        user=host.user or user,
        port=host.port or port,
        identity_file=host.identity_file,
        proxy_jump=host.proxy_jump,
        options=words,
        config_file=config_file,
    )


def find_route(host: Host, resolver: Resolver) -> tuple[Settings, ...]:
    """Return the settings of every machine on the way to a host, which is the last. Raises ConfigProblem."""
    destination = destination_of(host)
    target = resolver.resolve(destination)
    route = [target]
    for hop in _hops(target, resolver):
        if len(route) > LONGEST or any(_is_same(hop, other) for other in route):
            raise ConfigProblem(
                f"the way to it goes through jump host {hop.alias} twice",
                "exclude the jump host from its own ProxyJump in ~/.ssh/config: `Host * !jumphost`",
            )
        route.append(_with_key(hop, host))
    return tuple(reversed(route))


def _hops(target: Settings, resolver: Resolver) -> Iterator[Settings]:
    """Yield the jump hosts, the nearest to the host first; each has the configuration of its own, as in ssh."""
    while target.jumps:
        *before, last = target.jumps
        user, name, port = parse_jump(last)
        jump = ",".join(before) or None
        target = resolver.resolve(Destination(name, user, port, proxy_jump=jump, config_file=target.config_file))
        yield target


def _is_same(one: Settings, other: Settings) -> bool:
    return (one.hostname, one.port, one.user) == (other.hostname, other.port, other.user)


def _with_key(hop: Settings, host: Host) -> Settings:
    """Return the settings of a jump host with the identity file that the inventory names for the host."""
    if host.identity_file is None:
        return hop
    key = expanded(host.identity_file, {"%": "%"}) if "%" not in host.identity_file else host.identity_file
    return replace(hop, identity_files=(key, *hop.identity_files), preferred_key=key)


def _words(options: str) -> tuple[tuple[str, ...], str | None]:
    """Return the words of ssh options without `-F FILE`, and that file."""
    rest: list[str] = []
    file = None
    words: Sequence[str] = shlex.split(options)
    waiting = list(reversed(words))
    while waiting:
        word = waiting.pop()
        if word == "-F" and waiting:
            file = waiting.pop()
        elif word.startswith("-F"):
            file = word[2:]
        else:
            rest.append(word)
    return tuple(rest), file
