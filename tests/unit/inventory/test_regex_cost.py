"""What an expression may cost: repeats of what matches nothing count, too."""

from __future__ import annotations

from math import inf

import pytest

from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.load import parse_inventory
from flagscale_deploy.inventory.patterns import MOST_STEPS, limit
from flagscale_deploy.inventory.regex_cost import steps
from flagscale_deploy.support.yaml import dump

PARTS = ("^", "a{0}", "", r"\b", "(?:^)", "|a", "a*", "a|b", "(^)")
BOMBS = (
    *(f"(?:{part}){{{count}}}{lazy}" for part in PARTS for count in (10_001, 4_000_000_000) for lazy in ("", "?")),
    *(f"(?:(?:{part}){{65000}}){{65000}}" for part in PARTS),
    *(f"(?:x(?:{part}){{200}}y|z){{51,}}" for part in PARTS),
    "(?:a{0}|){5000,}b",
    "a" * 10_001,
)


@pytest.mark.parametrize("length", [0, 1, 10, 1000])
@pytest.mark.parametrize("bomb", BOMBS, ids=lambda text: text[:40])
def test_no_repeat_of_nothing_is_cheap(bomb: str, length: int) -> None:
    assert steps(bomb, length) == inf


@pytest.mark.parametrize("bomb", ["(?:^){4000000000}", "((^){60000}){60000}", "(?:a{0}|){5000}b"])
def test_readers_refuse_such_expressions(bomb: str) -> None:
    inventory = parse_inventory("hosts: [gpu01]\n")
    with pytest.raises(InputError, match="may take very long"):
        limit(inventory, f"~{bomb},")
    for name in ("regex_replace", "regex_search"):
        user = f"{{{{ 'aaaaaaaaaa' | {name}('{bomb}', '') }}}}"
        with pytest.raises(InputError, match="may take very long"):
            parse_inventory(dump({"all": {"hosts": {"gpu01": {"ansible_user": user}}}}))


@pytest.mark.parametrize(
    "expression", ["gpu0[1-4].*", r"\d{3}", r"(?:\d{1,3}\.){3}\d{1,3}", r"^gpu(\d+)$", "[0-9]{1,9}"]
)
def test_ordinary_expressions_are_cheap(expression: str) -> None:
    assert steps(expression, 15) <= 10_000


def test_terms_are_bounded_together() -> None:
    inventory = parse_inventory("hosts: ['gpu[1:20000]']\n")
    with pytest.raises(InputError, match=r"5,000 terms .* for 20,000 hosts"):
        limit(inventory, ",".join(f"~x{number}" for number in range(5000)))
    assert len(limit(inventory, ",".join(f"gpu{number}" for number in range(1, 2001))).hosts) == 2000
    assert MOST_STEPS >= 100 * 20_000, "a hundred patterns of a large inventory"
