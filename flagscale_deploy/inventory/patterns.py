"""`--limit` and `--without`: Ansible's host patterns (docs.ansible.com, "Patterns: targeting hosts and groups")."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from flagscale_deploy.errors import FaultsError, InputError
from flagscale_deploy.inventory.keys import nearest
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.inventory.ranges import is_ip_address
from flagscale_deploy.inventory.regex_cost import ERRORS, steps
from flagscale_deploy.inventory.tree import ALL
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.units import KIB, counted

_SUBSCRIPT = re.compile(r"(.+)\[(?:(-?\d+)|(\d+):(\d*))\]")
_TERM = re.compile(r"(?:[^\s:\[\]]|\[[^\]]{0,100}\])+")
LONGEST = 64 * KIB
LONGEST_TERM = 1000
MOST_STEPS = 10_000_000


def limit(inventory: Inventory, pattern: str) -> Inventory:
    """Return the inventory with only the hosts that a pattern matches, in their order, also in groups.

    Raises InputError where no host is left, and what `matching` raises.
    """
    return _restrict(inventory, _Search(inventory, "--limit").matching(pattern))


def without(inventory: Inventory, pattern: str) -> Inventory:
    """Return the inventory without the hosts that a pattern matches. Raises InputError as `limit`, and for the head."""
    left_out = _Search(inventory, "--without").matching(pattern)
    if (head := inventory.head.name) in left_out:
        problem = f"{quoted(pattern)} takes out {head}, the head, where the deployment's state is kept"
        raise InputError.at("--without", problem, "stop, then run without it; or name other hosts")
    return _restrict(inventory, {*inventory.names} - left_out)


def _restrict(inventory: Inventory, chosen: set[str]) -> Inventory:
    hosts = tuple(host for host in inventory.hosts if host.name in chosen)
    groups = {
        name: replace(group, hosts=tuple(host for host in group.hosts if host in chosen))
        for name, group in inventory.groups.items()
    }
    return replace(inventory, hosts=hosts, groups=groups)


@dataclass(frozen=True)
class _Search:
    """Looks for hosts of an inventory by the pattern of an `option`."""

    inventory: Inventory
    option: str

    def matching(self, pattern: str) -> set[str]:
        """Return the names of the hosts that a pattern matches, one at least.

        Terms are separated by commas or colons: a host, a group, `all`, a wildcard `gpu*`, `~regex`, `group[0]`,
        `group[0:2]` (both ends included), `!term` to exclude, `&term` to intersect. Raises InputError where none is
        matched, and where a plain name is unknown: `all,!gpu3` must not act on gpu03.
        """
        terms = self._terms(pattern)
        self._refuse_many(terms)
        chosen: set[str] = set()
        plain = [term for term in terms if term[0] not in "&!"]
        for term in plain or [ALL]:
            chosen.update(self._matches(term))
        for term in terms:
            if term[0] == "&":
                chosen.intersection_update(self._matches(term[1:]))
        for term in terms:
            if term[0] == "!":
                chosen.difference_update(self._matches(term[1:]))
        if not chosen:
            raise self._error(f"{quoted(pattern)} matches no host of {self.inventory.source}", "`hosts` lists them")
        return chosen

    def _error(self, problem: str, remedy: str) -> FaultsError:
        return InputError.at(self.option, problem, remedy)

    def _refuse_many(self, terms: Sequence[str]) -> None:
        """Raise InputError where more names would be compared than takes seconds."""
        hosts, groups = len(self.inventory.hosts), len(self.inventory.groups)
        searching = sum(term.lstrip("!&") not in self.inventory for term in terms)
        if searching * (hosts + groups) > MOST_STEPS:
            problem = f"found a pattern of {searching:,} terms that are no host, for {hosts:,} hosts"
            raise self._error(problem, "write fewer terms")

    def _terms(self, pattern: str) -> list[str]:
        if "," in pattern:
            parts = pattern.split(",")
        else:
            # A colon separates too, but not inside an IPv6 address or a bracket.
            parts = [pattern] if is_ip_address(pattern.strip("!& ")) else _TERM.findall(pattern)
        if "," not in pattern and _TERM.sub("", pattern).strip(": \t") and not is_ip_address(pattern.strip("!& ")):
            raise self._error(f"found {quoted(pattern)} with a bracket that has no partner", "as in 'gpu[0:2]'")
        terms = list(dict.fromkeys(part.strip() for part in parts if part.strip()))
        if len(pattern) > LONGEST or any(len(term) > LONGEST_TERM for term in terms):
            problem = f"found a pattern of {len(pattern):,} characters, with terms of up to {max(map(len, terms)):,}"
            raise self._error(problem, "name groups, or use wildcards")
        if any(not term.strip("!&") for term in terms):
            raise self._error(f"found {quoted(pattern)}, expected a name after '!' and '&'", "as in 'all,!gpu03'")
        return terms

    def _matches(self, term: str) -> list[str]:
        if term in self.inventory:
            return [term]
        subscripted = None if term.startswith("~") else _SUBSCRIPT.fullmatch(term)
        if subscripted is None:
            return self._named(term)
        expression, index, begin, end = subscripted.groups()
        hosts = self._named(expression)
        if index is None:
            return hosts[int(begin) : int(end) + 1 if end else None]
        if not -len(hosts) <= int(index) < len(hosts):
            problem = f"found {quoted(term)}, but {quoted(expression)} has {counted(len(hosts), 'host')}"
            raise self._error(problem, "the first is [0]")
        return [hosts[int(index)]]

    def _named(self, expression: str) -> list[str]:
        matcher = self._compile(expression, (*self.inventory.groups, *self.inventory.names))
        hosts: dict[str, None] = {}
        groups = [name for name in self.inventory.groups if matcher.match(name)]
        for group in groups:
            hosts.update(dict.fromkeys(_ordered_members(self.inventory, group)))
        # Ansible looks at the names of hosts only where no group matched or the expression is more than a plain name.
        if not groups or expression[0] == "~" or any(special in expression for special in ".?*["):
            hosts.update(dict.fromkeys(name for name in self.inventory.names if matcher.match(name)))
        if not hosts and not groups and not _is_wild(expression):
            names = (*self.inventory.names, *self.inventory.groups)
            problem = f"{quoted(expression)} is not a host or group of {self.inventory.source}"
            raise self._error(problem, nearest(expression, names, "`hosts` lists them"))
        return list(hosts)

    def _compile(self, expression: str, names: Sequence[str]) -> re.Pattern[str]:
        if expression[0] != "~":
            return re.compile(fnmatch.translate(expression))
        try:
            ways = steps(expression[1:], max(map(len, names), default=0))
            if ways * len(names) > MOST_STEPS:
                problem = f"found {quoted(expression)}, which may take very long"
                raise self._error(problem, "repeat single characters, not groups: '~gpu0[1-4].*'")
            return re.compile(expression[1:])
        except ERRORS as error:
            problem = f"found {quoted(expression)}, which is not a regular expression: {error}"
            raise self._error(problem, "as in '~gpu0[1-4]'") from error


def _is_wild(expression: str) -> bool:
    return expression[0] == "~" or any(special in expression for special in "?*[")


def _ordered_members(inventory: Inventory, group: str) -> Iterable[str]:
    """Return the hosts of a group and then those of its children, level by level: the order of subscripts."""
    members: dict[str, None] = {}
    level, seen = [group], {group}
    while level:
        for name in level:
            members.update(dict.fromkeys(inventory.groups[name].hosts))
        children = dict.fromkeys(child for name in level for child in inventory.groups[name].children)
        level = [child for child in children if child not in seen]
        seen.update(level)
    return members
