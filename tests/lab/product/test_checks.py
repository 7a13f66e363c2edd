"""Every check of `check` against real hosts: faults on four hosts make exactly their checks complain of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from flagscale_deploy.checks.registry import NAMES
from tests.lab import Lab
from tests.lab.product.breaking import FAULTS, Fault, Stage, devices, network, reach, rounds
from tests.lab.product.breaking.software import ODD
from tests.lab.product.breaking.stage import MODEL, NAME
from tests.lab.product.operator import Result
from tests.lab.product.stand_in import StandIn, make_environment

BROKEN = "node3"
NOT_LOOKED_AT = {"boot", "router-installed", "locked-memory", "bandwidth", "tls-files", "router-tls", "nixl-installed",
                 "gate-installed", "vllm-version", "model-experts", "all2all-installed"}  # fmt: skip
"""The plan has no router, no pools and no groups, the hosts no InfiniBand, the model no TLS and no experts, and nobody
asked for measurements or reboots."""


@pytest.fixture(scope="module")
def environments(stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("environments")
    odd = {name: make_environment(root / name.replace(" ", "-"), **versions) for name, versions in ODD.items()}
    return {"good": stand_in.environment, **odd}


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab], stand_in: StandIn, environments: Mapping[str, Path], tiny_model: Path) -> Lab:
    """Four hosts with a GPU each; every one has its own copy of a tiny Qwen2."""
    made = make_lab(hosts=4, gpus=1, mounts=[*stand_in.mounts, *environments.values()])
    names = [path.name for path in tiny_model.iterdir() if not path.name.startswith(".")]
    for host in made.hosts:
        host.run(f"mkdir -p {MODEL}")
        for name in names:
            (host.directory / "tmp" / name).write_bytes((tiny_model / name).read_bytes())
            host.run(f"mv /tmp/{name} {MODEL}/ && chmod 644 {MODEL}/{name}")
    return made


@pytest.fixture
def stage(lab: Lab, environments: Mapping[str, Path], tmp_path: Path) -> Iterator[Stage]:
    host = next(host for host in lab.hosts if host.name == BROKEN)
    with Stage(lab, tmp_path, environments, host) as prepared:
        yield prepared


def complaints(report: Any) -> set[tuple[str, str, str]]:
    """Return what is complained of, but for links that are below a tenth of what the kernel says of a veth, 10 Gbit/s.

    Where bandwidth is measured, all cables are (`network.rate_all`). tests/unit/checks has that rule.
    """
    return {
        (check["check"], check["host"], check["state"])
        for check in report["checks"]
        if check["state"] not in ("passed", "skipped") and "over an interface of" not in (check["expected"] or "")
    }


def skipped(report: Any) -> dict[str, str]:
    return {check["check"]: check["found"] for check in report["checks"] if check["state"] == "skipped"}


def answered(result: Result, exits: int) -> Any:
    assert result.code == exits, result.said
    return result.json


def told(report: Any) -> str:
    return "\n".join(str(check) for check in report["checks"] if check["state"] not in ("passed", "skipped"))


def test_nothing_is_wrong_with_ordinary_hosts(stage: Stage) -> None:
    report = answered(stage.check(), exits=0)
    assert complaints(report) == set(), told(report)
    assert set(skipped(report)) == NOT_LOOKED_AT
    assert all(skipped(report).values())
    assert {check["check"] for check in report["checks"]} == set(NAMES)


@pytest.mark.parametrize("faults", rounds().values(), ids=rounds())
def test_faults_are_told_by_their_checks_of_their_hosts(stage: Stage, faults: Sequence[Fault]) -> None:
    """One at a time they are in tests/unit/checks: there each makes its check complain, and no other."""
    for fault in faults:
        fault.inject(stage.at(fault.at))
    result = stage.check(*(word for fault in faults for word in fault.words))
    report = result.json
    assert complaints(report) == {(fault.check, fault.named, fault.state) for fault in faults}, told(report)
    exits = {fault.exits for fault in faults}
    assert result.code == (3 if 3 in exits else max(exits))
    verdicts = {(check["check"], check["host"]): check for check in report["checks"]}
    for fault in faults:
        verdict = verdicts[fault.check, fault.named]
        assert fault.cure in verdict["remedy"]
        assert verdict["found"]
        assert verdict["expected"]


def test_every_check_can_be_made_to_complain() -> None:
    assert {fault.check for fault in FAULTS} == set(NAMES)


def test_nothing_is_wrong_once_every_fault_is_undone(lab: Lab, stage: Stage) -> None:
    network.rate_all(stage)
    report = answered(stage.check("--network"), exits=0)
    assert complaints(report) == set(), told(report)
    assert set(skipped(report)) == NOT_LOOKED_AT - {"bandwidth"}
    assert lab.leftovers(NAME) == []


def test_without_a_configuration_hosts_are_looked_at_all_the_same(stage: Stage) -> None:
    network.rate_all(stage)
    report = answered(stage.operator("check", "--json", "--network", exits=None), exits=0)
    assert complaints(report) == set(), told(report)
    assert skipped(report)["model-path"] == "needs a configuration: -c"
    by_check = {check["check"]: check for check in report["checks"]}
    assert "12 connections" in by_check["data-network"]["found"]
    assert re.search(r"[\d.]+ Gbit/s", by_check["bandwidth"]["found"])


def test_an_ordinary_user_is_no_cause_for_alarm(stage: Stage) -> None:
    reach.log_in_as_another(stage)
    report = answered(stage.check(), exits=0)
    assert complaints(report) == set(), told(report)
    assert report["hosts"][BROKEN]["facts"]["user"] == "lab"


@pytest.fixture
def smaller(stage: Stage) -> Stage:
    """One host has another MTU."""
    network.its_packets_are_smaller(stage)
    return stage


def test_run_starts_nothing_where_a_check_failed(lab: Lab, smaller: Stage) -> None:
    result = smaller.operator("run", "-c", smaller.config, exits=4)
    assert "node3: MTU 1400 on eth0" in result.err
    assert "ip link set eth0 mtu 1500" in result.err
    assert lab.leftovers(NAME) == []
    assert not list(smaller.directory.glob("outputs/*/runs/*"))


def test_a_check_that_is_to_be_skipped_is_left_out_by_check_and_run(lab: Lab, smaller: Stage) -> None:
    report = answered(smaller.check("--skip-check", "mtu"), exits=0)
    assert complaints(report) == set(), told(report)
    assert skipped(report)["mtu"] == "skipped by --skip-check"
    # The stand-in's Ray can't start: it was tried, so nothing else was in the way.
    result = smaller.operator("run", "-c", smaller.config, "--skip-check", "mtu", exits=None)
    assert result.code not in (0, 2, 3, 4), result.said
    assert "this Ray is a stand-in" in result.said
    smaller.operator("cleanup", "--name", NAME)
    assert lab.leftovers(NAME) == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [("mtv", "did you mean mtu?"), ("login", "it can't be skipped"), ("xyz", "checks are: tcp, ssh")],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_what_can_not_be_skipped_is_refused(stage: Stage, command: str, name: str, problem: str) -> None:
    stage.host.cut()  # no host is asked
    stage.undo.callback(stage.host.join)
    assert problem in stage.operator(command, "-c", stage.config, "--skip-check", name, exits=2).err


def test_every_verdict_is_a_test_case_for_a_ci_system(smaller: Stage) -> None:
    devices.its_driver_unloads_between_uses(smaller)
    path = smaller.directory / "out/check.xml"
    report = answered(smaller.check("--junit", str(path)), exits=4)
    suite = ElementTree.parse(path).getroot()[0]
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert len(cases) == len(report["checks"]) == int(suite.get("tests", ""))
    assert [name for name, case in cases.items() if case.find("failure") is not None] == ["mtu [node3]"]
    assert {name for name, case in cases.items() if case.find("skipped") is not None} == NOT_LOOKED_AT
    failure = cases["mtu [node3]"].find("failure")
    assert failure is not None
    assert "ip link set eth0 mtu 1500" in str(failure.text)
    assert "persistence mode is off" in str(cases["gpu-persistence [node3]"].findtext("system-out"))


def test_for_people_the_worst_comes_last(smaller: Stage) -> None:
    devices.its_driver_unloads_between_uses(smaller)
    problem = smaller.operator("check", "-c", smaller.config, exits=4).out
    assert problem.index("persistence mode is off") < problem.index("MTU 1400 on eth0")
    assert "\nreach\n" not in problem
    assert problem.endswith("\n1 problem, 1 warning\n")


def test_a_host_that_can_not_be_reached_counts_more_than_what_others_lack(smaller: Stage) -> None:
    far = smaller.lab.hosts[3]
    smaller.configuration["deploy"]["timeouts"]["connect"] = 1
    far.cut()
    smaller.undo.callback(far.join)
    report = answered(smaller.check(), exits=3)
    assert complaints(report) == {("tcp", "node4", "failed"), ("mtu", "node3", "failed")}, told(report)
    by_check = {check["check"]: check for check in report["checks"]}
    for name in ("data-network", "ports", "placement", "model-path", "model-weights", "engine-arguments"):
        assert by_check[name]["state"] == "passed"
        assert by_check[name]["found"].endswith("; node4 did not answer")


def test_what_is_wrong_where_nothing_runs_stops_nothing(smaller: Stage) -> None:
    smaller.flags(tensor_parallel_size=1)
    smaller.deploy(ray="never")
    far = smaller.lab.hosts[1].address
    smaller.on(f"ip route add unreachable {far}/32", f"ip route del unreachable {far}/32")
    report = answered(smaller.check(), exits=0)
    assert complaints(report) == set(), told(report)
    assert skipped(report)["data-network"] == "the plan uses one host only"
