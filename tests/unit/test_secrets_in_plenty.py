"""What hiding costs where secrets are large or many."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest

from flagscale_deploy.secrets import LONGEST, Redactor

EXPENSIVE = {
    "one long": ["€" * 20_000],
    "very long": ["€'" * 400_000],
    "many lines": ["\n".join(f"ab'{number}cd" for number in range(20_000))],
    "many lines, short enough": ["\n".join(f"ab'{number}cd" for number in range(1500))],
    "many values": [f"x{number}'\"y{number}zz" for number in range(3000)],
    "many alike": [f"aaaaaaaa'{number}" for number in range(10_000)],
    "quotes": ["'" * LONGEST],
    "backslashes": ["\\" * 4000],
    "escapes": ["\x00\U0001f600" * (LONGEST // 2)],
}


@pytest.mark.parametrize("values", EXPENSIVE.values(), ids=EXPENSIVE.keys())
@pytest.mark.parametrize("quoted_only", [False, True])
def test_no_secret_costs_much_memory_or_time(values: list[str], quoted_only: bool) -> None:
    redactor = Redactor()
    tracemalloc.start()
    redactor.add(*values, quoted_only=quoted_only)
    assert tracemalloc.get_traced_memory()[1] < 200 << 20
    tracemalloc.stop()
    began = time.process_time()
    for text in ("nothing", values[0][:LONGEST], json.dumps(values[-1][:LONGEST])):
        redactor.cut(redactor.redact(text), 10)
    assert time.process_time() - began < 10
