from __future__ import annotations

import pytest

from flagscale_deploy.checks.registry import CHECKS, NAMES, judge, refuse_unskippable
from flagscale_deploy.errors import InputError, TcpError
from tests.unit.checks.given import HOSTS, complaints, facts, make_context
from tests.unit.plan.given import host, inventory, model, spec


def test_every_check_has_a_name_of_its_own_and_says_what_it_looks_at() -> None:
    assert len(NAMES) == len(set(NAMES))
    verbs = ("Check that ", "Let ", "Warn about ")
    assert [check.name for check in CHECKS if not check.description.startswith(verbs)] == []
    assert [check.name for check in CHECKS if not check.expected] == []


def test_four_healthy_hosts_pass_every_check_that_has_something_to_look_at() -> None:
    verdicts = judge(make_context())
    assert complaints(make_context()) == []
    assert [verdict.check for verdict in verdicts] == list(NAMES)
    assert {verdict.check: verdict.found for verdict in verdicts if verdict.state == "skipped"} == {
        "vllm-version": "any vLLM will do",
        "router-installed": "the plan has no router",
        "gate-installed": "deploy.gate is not set",
        "nixl-installed": "no model has prefill and decode apart",
        "all2all-installed": "no ranks exchange tokens of experts by a backend that is a package",
        "locked-memory": "no host has InfiniBand",
        "bandwidth": "measured with --network only",
        "model-experts": "no model has experts or data-parallel ranks",
        "tls-files": "no model has ssl flags, and deploy.tls is not set",
        "router-tls": "no router or gate has replicas with TLS",
        "boot": "deploy.restart.boot is not set",
    }
    assert all(verdict.found and verdict.expected for verdict in verdicts)


def test_what_passed_says_what_was_found() -> None:
    texts = {verdict.check: verdict.found for verdict in judge(make_context())}
    assert texts["same-ray"] == "2.60.0 on 4 hosts"
    assert texts["gpu-count"] == "8 GPUs on 4 hosts"
    assert texts["model-path"] == "/models/qwen on gpu01, gpu02, gpu03, gpu04"
    assert texts["placement"] == "1 instance on 4 hosts"
    assert texts["mtu"] == "1500 on 4 hosts"


def test_without_a_configuration_hosts_are_compared_and_nothing_is_asked_of_them() -> None:
    context = make_context(serve_spec=None)
    assert complaints(context) == []
    skipped = {verdict.check: verdict.found for verdict in judge(context) if verdict.state == "skipped"}
    assert skipped["placement"] == skipped["model-path"] == "needs a configuration: -c"
    assert "same-ray" not in skipped
    (odd,) = complaints(make_context({"gpu03": {"ray": "2.60.1"}}, serve_spec=None))
    assert (odd.check, odd.host, odd.state) == ("same-ray", "gpu03", "warning")


def test_one_host_without_gpus_is_no_reason_to_complain() -> None:
    lone = {"gpus": (), "driver_version": None, "hostname_addresses": ("127.0.1.1",)}
    context = make_context({"gpu01": lone}, hosts=inventory("gpu01"), serve_spec=spec(model(num_gpus=0), ray="on"))
    assert complaints(context) == []
    skipped = {verdict.check for verdict in judge(context) if verdict.state == "skipped"}
    assert {"gpu-busy", "same-vllm", "data-network", "model-memory", "mtu"} <= skipped


def test_where_nobody_answers_everything_else_is_skipped() -> None:
    silent = {name: TcpError(name, "no answer from 10.0.0.1 in time", "is it up?") for name in HOSTS}
    verdicts = judge(make_context(silent))
    assert {verdict.check for verdict in verdicts if verdict.state == "failed"} == {"tcp"}
    assert {verdict.check for verdict in verdicts if verdict.state == "passed"} == set()


def test_a_check_that_is_left_out_says_so() -> None:
    context = make_context({"gpu02": {"open_files": 1024}})
    assert [complaint.check for complaint in complaints(context)] == ["open-files"]
    assert complaints(context, ("open-files",)) == []
    (left,) = [verdict for verdict in judge(context, ("open-files",)) if verdict.check == "open-files"]
    assert (left.state, left.found) == ("skipped", "skipped by --skip-check")


def test_a_host_key_that_was_not_verified_is_no_host_key_that_passed() -> None:
    hosts = inventory(host("gpu01"), host("gpu02", host_key_checking="off"))
    verdicts = judge(make_context(hosts=hosts, serve_spec=None), ())
    (verdict,) = [verdict for verdict in verdicts if verdict.check == "host-key"]
    assert (verdict.state, verdict.host) == ("warning", "gpu02")
    assert verdict.found == "its key is not verified (host_key_checking: off): secrets go to whoever answers"


def test_a_name_that_is_no_check_gets_the_nearest() -> None:
    with pytest.raises(InputError) as raised:
        refuse_unskippable(["open-file", "xyz", "memory"])
    near, far = raised.value.faults
    assert (near.where, near.problem, near.remedy) == (
        "--skip-check open-file", "there is no such check", "did you mean open-files?",
    )  # fmt: skip
    assert far.remedy.startswith("checks are: tcp, ssh, ")


@pytest.mark.parametrize("name", ["tcp", "ssh", "host-key", "login", "python", "ray-version", "placement"])
def test_what_nothing_works_without_can_not_be_left_out(name: str) -> None:
    with pytest.raises(InputError, match="can't be skipped"):
        judge(make_context(), [name])


def test_a_fault_that_was_left_out_is_no_fault_of_the_plan() -> None:
    context = make_context({"gpu02": {"python": "3.12.1"}}, skip=("same-python",))
    assert context.plan is not None
    assert context.faults == ()


def test_a_fault_beside_a_plan_hides_nothing_else() -> None:
    context = make_context({"gpu02": {"python": "3.12.1"}, "gpu03": {"models": ()}, "gpu04": {"open_files": 1}})
    assert {complaint.check for complaint in complaints(context)} == {"same-python", "open-files"}


def test_commands_are_for_the_host_as_the_inventory_reaches_it() -> None:
    hosts = inventory(host("gpu01", port=2222, user="ops", identity_file="/k e y"), host("gpu02", connection="local"))
    bad = {name: {"gpus": tuple(gpu.__class__(**{**vars(gpu), "mig": True}) for gpu in facts(name).gpus)}
           for name in hosts.names}  # fmt: skip
    remedies = [complaint.remedy for complaint in complaints(make_context(bad, hosts=hosts, serve_spec=None))]
    assert remedies == [
        "ssh -t -p 2222 -i '/k e y' ops@10.0.0.1 sudo nvidia-smi -mig 0 -i 0,1,2,3,4,5,6,7",
        "sudo nvidia-smi -mig 0 -i 0,1,2,3,4,5,6,7",
    ]
