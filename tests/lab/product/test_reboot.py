"""`deploy.restart.boot`: a host that comes up again starts its part again; `stop` takes the entry away.

Hosts lose their power; they have a stand-in for `crontab` (`cron.py`), whose line is run as cron would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab import Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.cron import boot, install, kept, remove
from tests.lab.product.operator import Operator, eventually
from tests.lab.product.stand_in import StandIn, given, is_started, make_environment

Write = Callable[..., Serve]
OTHERS = (
    'MAILTO=""\n# a comment  \n*/5 * * * * date +\\%s >/dev/null\n\n@reboot  /usr/local/bin/mine # flagscale-deploy\n'
)
BOOT: dict[str, Any] = {
    "restart": {"policy": "on-failure", "backoff": 0.1, "boot": True},
    "timeouts": {"ready": 20, "stop": 2},
}


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """Provide a vLLM that says that it is new enough for groups."""
    folder = tmp_path_factory.mktemp("reboot")
    return StandIn(make_environment(folder / "environment", vllm="0.32.0"), folder)


@pytest.fixture
def crontabs(lab: Lab) -> Iterator[None]:
    """Both hosts have the stand-in, and somebody's lines on the first."""
    for host in lab.hosts:
        install(host)
    kept(lab.hosts[0]).write_text(OTHERS)
    yield
    for host in lab.hosts:
        remove(host)


def test_a_group_serves_again_after_a_reboot_of_either_host_and_stop_leaves_the_crontab_as_it_was(
    lab: Lab, operator: Operator, serve: Write, crontabs: None
) -> None:
    """The follower's host is off for longer than `lost`, the driver's comes back at once."""
    deploy = {**BOOT, "executor": "mp", "restart": {**BOOT["restart"], "lost": 3}}
    served, host = serve(deploy=deploy, flags={"tensor-parallel-size": 4}), lab.hosts[0]
    ran = operator("run", "-c", served.config)
    for name in ("node1", "node2"):
        assert f"[{name}] boot: starts again after a reboot (crontab)" in ran.err
    before = given(host, served.port)

    def instance() -> Any:
        return operator("status", "--name", served.name, "--json", exits=None).json["instances"][0]

    def ready_after(restarts: int) -> bool:
        now = instance()
        return (now["state"], now["restarts"]) == ("ready", restarts)

    lab.hosts[1].kill()
    log = host.directory / f"home/.flagscale-deploy/{served.name}/node1/logs/vllm_serve_model0_0.log"
    assert eventually(lambda: "rank 1 on node2 is lost: silent for" in log.read_text())
    boot(lab.power_on(1))
    assert eventually(lambda: ready_after(1), every=1.0), instance()

    host.kill()
    host = lab.power_on(0)
    boot(host)
    assert eventually(lambda: ready_after(2), every=1.0), instance()
    second = given(host, served.port)
    assert second["environ"]["TMPDIR"].startswith("/tmp/fsd-0-")
    assert second["environ"]["PATH"].split(":", 1)[1] == before["environ"]["PATH"].split(":", 1)[1], "not cron's"
    record = json.loads((host.directory / f"home/.flagscale-deploy/{served.name}/node1/record.json").read_text())
    assert [process["script"] for process in record["processes"]] == ["vllm_serve_model0_0.sh"]
    assert record["boot_id"] == host.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip()

    lab.hosts[1].kill()
    stopped = operator("stop", "--name", served.name, exits=3)
    assert "come back after a reboot (deploy.restart.boot)" in stopped.err
    assert kept(host).read_text() == OTHERS
    log = lab.hosts[1].directory / f"home/.flagscale-deploy/{served.name}/node2/logs/vllm_serve_model0_0_rank1.log"
    waiting = "waiting for its group's leader on node1"
    earlier = log.read_text().count(waiting)
    boot(lab.power_on(1))
    assert eventually(lambda: log.read_text().count(waiting) > earlier)
    assert not is_started(lab.hosts[1], 0), "a rank starts with its group only"
    processes = lab.processes(served.name)
    assert {process.host for process in processes} == {"node2"}
    operator("cleanup", "--name", served.name)
    assert lab.leftovers(served.name, processes) == []
    assert not kept(lab.hosts[1]).exists()


def test_what_was_stopped_does_not_come_back_whatever_runs_the_line(
    lab: Lab, operator: Operator, serve: Write, crontabs: None
) -> None:
    served, host = serve(deploy=BOOT), lab.hosts[0]
    operator("run", "-c", served.config)
    before = kept(host).read_text()
    operator("stop", "--name", served.name)
    kept(host).write_text(before)  # a backup of the crontab, say
    host.kill()
    boot(lab.power_on(0))
    log = host.directory / f"home/.flagscale-deploy/{served.name}/node1/logs/boot.log"
    assert eventually(lambda: log.exists() and "this run was stopped: no script is started" in log.read_text())
    assert eventually(lambda: not lab.processes(served.name)), "what runs the line ends, and has started nothing"
    operator("cleanup", "--name", served.name)
    assert kept(host).read_text() == OTHERS, "cleanup takes it away as well"


def test_a_host_with_neither_is_warned_of(operator: Operator, serve: Write) -> None:
    served = serve(deploy=BOOT)
    checked = operator("check", "-c", served.config)
    assert "lingering" in checked.out
    assert checked.out.count("loginctl enable-linger root") == 1, "nothing runs on the other host"
    ran = operator("run", "-c", served.config)
    assert "does not start again after a reboot" in ran.err
    operator("stop", "--name", served.name)
