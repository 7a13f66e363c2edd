"""`--limit`: host patterns as Ansible has them (docs.ansible.com, "Patterns: targeting hosts and groups")."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import replace

from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.keys import nearest
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.inventory.ranges import is_ip_address
from flagscale_deploy.inventory.tree import ALL

_SUBSCRIPT = re.compile(r"(.+)\[(?:(-?\d+)|(\d+):(\d*))\]")
_TERM = re.compile(r"(?:[^\s:\[\]]|\[[^\]]*\])+")
_WHERE = "--limit"


def limit(inventory: Inventory, pattern: str) -> Inventory:
    """The inventory with only the hosts that a pattern matches, in their order; groups keep those of their hosts.

    Terms are separated by commas or colons: a host, a group, `all`, a wildcard `gpu*`, `~regex`, `group[0]`,
    `group[0:2]` (both ends included), `!term` to exclude, `&term` to intersect. Raises InputError where no host is
    left, and where a plain name is unknown: `all,!gpu3` must not act on gpu03.
    """
    terms = _terms(pattern)
    chosen: set[str] = set()
    plain = [term for term in terms if term[0] not in "&!"]
    for term in plain or [ALL]:
        chosen.update(_matches(inventory, term))
    for term in terms:
        if term[0] == "&":
            chosen.intersection_update(_matches(inventory, term[1:]))
    for term in terms:
        if term[0] == "!":
            chosen.difference_update(_matches(inventory, term[1:]))
    if not chosen:
        raise InputError.at(_WHERE, f"{pattern!r} matches no host of {inventory.source}", "`hosts` lists them")
    return _restrict(inventory, chosen)


def _restrict(inventory: Inventory, chosen: set[str]) -> Inventory:
    hosts = tuple(host for host in inventory.hosts if host.name in chosen)
    groups = {
        name: replace(group, hosts=tuple(host for host in group.hosts if host in chosen))
        for name, group in inventory.groups.items()
    }
    return replace(inventory, hosts=hosts, groups=groups)


def _terms(pattern: str) -> list[str]:
    if "," in pattern:
        found = pattern.split(",")
    else:
        # A colon separates too, but not inside an IPv6 address or a bracket.
        found = [pattern] if is_ip_address(pattern.strip("!& ")) else _TERM.findall(pattern)
    terms = [term.strip() for term in found if term.strip()]
    if any(not term.strip("!&") for term in terms):
        raise InputError.at(_WHERE, f"found {pattern!r}, expected a name after '!' and '&'", "as in 'all,!gpu03'")
    return terms


def _matches(inventory: Inventory, term: str) -> list[str]:
    if term in inventory.names:
        return [term]
    subscripted = None if term.startswith("~") else _SUBSCRIPT.fullmatch(term)
    if subscripted is None:
        return _named(inventory, term)
    expression, index, begin, end = subscripted.groups()
    hosts = _named(inventory, expression)
    if index is None:
        return hosts[int(begin) : int(end) + 1 if end else None]
    if not -len(hosts) <= int(index) < len(hosts):
        raise InputError.at(_WHERE, f"found {term!r}, but {expression!r} has {len(hosts)} hosts", "the first is [0]")
    return [hosts[int(index)]]


def _named(inventory: Inventory, expression: str) -> list[str]:
    matcher = _compile(expression)
    found: dict[str, None] = {}
    groups = [name for name in inventory.groups if matcher.match(name)]
    for group in groups:
        found.update(dict.fromkeys(_ordered_members(inventory, group)))
    # Ansible looks at the names of hosts only where no group matched or the expression is more than a plain name.
    if not groups or expression[0] == "~" or any(special in expression for special in ".?*["):
        found.update(dict.fromkeys(name for name in inventory.names if matcher.match(name)))
    if not found and not groups and not _is_wild(expression):
        known = (*inventory.names, *inventory.groups)
        problem = f"{expression!r} is no host or group of {inventory.source}"
        raise InputError.at(_WHERE, problem, nearest(expression, known, "`hosts` lists them"))
    return list(found)


def _is_wild(expression: str) -> bool:
    return expression[0] == "~" or any(special in expression for special in "?*[")


def _compile(expression: str) -> re.Pattern[str]:
    try:
        return re.compile(expression[1:] if expression[0] == "~" else fnmatch.translate(expression))
    except re.error as error:
        raise InputError.at(
            _WHERE, f"found {expression!r}, which is no regular expression: {error}", "as in '~gpu0[1-4]'"
        ) from error


def _ordered_members(inventory: Inventory, group: str) -> Iterable[str]:
    """The hosts of a group and then those of its children, level by level: the order that subscripts count in."""
    found: dict[str, None] = {}
    level, seen = [group], {group}
    while level:
        for name in level:
            found.update(dict.fromkeys(inventory.groups[name].hosts))
        children = dict.fromkeys(child for name in level for child in inventory.groups[name].children)
        level = [child for child in children if child not in seen]
        seen.update(level)
    return found
