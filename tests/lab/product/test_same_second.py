"""Commands of the same second on real hosts: jobs that share the GPUs, and runs of one name on different hosts.

`FSD_FAULTS=all` tries ten rounds of each, with four jobs and with eight; else it is one round, with four.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest

from tests.lab import Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import DEADLINE, Operator
from tests.lab.product.stand_in import StandIn

ALL = os.environ.get("FSD_FAULTS") == "all"
ROUNDS = range(10 if ALL else 1)
WITHIN = 10 * DEADLINE
"""Eight jobs beside each other, on a machine that runs others beside them."""


@pytest.fixture(scope="module", params=[4, 8] if ALL else [4])
def lab(request: pytest.FixtureRequest, make_lab: Callable[..., Lab], stand_in: StandIn) -> Lab:
    """Two hosts with a GPU for each job, and none more."""
    return make_lab(hosts=2, gpus=request.param // 2, mounts=stand_in.mounts)


@pytest.mark.timeout(2 * WITHIN)
@pytest.mark.parametrize("round_", ROUNDS)
def test_parallel_smoke_jobs_all_get_a_gpu_where_there_is_one_for_each(
    lab: Lab, operator: Operator, serve: Callable[..., Serve], round_: int, request: pytest.FixtureRequest
) -> None:
    jobs = [serve(flags={"port": "auto"}) for _ in range(request.node.callspec.params["lab"])]
    running = [operator.start("smoke", "-c", job.config, "--prompt", "hi", "--artifacts", job.name) for job in jobs]
    ended = [command.end(exits=None, within=WITHIN) for command in running]
    assert [result.code for result in ended] == [0] * len(jobs), "\n".join(result.said for result in ended)
    assert [left for job in jobs for left in lab.leftovers(job.name)] == []


@pytest.mark.timeout(2 * WITHIN)
@pytest.mark.parametrize("round_", ROUNDS)
def test_of_two_runs_of_one_name_on_different_hosts_exactly_one_goes_on(
    lab: Lab, operator: Operator, serve: Callable[..., Serve], round_: int
) -> None:
    served = serve()
    running = [operator.start("run", "-c", served.config, "--limit", host.name) for host in lab.hosts]
    ended = [command.end(exits=None, within=WITHIN) for command in running]
    assert sorted(result.code for result in ended) == [0, 4], "\n".join(result.said for result in ended)
    loser = next(result for result in ended if result.code == 4)
    assert re.search(rf"{served.name}.* runs .*already.*run \d{{8}}T", loser.err)
    assert len({process.host for process in lab.processes(served.name)}) == 1
    operator("cleanup", "--name", served.name)
    assert lab.leftovers(served.name) == []
