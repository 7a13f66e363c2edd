"""`deploy.restart.boot`: a host that comes up again starts its part again; `stop` takes the entry away.

The hosts have a stand-in for `crontab` (`cron.py`); its line is run as cron would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab import Host, Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.cron import install, kept, remove
from tests.lab.product.operator import Operator, eventually
from tests.lab.product.stand_in import given

Write = Callable[..., Serve]
OTHERS = (
    'MAILTO=""\n# a comment  \n*/5 * * * * date +\\%s >/dev/null\n\n@reboot  /usr/local/bin/mine # flagscale-deploy\n'
)
BOOT = {"restart": {"policy": "on-failure", "backoff": 0.1, "boot": True}, "timeouts": {"ready": 20, "stop": 2}}


@pytest.fixture
def crontabs(lab: Lab) -> Iterator[None]:
    """Both hosts have the stand-in, and somebody's lines on the first."""
    for host in lab.hosts:
        install(host)
    kept(lab.hosts[0]).write_text(OTHERS)
    yield
    for host in lab.hosts:
        remove(host)


def reboot(lab: Lab, host: Host, served: Serve) -> list[Any]:
    """Leave what a reboot leaves of a host: no process, nothing in /tmp, a record of another boot. Then run cron."""

    def all_gone() -> bool:
        pids = [str(process.pid) for process in lab.processes(served.name) if process.host == host.name]
        if pids:
            host.run(["kill", "-9", *pids], check=False)
        return not pids

    assert eventually(all_gone)
    host.run("rm -rf /tmp/fsd-*")
    path = host.directory / f"home/.flagscale-deploy/{served.name}/{host.name}/record.json"
    record = json.loads(path.read_text())
    record["boot_id"] = "an-earlier-boot"
    for process in record["processes"]:
        process["boot_id"] = "an-earlier-boot"
    path.write_text(json.dumps(record))
    mine = [line for line in kept(host).read_text().splitlines() if line.startswith("@reboot /bin/bash ")]
    assert len(mine) == 1
    command = mine[0].removeprefix("@reboot ").replace("\\%", "%")
    host.run(f"cd; env -i HOME=/root PATH=/usr/bin:/bin SHELL=/bin/sh sh -c {_quoted(command)} </dev/null")
    return mine


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\"'\"'") + "'"


def test_a_host_that_reboots_serves_again_and_stop_leaves_the_crontab_as_it_was(
    lab: Lab, operator: Operator, serve: Write, crontabs: None
) -> None:
    served, host = serve(deploy=BOOT), lab.hosts[0]
    ran = operator("run", "-c", served.config)
    assert "[node1] boot: starts again after a reboot (crontab)" in ran.err
    assert not kept(lab.hosts[1]).exists(), "nothing runs there"
    before = given(host, served.port)
    reboot(lab, host, served)

    def ready() -> bool:
        return bool(operator("status", "--name", served.name, "--json", exits=None).json["state"] == "ready")

    assert eventually(ready, every=1.0)
    second = given(host, served.port)
    assert second["pid"] != before["pid"]
    assert second["environ"]["TMPDIR"].startswith("/tmp/fsd-0-")
    assert second["environ"]["PATH"].split(":", 1)[1] == before["environ"]["PATH"].split(":", 1)[1], "not cron's"
    (claim,) = host.run("cat /tmp/fsd-*/flagscale-deploy.json").stdout.splitlines()
    assert json.loads(claim)["deployment"] == served.name
    record = json.loads((host.directory / f"home/.flagscale-deploy/{served.name}/node1/record.json").read_text())
    assert [process["script"] for process in record["processes"]] == ["vllm_serve_model0_0.sh"]
    assert record["boot_id"] == host.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip()

    host.run(["kill", "-9", str(second["pid"])])
    assert eventually(lambda: given(host, served.port)["pid"] != second["pid"]), "it is supervised as before"
    processes = lab.processes(served.name)
    operator("stop", "--name", served.name)
    assert kept(host).read_text() == OTHERS
    operator("cleanup", "--name", served.name)
    assert lab.leftovers(served.name, processes) == []


def test_what_was_stopped_does_not_come_back_whatever_runs_the_line(
    lab: Lab, operator: Operator, serve: Write, crontabs: None
) -> None:
    served, host = serve(deploy=BOOT), lab.hosts[0]
    operator("run", "-c", served.config)
    before = kept(host).read_text()
    operator("stop", "--name", served.name)
    kept(host).write_text(before)  # a backup of the crontab, say
    reboot(lab, host, served)
    assert lab.processes(served.name) == []
    log = (host.directory / f"home/.flagscale-deploy/{served.name}/node1/logs/boot.log").read_text()
    assert "this run was stopped: no script is started" in log
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
