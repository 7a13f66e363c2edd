"""Hosts in other time zones, and with wrong clocks: the host that failed first is found, in a folder and live."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.diagnosis.clocks import FILE, Clock, comparable, read, unknown_clocks_note
from flagscale_deploy.diagnosis.find import Diagnosis, diagnose
from flagscale_deploy.errors import RemoteError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.logs import Collected, collect_logs, diagnose_ends, diagnose_folder
from flagscale_deploy.output.console import Console
from flagscale_deploy.output.logs import show_diagnosis
from tests.fakes import FakeFleet, Output
from tests.unit.deploy.given import answering, archived

LOG = "logs/vllm_serve_q_0.log"
FIRST, LATER = "torch.OutOfMemoryError: CUDA out of memory.", "OSError: [Errno 28] No space left on device"
IN_STEP = Clock()
EAST = Clock(utc_offset=8 * 3600.0)
SKEWED = Clock(skew=600.0)
DIFFERING = [
    pytest.param(EAST, IN_STEP, id="the first one's times are 8 h later"),
    pytest.param(IN_STEP, Clock(utc_offset=-8 * 3600.0), id="the later one's times are 8 h earlier"),
    pytest.param(SKEWED, IN_STEP, id="the first one's clock is 10 min ahead"),
    pytest.param(IN_STEP, Clock(skew=-600.0), id="the later one's clock is 10 min behind"),
    pytest.param(Clock(3600.0, 1e6), Clock(-18000.0, 1e6 - 40), id="both, and the operator's clock is wrong"),
]


def line(text: str, second: float, clock: Clock) -> str:
    """Return an engine's error, so many seconds after some moment, as the host with this clock stamps it."""
    local = time.gmtime(1_800_000_000 + second + clock.utc_offset + clock.skew)
    return f"ERROR {time.strftime('%m-%d %H:%M:%S', local)} [core.py:1] {text}"


def fleet_of(clocks: Mapping[str, Clock], logs: Mapping[str, str], **fields: Any) -> FakeFleet:
    """Return hosts with a log of one line each, which send their clock on request."""

    def clock_of(host: Host) -> dict[str, Any]:
        clock = clocks[host.name]
        return {"clock": time.time() + clock.skew, "utc_offset": clock.utc_offset, **fields}

    def archive(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        begin, *rest = archived({LOG: logs[host.name].encode() + b"\n"})
        assert isinstance(begin, dict)
        yield from ({**begin, **clock_of(host)}, *rest)

    def follow(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        if args.get("clock"):
            yield clock_of(host)
        yield {"file": LOG, "lines": [logs[host.name]]}

    return FakeFleet(answering(archive=archive, follow=follow), list(clocks))


def two(first: Clock, later: Clock) -> FakeFleet:
    """Return two hosts: gpu02 ran out of memory ten seconds before gpu01's disk was full."""
    logs = {"gpu01": line(LATER, 10, later), "gpu02": line(FIRST, 0, first)}
    return fleet_of({"gpu01": later, "gpu02": first}, logs)


def host_and_note(diagnosis: Diagnosis | None) -> tuple[str, str]:
    assert diagnosis is not None
    return diagnosis.host, diagnosis.note


@pytest.mark.parametrize(("first", "later"), DIFFERING)
def test_the_host_that_failed_first_is_named_from_the_folder(tmp_path: Path, first: Clock, later: Clock) -> None:
    collected = collect_logs(two(first, later), "qwen", tmp_path)
    assert host_and_note(diagnose_folder(tmp_path)) == ("gpu02", "")
    assert [len(host.files) for host in collected.values() if isinstance(host, Collected)] == [1, 1]


@pytest.mark.parametrize(("first", "later"), DIFFERING)
def test_the_host_that_failed_first_is_named_live(first: Clock, later: Clock) -> None:
    assert host_and_note(diagnose_ends(two(first, later), "qwen")) == ("gpu02", "")


def test_for_a_folder_without_clocks_a_note_says_that_times_may_be_compared_wrongly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collect_logs(two(EAST, IN_STEP), "qwen", tmp_path)
    (tmp_path / FILE).unlink()
    diagnosis = diagnose_folder(tmp_path)
    assert diagnosis is not None
    assert diagnosis.host == "gpu01"
    show_diagnosis(Console(), diagnosis)
    text = " ".join(capsys.readouterr().out.split())
    assert "note times may be compared wrongly: time zone and clock skew of gpu01, gpu02 are unknown" in text
    assert host_and_note(diagnose_folder(tmp_path / "gpu01")) == ("gpu01", "")


def test_clocks_lie_beside_the_hosts_folders_and_those_of_an_earlier_collection_stay(tmp_path: Path) -> None:
    collect_logs(two(EAST, SKEWED), "qwen", tmp_path)
    collect_logs(fleet_of({"gpu02": IN_STEP}, {"gpu02": line(FIRST, 0, IN_STEP)}), "qwen", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"gpu01", "gpu02", FILE}
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    clocks = read(tmp_path)
    assert clocks["gpu02"].utc_offset == 0.0
    assert clocks["gpu01"].skew == pytest.approx(600, abs=5)


@pytest.mark.parametrize("sent", [None, "noon", float("nan"), float("inf"), 10**400, [1], {"a": 1}])
def test_a_clock_that_is_no_number_is_an_error_of_its_host(tmp_path: Path, sent: object) -> None:
    fleet = fleet_of({"gpu01": IN_STEP}, {"gpu01": line(FIRST, 0, IN_STEP)}, utc_offset=sent)
    assert isinstance(collect_logs(fleet, "qwen", tmp_path)["gpu01"], RemoteError)
    assert not (tmp_path / FILE).exists()


def test_a_host_that_tells_nonsense_has_no_clock(tmp_path: Path) -> None:
    logs = {"gpu01": line(FIRST, 0, IN_STEP), "gpu02": line(LATER, 10, IN_STEP)}
    fleet = fleet_of({"gpu01": IN_STEP, "gpu02": IN_STEP}, logs, utc_offset=1e300)
    collect_logs(fleet, "qwen", tmp_path)
    assert not (tmp_path / FILE).exists()
    host, note = host_and_note(diagnose_folder(tmp_path))
    assert host == "gpu01"
    assert "gpu01, gpu02" in note


@pytest.mark.parametrize("text", ["", "{", "[]", '{"gpu01": 1}', '{"gpu01": {"skew": 1}}', "\udcff"])
def test_a_broken_file_of_clocks_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_bytes(text.encode(errors="surrogateescape"))
    assert read(tmp_path) == {}


def test_the_file_of_clocks_is_no_log(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "of-monday"):
        folder.mkdir(exist_ok=True)
        (folder / FILE).write_text(json.dumps({LATER: {"utc_offset": 0, "skew": 0}}))
    assert diagnose_folder(tmp_path) is None


def test_a_host_whose_clock_is_not_known_is_taken_for_the_others_and_that_is_said() -> None:
    clocks = {"gpu01": None, "gpu02": EAST}
    assert comparable(clocks) == {"gpu01": EAST, "gpu02": EAST}
    assert "of gpu01 are unknown" in unknown_clocks_note(clocks)
    assert unknown_clocks_note({"gpu01": None}) == ""
    assert "h07 and 12 more are unknown" in unknown_clocks_note({f"h{number:02}": None for number in range(20)})


def test_what_measuring_cannot_tell_apart_stays_in_step() -> None:
    """Engines stamp whole seconds: noise would decide between equal ones."""
    clocks = comparable({"gpu01": Clock(0.0, 0.2), "gpu02": Clock(28800.0, -0.1), "gpu03": Clock(0.0, 600.0)})
    assert clocks["gpu01"].skew == clocks["gpu02"].skew
    assert clocks["gpu03"].skew == 600.0


def test_what_ray_forwards_bears_the_time_of_the_node_that_said_it() -> None:
    """gpu01's log holds an earlier line of a rank on gpu02, 8 h east of it."""
    forwarded = "\x1b[36m(RayWorkerWrapper pid=7, ip=10.0.0.2)\x1b[0m " + line(FIRST, 0, EAST)
    logs = [("gpu01", "engine.log", [line(LATER, 10, IN_STEP), forwarded])]
    diagnosis = diagnose(logs, addresses={"10.0.0.2": "gpu02"}, clocks={"gpu01": IN_STEP, "gpu02": EAST})
    assert host_and_note(diagnosis) == ("gpu02", "the log of gpu01 says that it is gpu02's")
    named = "[2027-01-15 08:00:20,000 E 7 7] (gcs_server) w.cc:70: worker exit, address = 10.0.0.2, " + LATER
    diagnosis = diagnose([("gpu01", "engine.log", [named, line(FIRST, 30, IN_STEP)])],
                     addresses={"10.0.0.2": "gpu02"}, clocks={"gpu01": IN_STEP, "gpu02": EAST})  # fmt: skip
    assert diagnosis is not None
    assert LATER in diagnosis.line


def test_times_that_say_utc_are_not_the_time_zones() -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(1_800_000_000 + 600 + 10))
    logs = [
        ("gpu01", "router.log", [f"{stamp} ERROR router: {LATER}"]),
        ("gpu01", "e.log", [line(FIRST, 0, Clock(28800, 600))]),
    ]
    diagnosis = diagnose(logs, clocks={"gpu01": Clock(28800.0, 600.0)})
    assert diagnosis is not None
    assert FIRST in diagnosis.line
