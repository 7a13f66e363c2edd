from __future__ import annotations

import builtins
import copy
import json
import os
import random
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagscale_deploy.config.spec import RaySpec
from flagscale_deploy.errors import CheckError, InputError
from flagscale_deploy.plan.json_schema import plan_json
from flagscale_deploy.plan.validate import refuse_wrong
from tests.unit.plan.given import facts, faults_of, host, inventory, model, planned, seen, spec, taken

HOSTILE = """-it's "$(touch x)" `y` ünï\n*\\!"""


def test_every_fault_of_every_kind_is_reported_at_once() -> None:
    hosts = inventory(host("gpu01", node_ip="10.9.9.9"), "gpu02", host("gpu03", interface="nope"))
    serve_spec = spec(model("b", tp=64, port=2), model("c", port=3), ray=RaySpec("on", 7000))
    host_facts = {
        "gpu01": facts("gpu01", ports=(taken(3), taken(7000))),
        "gpu02": facts("gpu02", ray=None),
        "gpu03": facts("gpu03", python="3.12.1"),
    }
    faults = [(fault.where, fault.problem) for fault in faults_of(hosts, serve_spec, host_facts)]
    text = "\n".join(f"{where}: {problem}" for where, problem in faults)
    for expected in (
        "gpu01: node_ip 10.9.9.9 is not an address of the host",
        "gpu03: interface nope has no address on this host",
        "qwen.yaml: model_args.b: replica 0 needs 64 GPUs",
        "qwen.yaml: model_args.c: port 3 on gpu01, for c/0, is in use by nginx",
        "qwen.yaml: deploy.ray.port: port 7000 on gpu01, for Ray, is in use by nginx",
        "gpu02: Ray is not installed",
        "gpu03: Python 3.12.1, but 3.11.7 on gpu01 and 1 more: it must be the same on all Ray nodes",
    ):
        assert expected in text
    assert len(faults) == len(set(faults)) == 7
    assert all(fault.remedy for fault in faults_of(hosts, serve_spec, host_facts))


def test_what_finds_no_place_on_gpus_that_were_counted_wrong_is_no_news() -> None:
    (fault,) = faults_of(inventory(host("gpu01", gpus=16)), spec(model(tp=16)))
    assert fault.problem == "the inventory says 16 GPUs, the host has 8"


def test_what_is_wrong_by_itself_is_reported_at_once_and_without_the_hosts() -> None:
    serve_spec = spec(
        model("a", num_gpus=3, tp=2),
        model("b", engine_args={"served-model-name": ["x", "-y"]}),
        model("c", engine_args={"distributed-executor-backend": "ray"}),
        ray="off",
    )
    with pytest.raises(InputError) as raised:
        refuse_wrong(serve_spec)
    assert [str(fault).splitlines()[0] for fault in raised.value.faults] == [
        "qwen.yaml: model_args.a: num_gpus is 3, but tensor × pipeline × data parallel size is 2 × 1 × 1 = 2",
        "qwen.yaml: model_args.b.served-model-name: vLLM would read '-y' as a flag",
        "qwen.yaml: model_args.c.distributed-executor-backend: is ray, but deploy.ray is off",
    ]
    with pytest.raises(InputError):
        planned(inventory("gpu01"), serve_spec)


def test_the_same_input_makes_the_same_bytes_and_is_left_as_it_was() -> None:
    hosts, serve_spec, host_facts = (
        inventory("gpu01", "gpu02"),
        spec(model(tp=16), env={"A": "1"}),
        seen("gpu01", "gpu02"),
    )
    before = copy.deepcopy((hosts, serve_spec, host_facts))
    first, second = (json.dumps(plan_json(planned(hosts, serve_spec, host_facts))) for _ in range(2))
    assert first == second
    assert (hosts, serve_spec, host_facts) == before


def test_hash_seeds_change_nothing(tmp_path: Path) -> None:
    """Sets and dictionaries are iterated in an order that PYTHONHASHSEED changes."""
    program = textwrap.dedent("""
        import json
        from flagscale_deploy.plan.json_schema import plan_json
        from tests.unit.plan.given import facts, inventory, model, planned, spec
        hosts = inventory(*(f"gpu{at:02}" for at in range(1, 9)), head="gpu05")
        known = {name: facts(name, 8, busy=[1]) for name in hosts.names}
        asked = spec(model("a", tp=4, port=1), model("b", tp=20, port=2), env={"A": "1", "B": "2"})
        print(json.dumps(plan_json(planned(hosts, asked, known))))
    """)
    root = Path(__file__).parents[3]
    text = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(text) == 1


def test_it_reads_no_clock_socket_file_or_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts, serve_spec, host_facts = inventory("gpu01", "gpu02"), spec(model(tp=16)), seen("gpu01", "gpu02")

    def refuse(*_words: object, **_settings: object) -> None:
        raise AssertionError("the planner asks the world")

    with monkeypatch.context() as patch:
        for module, name in (
            (time, "time"), (time, "monotonic"), (socket, "socket"), (socket, "gethostname"), (random, "random"),
            (os, "urandom"), (os, "getenv"), (builtins, "open"), (subprocess, "Popen"),
        ):  # fmt: skip
            patch.setattr(module, name, refuse)
        made = planned(hosts, serve_spec, host_facts)
    assert made.instances


@settings(max_examples=30, deadline=None)
@given(
    env=st.dictionaries(
        st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True), st.text(st.characters(exclude_characters="\0"))
    ),
    flags=st.dictionaries(
        st.from_regex(r"x-[a-z]{1,8}", fullmatch=True), st.text(st.characters(exclude_characters="\0"))
    ),
    tp=st.integers(1, 20),
    replicas=st.integers(1, 2),
)
def test_whatever_the_values_the_plan_is_json_and_stable(
    env: dict[str, str], flags: dict[str, str], tp: int, replicas: int
) -> None:
    hosts = inventory("gpu01", "gpu02", "gpu03")
    serve_spec = spec(model(tp=tp, replicas=replicas, engine_args=flags), env=env)

    def once() -> str:
        try:
            return json.dumps(plan_json(planned(hosts, serve_spec)))
        except CheckError as error:
            return str(error)

    assert once() == once()


def test_a_hostile_value_is_one_word_of_argv() -> None:
    (one,) = planned(inventory("gpu01"), spec(model(model=HOSTILE, engine_args={"chat-template": HOSTILE}))).instances
    assert one.argv[2] == HOSTILE
    assert one.argv[3] == f"--chat-template={HOSTILE}"
    assert one.served_name == HOSTILE


def test_a_hosts_own_flags_are_for_the_instances_it_drives() -> None:
    serve_spec = spec(
        model("a", tp=8, replicas=2, engine_args={"max-num-seqs": 8}),
        host_engine_args={"gpu02": {"max-num-seqs": 4, "enforce-eager": True}},
    )
    made = planned(inventory("gpu01", "gpu02"), serve_spec, seen("gpu01", "gpu02"))
    by_driver = {instance.driver: set(instance.argv) for instance in made.instances}
    assert "--max-num-seqs=8" in by_driver["gpu01"]
    assert {"--max-num-seqs=4", "--enforce-eager"} <= by_driver["gpu02"]
    with pytest.raises(InputError, match=r"node_args\.gpu02\.engine_args\.tensor-parallel-size"):
        planned(inventory("gpu01"), spec(model(tp=1), host_engine_args={"gpu02": {"tensor-parallel-size": 2}}))
