"""`ps`, and `status` without a name: what there is is what each host says, which may be anything."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy import api
from flagscale_deploy.deploy.overview import Gpu, Overview, last_change
from flagscale_deploy.errors import UnreachableError
from flagscale_deploy.inventory.model import Host
from tests.fakes import Output
from tests.unit.api.world import World
from tests.unit.plan.given import facts, inventory

ABSENT: dict[str, Any] = {"record": None, "processes": [], "live": 0, "ranks": {}, "instances": {}, "ray": None}
WELL: dict[str, Any] = {"alive": True, "health": None, "token": True, "why": "", "metrics": None, "restarts": None}
SERVER: dict[str, Any] = {
    "model": "", "port": 4567, "endpoint": "http://x", "local_url": "", "served_name": "", "script": "s.sh",
    "certificate": None, "gpus": {},
}  # fmt: skip
RANK: dict[str, Any] = {
    "number": 0, "role": "driver", "script": "s.sh", "gpus": [], "local_url": "", "certificate": None,
    "data_rank": None,
}  # fmt: skip
EVENT: dict[str, Any] = {
    "schema": 1, "deployment": "qwen", "server": "qwen/0", "host": "gpu01", "event": "restored", "reason": "it ended",
    "attempt": 1, "max": 5, "evidence": "", "time": 9.0,
}  # fmt: skip


class Fleet(World):
    """Hosts whose replies to `ps` are changed: by host, what is in place of what they would say."""

    def __init__(self, folder: Path, **changed: dict[str, Any]) -> None:
        super().__init__(folder)
        self.changed = changed

    def ps(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        for reply in super().ps(host, args):
            assert isinstance(reply, dict)
            yield {**reply, **self.changed.get(host.name, {})}


def own(name: str, host: str = "gpu02", **record: Any) -> dict[str, Any]:
    """Return a deployment of a host's reply; its record has these keys, too."""
    seen = {
        **ABSENT,
        "live": 1,
        "record": {"deployment": name, "run_id": "r1", "head": host, "hosts": [host], **record},
    }
    return {"deployment": name, "host": host, "seen": seen, "last_event": None}


def listed(folder: Path, **changed: dict[str, Any]) -> Overview:
    return api.deployments(Fleet(folder, **changed).request(), gpus=True)


def test_one_program_on_each_host_tells_it_all(tmp_path: Path) -> None:
    world = Fleet(tmp_path)
    api.run(world.request())
    world.calls.clear()
    result = api.deployments(world.request(), gpus=True)
    assert sorted((call.host, call.module) for call in world.calls) == [("gpu01", "ps"), ("gpu02", "ps")]
    (status,) = result.deployments
    assert (status.deployment, status.state, status.head) == ("qwen", "ready", "gpu01")
    assert {gpu.deployment for gpu in result.gpus} == {"qwen"}
    assert result.json()["deployments"] == [
        {
            "name": "qwen", "models": [status.instances[0].served_name], "state": "ready", "ready": 1, "wanted": 1,
            "endpoints": ["http://10.0.0.1:4567/v1"], "gpus": {"gpu01": [*range(8)], "gpu02": [*range(8)]},
            "owner": status.operator, "started_at": 1.0, "last_change": {"at": 1.0, "what": "run"},
        }
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-rf", "x" * 64, "a\nb", "\x1b[2J", "a b", "$(id)"])
def test_what_is_no_name_is_not_listed(tmp_path: Path, name: str) -> None:
    result = listed(tmp_path, gpu02={"deployments": [own(name), own("qwen")]})
    assert [status.deployment for status in result.deployments] == ["qwen"]
    assert result.unknown == {"gpu02": "1 deployment of its are not listed; give --name"}


def test_deployments_that_a_host_left_out_are_counted(tmp_path: Path) -> None:
    result = listed(tmp_path, gpu02={"deployments": [own("one"), own("two")], "left_out": 2900})
    assert [status.deployment for status in result.deployments] == ["one", "two"]
    assert result.unknown == {"gpu02": "2900 deployments of its are not listed; give --name"}
    assert result.exit_code == 3


def test_no_host_speaks_for_another(tmp_path: Path) -> None:
    lies = own("qwen", "gpu01", head="gpu01", endpoint="http://evil/v1")
    result = listed(tmp_path, gpu01={"deployments": [own("qwen", "gpu01")]}, gpu02={"deployments": [lies]})
    (status,) = result.deployments
    assert [host.host for host in status.hosts] == ["gpu01"]
    assert not listed(tmp_path, gpu02={"deployments": [lies]}).deployments


def test_no_host_speaks_for_one_that_does_not_reply(tmp_path: Path) -> None:
    """Its endpoint would be shown as that of the other one's deployment."""
    world = Fleet(tmp_path, gpu02={"deployments": [own("qwen", "gpu01")]})
    world.refused["gpu01"] = UnreachableError("gpu01", "no answer")
    assert not api.deployments(world.request()).deployments


def test_a_host_that_calls_itself_head_where_others_name_another_is_not_believed(tmp_path: Path) -> None:
    """Their own head, gpu03, does not reply, or is not in the inventory."""
    others = own("qwen", "gpu01", head="gpu03")
    (status,) = listed(tmp_path, gpu01={"deployments": [others]}, gpu02={"deployments": [own("qwen")]}).deployments
    assert (status.state, status.trusted) == ("UNKNOWN", False)
    assert status.note.startswith("gpu02 says that it is its head, gpu01 that another is")
    gone = {**others, "seen": {**others["seen"], "live": 0}}
    (status,) = listed(tmp_path, gpu01={"deployments": [gone]}, gpu02={"deployments": [own("qwen")]}).deployments
    assert status.trusted, "an old record of a host on which nothing runs"


def test_no_host_fills_the_screen(tmp_path: Path) -> None:
    other = {"user": "x" * 999, "deployment": "x" * 999, "processes": 1, "since": 1.0, "endpoint": "x" * 999}
    others = [{**other, "models": ["x" * 400] * 30}] * 120
    result = listed(tmp_path, gpu02={"deployments": [own(f"d{at}") for at in range(250)], "others": others})
    assert len(result.deployments) == len(result.others["gpu02"]) == 100
    assert len(str(result.others)) < 100 * 24 * 320
    assert result.unknown == {"gpu02": "150 deployments of its are not listed; give --name"}


def test_two_hosts_that_call_themselves_head_are_named(tmp_path: Path) -> None:
    (status,) = listed(
        tmp_path, gpu01={"deployments": [own("qwen", "gpu01")]}, gpu02={"deployments": [own("qwen")]}
    ).deployments
    assert (status.state, status.trusted) == ("UNKNOWN", False)
    assert status.note.startswith("gpu01, gpu02 each say that they are its head")


@pytest.mark.parametrize("stopped", [("gpu01",), ("gpu02",), ("gpu01", "gpu02")])
def test_a_head_that_stopped_it_is_not_overruled(tmp_path: Path, stopped: tuple[str, ...]) -> None:
    """A host that calls itself the head would bring back what was stopped, at an endpoint of its own."""
    over = {host: {"stopped_at": 9.0} for host in stopped}
    replies = {host: {"deployments": [own("qwen", host, **over.get(host, {}))]} for host in ("gpu01", "gpu02")}
    (status,) = listed(tmp_path, **replies).deployments
    assert (status.state, status.trusted, status.exit_code) == ("UNKNOWN", False, 3)
    assert status.note.startswith("gpu01, gpu02 each say that they are its head; give --name")


@pytest.mark.parametrize("seen", [{"live": 1}, {"live": 0}])
@pytest.mark.parametrize("over", [{}, {"stopped_at": 9.0}])
def test_who_calls_itself_head_is_not_believed_where_the_head_that_others_name_cannot_be_asked(
    tmp_path: Path, seen: dict[str, Any], over: dict[str, Any]
) -> None:
    other = own("qwen", "gpu02", head="gpu01", **over)
    other["seen"] |= seen
    world = Fleet(tmp_path, gpu02={"deployments": [other]}, gpu03={"deployments": [own("qwen", "gpu03")]})
    world.facts["gpu03"] = facts("gpu03")
    world.refused["gpu01"] = UnreachableError("gpu01", "no answer")
    (status,) = api.deployments(world.request(inventory=inventory("gpu01", "gpu02", "gpu03"))).deployments
    assert (status.state, status.trusted) == ("UNKNOWN", False)
    assert status.note.startswith("gpu03 says that it is its head, gpu02 that another is")


def test_a_head_that_is_not_the_inventorys_first_host_is_believed(tmp_path: Path) -> None:
    (status,) = listed(tmp_path, gpu02={"deployments": [own("qwen")]}).deployments
    assert (status.head, status.trusted, status.note) == ("gpu02", True, "")


def test_a_host_that_cannot_be_asked_concerns_its_own_deployments_only(tmp_path: Path) -> None:
    world = Fleet(tmp_path, gpu01={"deployments": [own("one", "gpu01"), own("two", "gpu01", hosts=["gpu01", "gpu02"])]})
    world.refused["gpu02"] = UnreachableError("gpu02", "no answer")
    result = api.deployments(world.request())
    hosts = {status.deployment: [host.state for host in status.hosts] for status in result.deployments}
    assert hosts == {"one": ["running"], "two": ["running", "UNKNOWN"]}
    assert result.unknown == {"gpu02": "no answer"}


def process(pid: int, user: str, run: str = "") -> dict[str, Any]:
    return {"pid": pid, "memory_mib": 9, "user": user, "command": f"python {pid}", "run": run, "since": 2.0}


def gpu(index: int, *processes: dict[str, Any], used: int = 0) -> dict[str, Any]:
    return {
        "index": index, "uuid": str(index), "name": "H100", "memory_total_mib": 100, "memory_used_mib": used,
        "processes": list(processes), "ecc_uncorrected": 0, "persistence": True, "mig": False, "utilization": 7,
    }  # fmt: skip


def test_each_gpu_has_its_holder(tmp_path: Path) -> None:
    gpus = [
        gpu(0, process(1, "me", "qwen/r1")), gpu(1), gpu(2, process(2, "bob", "llama/r9")), gpu(3, process(3, "bob")),
        gpu(4, process(4, "me")), gpu(5, used=50), gpu(6, process(5, "")), gpu(7),
    ]  # fmt: skip
    reply = {"user": "me", "gpus": gpus, "deployments": [own("qwen", gpus=[0, 1])]}
    held = [gpu for gpu in listed(tmp_path, gpu02=reply).gpus if gpu.host == "gpu02"]
    assert [(gpu.deployment, gpu.user, gpu.processes, gpu.free) for gpu in held] == [
        ("qwen", "", (), False), ("qwen", "", (), False), ("llama", "bob", (), False),
        ("", "bob", ("3 python 3",), False), ("", "", ("4 python 4",), False), ("", "", (), False),
        ("", "", ("5 python 5",), False), ("", "", (), True),
    ]  # fmt: skip
    assert held[0] == Gpu("gpu02", 0, "H100", 100, 0, 7, "qwen")


@pytest.mark.parametrize(
    ("record", "event", "change"),
    [
        ({"started_at": 5.0}, EVENT, (9.0, "qwen/0 restored")),
        ({"started_at": 5.0}, {**EVENT, "event": "run", "server": ""}, (9.0, "run")),
        ({"started_at": 10.0}, None, (10.0, "run")),
        ({"started_at": 5.0, "stopped_at": 12.0}, None, (12.0, "stopped")),
        ({}, None, None),
    ],
)
def test_the_last_change_is_the_newest_event_or_what_the_record_says(
    tmp_path: Path, record: dict[str, Any], event: dict[str, Any] | None, change: object
) -> None:
    reply = {"deployments": [{**own("qwen", **record), "last_event": event}]}
    result = listed(tmp_path, gpu02=reply)
    assert last_change(result.deployments[0], result.last_events) == change


SERVERS = [
    {**SERVER, "name": "qwen/0", "driver": "gpu01", "hosts": ["gpu01", "gpu02"],
     "ranks": [{**RANK, "name": "qwen/0", "host": "gpu01"}, {**RANK, "name": "qwen/0 rank 1", "host": "gpu02"}]},
    {**SERVER, "name": "qwen/1", "driver": "gpu02", "hosts": ["gpu02"]},
]  # fmt: skip


@pytest.mark.parametrize(
    ("host", "server", "counts"),
    [
        ("gpu02", "qwen/1", True), ("gpu02", "qwen/0 rank 1", True), ("gpu02", "qwen/0", False), ("gpu02", "", False),
        ("gpu02", "qwen/9", False), ("gpu01", "qwen/1", False), ("gpu03", "qwen/1", False),
    ],
)  # fmt: skip
def test_a_host_tells_the_last_change_of_what_runs_there_only(
    tmp_path: Path, host: str, server: str, counts: bool
) -> None:
    """`host` is what gpu02 calls itself: of another name nothing counts."""
    lie = {**EVENT, "server": server, "event": "gave up", "time": 9e9}
    record: dict[str, Any] = {"head": "gpu01", "hosts": ["gpu01", "gpu02"], "instances": SERVERS}
    mine = {**own("qwen", "gpu01", **record), "last_event": {**EVENT, "event": "ready", "time": 10.0}}
    theirs = {**own("qwen", host, **record), "last_event": lie}
    result = listed(tmp_path, gpu01={"deployments": [mine]}, gpu02={"deployments": [theirs]})
    change = last_change(result.deployments[0], result.last_events)
    assert change == ((9e9, f"{server} gave up") if counts else (10.0, "qwen/0 ready"))


AT = "http://127.0.0.1:9000/admin/restart?x="


@pytest.mark.parametrize("at", [AT, "http://10.0.0.1:4567", "http://10.0.0.1:22", "http://169.254.169.254:80"])
@pytest.mark.parametrize("addresses", [{}, {"http://10.0.0.2:4567": "x", AT: "y"}])
def test_no_host_makes_another_connect_by_a_deployment_that_it_makes_up(
    tmp_path: Path, at: str, addresses: dict[str, str]
) -> None:
    program = {**SERVER, "name": "a", "driver": "gpu02", "hosts": ["gpu02", "gpu01"], "endpoint": "http://x"}
    program |= {"engine": "program", "addresses": {**addresses, at: "z"} if addresses else {}}
    made_up = own("x", instances=[program], hosts=["gpu01", "gpu02"], ports={"a": 4567})
    made_up["seen"]["instances"] = {"a": {**WELL, "at": at}}
    world = Fleet(tmp_path, gpu02={"deployments": [made_up]})
    (status,) = api.deployments(world.request()).deployments
    assert status.state != "ready"
    assert not [call for call in world.calls if call.module == "serving"]
