"""Two operators: one lock on the head, and what becomes of whoever loses it."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.lab import Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator, eventually
from tests.lab.product.stand_in import is_started

Write = Callable[..., Serve]


def test_a_living_holder_is_named_and_left_alone_and_stops_where_it_is_when_it_is_forced_out(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served = serve(stand_in="hangs")
    running = operator.start("run", "-c", served.config)
    assert eventually(lambda: is_started(lab.hosts[0], served.port)), running.said

    for command in ("stop", "cleanup", "run"):
        refused = operator(command, "-c", served.config, "--lock-timeout", "0", exits=6)
        assert re.search(r"node1: \S+ is locked: \S+@\S+ \(from [\d.:a-f]+\) is doing run since \d{4}-", refused.err)
        assert "unlock" in refused.err
    refused = operator("unlock", "--name", served.name, exits=6)
    assert re.search(r"it lives \(pid \d+\), last heard \d s ago", refused.err)
    assert is_started(lab.hosts[0], served.port)

    forced = operator("unlock", "--name", served.name, "--force")
    assert re.search(rf"the lock of {served.name} is free; ended: \S+@\S+ .* is doing run", forced.out)
    ended = running.end(exits=6, within=20)
    assert re.search(rf"node1: the lock of {served.name} was lost: \S+@\S+ ended it with unlock", ended.err)
    assert "left as it is" in ended.err
    assert lab.processes(served.name), "it took down what it was no longer to touch"

    assert "nobody holds the lock" in operator("unlock", "--name", served.name).out
    operator("cleanup", "--name", served.name)
    assert lab.leftovers(served.name) == []


def test_unlock_says_that_there_is_nothing_to_unlock(operator: Operator) -> None:
    done = operator("unlock", "--name", "never-there", "--json").json
    assert (done["state"], done["host"], done["holder"]) == ("free", "node1", {})
