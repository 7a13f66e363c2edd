"""What the tests of this room share: the faults of a text that is no good inventory."""

from __future__ import annotations

import pytest

from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.load import parse_inventory


def faults_of(text: str, source: str = "hosts.yaml") -> list[tuple[str, str]]:
    """Place and problem of every fault; fails where there is none."""
    with pytest.raises(InputError) as caught:
        parse_inventory(text, source)
    return [(fault.where, fault.problem) for fault in caught.value.faults]


def remedies_of(text: str, source: str = "hosts.yaml") -> list[str]:
    with pytest.raises(InputError) as caught:
        parse_inventory(text, source)
    return [fault.remedy for fault in caught.value.faults]
