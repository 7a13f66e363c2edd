"""What differs between what runs and what is planned: of each kind of change, and of nothing else."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flagscale_deploy.config.load import load_spec
from flagscale_deploy.config.source import parse_document
from flagscale_deploy.plan.difference import _OTHER_SCRIPT, difference, flags_of
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.kept import KeptRun, Secrecy, describe_run, parse_run, run_text
from flagscale_deploy.plan.planner import plan
from flagscale_deploy.plan.running import Running, find_running
from flagscale_deploy.plan.server_change import Difference
from tests.unit.plan.given import RUN, TEMPLATES, host, inventory, seen, taken

NEXT = "20261102T120000Z-def456"
YAML = """\
experiment: {exp_name: two, envs: {A: b, HF_TOKEN: hf_x}, cmds: {before_start: ulimit -n 65535}}
model_args:
  qwen: {model: /models/qwen, tensor-parallel-size: 2, port: 4567, max-model-len: 4096}
  llama: {model: /models/llama, tensor-parallel-size: 4, port: 5567}
deploy: {ray: auto, models: {qwen: {num_replicas: 3}}}
"""
HOSTS = ("gpu01", "gpu02")
SECRETS = {"": ("HF_TOKEN",)}


def described(text: str = YAML, run_id: str = RUN, running: KeptRun | None = None, **changes: Any) -> KeptRun:
    """Return what is kept of a run; of one that is planned while `running` runs."""
    secrets = changes.pop("secrets", SECRETS)
    serve = load_spec(parse_document(text, "two.yaml"))
    inputs = Inputs(inventory(*HOSTS), serve, seen(*HOSTS), run_id, TEMPLATES)
    inputs = replace(inputs, held=Running({}, running).held) if running else inputs
    inputs = replace(inputs, **changes)
    return describe_run(plan(inputs), inputs, Secrecy(secrets, ""))


BEFORE = described()


def after(text: str = YAML, **changes: Any) -> Difference:
    """Return what would change by a configuration, planned while BEFORE runs, both as hosts keep them."""
    planned = described(text, NEXT, BEFORE, **changes)
    return difference(parse_run(run_text(BEFORE)), parse_run(run_text(planned)))


def changed(outcome: Difference) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {server.name: (server.kind, server.reasons) for server in outcome.changed}


def test_the_same_configuration_changes_nothing() -> None:
    nothing = after()
    assert (nothing.lines, nothing.ray, nothing.unknown) == ((), (), ())
    assert [server.name for server in nothing.servers] == ["qwen/0", "qwen/1", "qwen/2", "llama/0", "qwen/router"]


QWEN = ("qwen/0", "qwen/1", "qwen/2")
ENGINES = (*QWEN, "llama/0")
ALL = (*ENGINES, "qwen/router")
TABLE: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "a flag changed": ("max-model-len: 4096", "max-model-len: 8192", QWEN, "--max-model-len 4096 → 8192"),
    "a flag removed": (", max-model-len: 4096", "", QWEN, "- --max-model-len"),
    "a flag added": ("port: 5567", "port: 5567, max-num-seqs: 8", ("llama/0",), "+ --max-num-seqs 8"),
    "a switch added": ("port: 5567", "port: 5567, enforce-eager: true", ("llama/0",), "+ --enforce-eager"),
    "a model's path": ("/models/llama", "/models/llama-2", ("llama/0",), "model /models/llama → /models/llama-2"),
    "a port": ("port: 5567", "port: 5568", ("llama/0",), "--port 5567 → 5568"),
    "a variable": ("A: b", "A: c", ALL, "A b → c"),
    "a variable added": ("A: b", "A: b, B: x", ALL, "+ B x"),
    "a variable removed": ("A: b, ", "", ALL, "- A"),
    "before_start": ("-n 65535", "-n 1024", ALL, _OTHER_SCRIPT),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_a_changed_setting_restarts_whom_it_concerns(name: str) -> None:
    old, new, servers, reason = TABLE[name]
    assert old in YAML
    outcome = changed(after(YAML.replace(old, new, 1)))
    assert tuple(outcome) == servers
    assert outcome == {server: of_all(reason)[server] for server in servers}


def test_replicas_come_and_go_and_the_others_go_on() -> None:
    more = changed(after(YAML.replace("num_replicas: 3", "num_replicas: 4")))
    assert more["qwen/3"] == ("added", ())
    assert more.keys() == {"qwen/3", "qwen/router"}
    assert more["qwen/router"] == ("reloaded", ("the servers behind it",))
    fewer = changed(after(YAML.replace("num_replicas: 3", "num_replicas: 2")))
    assert fewer["qwen/2"] == ("removed", ())
    assert fewer.keys() == {"qwen/2", "qwen/router"}
    alone = changed(after(YAML.replace("num_replicas: 3", "num_replicas: 1")))
    assert alone.keys() == {"qwen/1", "qwen/2", "qwen/router"}
    assert {kind for kind, _ in alone.values()} == {"removed"}


def test_a_model_comes_and_another_goes() -> None:
    other = YAML.replace("llama:", "phi:").replace("/models/llama", "/models/phi")
    assert changed(after(other)) == {"phi/0": ("added", ()), "llama/0": ("removed", ())}


def test_more_gpus_move_a_server_and_the_line_says_so() -> None:
    outcome = after(YAML.replace("tensor-parallel-size: 4", "tensor-parallel-size: 8"))
    (llama,) = (server for server in outcome.changed if server.name == "llama/0")
    assert llama.kind == "moved"
    assert " → " in llama.reasons[0]
    assert "--tensor-parallel-size 4 → 8" in llama.reasons
    assert llama.line.startswith("llama/0 would move: gpu0")


def test_a_host_that_leaves_moves_what_ran_there() -> None:
    left = changed(after(inventory=inventory("gpu01", host("gpu03")), facts=seen("gpu01", "gpu03")))
    there = [server["name"] for server in BEFORE["servers"] if "gpu02" in server["gpus"]]
    assert there
    for name in there:
        kind, reasons = left[name]
        assert (kind, reasons[0].startswith("gpu02 [")) == ("moved", True), reasons
        assert "gpu03 [" in reasons[0]
    here = [server["name"] for server in BEFORE["servers"] if "gpu01" in server["gpus"]]
    assert not set(here) & left.keys(), "what is on the other host goes on"


def test_versions_and_a_hosts_settings_concern_what_runs_there() -> None:
    facts = seen(*HOSTS)
    facts["gpu02"] = replace(facts["gpu02"], vllm="0.33.0")
    there = {server["name"] for server in BEFORE["servers"] if "gpu02" in server["gpus"]}
    outcome = changed(after(facts=facts))
    assert outcome == {name: ("restarted", ("vLLM 0.32.0 → 0.33.0 on gpu02",)) for name in ALL if name in there}
    moved = changed(after(inventory=inventory("gpu01", host("gpu02", venv="/opt/new", before_start="true"))))
    assert moved.keys() == there
    assert {reasons for _, reasons in moved.values()} == {("+ venv /opt/new on gpu02", "before_start of gpu02")}


def test_secrets_are_names_and_changed() -> None:
    planned = described(YAML, NEXT, BEFORE)
    rotated = difference(BEFORE, planned, secrets_differ=True)
    assert changed(rotated) == of_all("a value of HF_TOKEN changed")
    added = changed(after(secrets={"": ("HF_TOKEN",), "gpu02": ("X_TOKEN",)}))
    there = {server["name"] for server in BEFORE["servers"] if "gpu02" in server["gpus"]}
    assert added == {name: change for name, change in of_all("secret X_TOKEN added").items() if name in there}
    removed = changed(after(secrets={}))
    assert removed == of_all("secret HF_TOKEN removed")


def of_all(reason: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return a change of every server: a router goes on."""
    return {name: ("reloaded" if name.endswith("/router") else "restarted", (reason,)) for name in ALL}


def edited(change: Callable[[Any], None]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return what would change where a description is planned that is BEFORE but for a change."""
    run = copy.deepcopy(BEFORE)
    change(run)
    return changed(difference(BEFORE, run))


def test_certificates_concern_who_serves_with_them() -> None:
    with_tls: Any = copy.deepcopy(BEFORE)
    with_tls["servers"][0]["ranks"][0]["argv"].append("--ssl-certfile=/tls/c.pem")
    with_tls["tls"] = {"cert.pem": "1", "gpu01:/tls/c.pem": "1", "gpu02:/tls/c.pem": "1"}
    renewed: Any = copy.deepcopy(with_tls)
    renewed["tls"] = {"cert.pem": "2", "gpu01:/tls/c.pem": "2", "gpu02:/tls/c.pem": "2"}
    host_name = with_tls["servers"][0]["ranks"][0]["host"]
    reasons = ("certificate cert.pem changed", f"certificate {host_name}:/tls/c.pem changed")
    assert changed(difference(with_tls, renewed)) == {"qwen/0": ("restarted", reasons)}


def test_files_of_a_program_and_ports_that_no_flag_shows() -> None:
    def program(run: Any) -> None:
        run["program"] = {"program/app.py": "2"}
        run["servers"][3]["engine"] = "program"

    assert edited(program) == {"llama/0": ("restarted", ("engine vllm → program", "file app.py added"))}

    def port(run: Any) -> None:
        run["servers"][0]["ranks"][0]["ports"]["supervisor"] = 29601

    assert edited(port) == {"qwen/0": ("restarted", ("+ port (supervisor) 29601",))}


RAY = YAML.replace("ray: auto", "ray: always")


def test_the_ray_cluster_is_compared_by_its_nodes() -> None:
    on = described(RAY)
    assert difference(BEFORE, on).ray == ("it starts",)
    assert difference(on, BEFORE).ray == ("it ends",)
    one: Any = copy.deepcopy(on)
    one["ray"]["nodes"] = {"gpu01": [0, 1, 2, 3], "gpu03": [*range(8)]}
    one["ray"]["address"] = "10.0.0.1:6380"
    one["ray"]["scripts"] = {"gpu01/ray_head.sh": "x", "gpu03/ray_worker.sh": "y"}
    outcome = difference(on, one)
    before = len(on["ray"]["nodes"]["gpu01"])
    assert outcome.ray == ("head 10.0.0.1:6379 → 10.0.0.1:6380", f"GPUs {before} → 4 on the head gpu01")
    assert outcome.lines[0].startswith("Ray would change: head 10.0.0.1:6379")
    assert {node.name: node.kind for node in outcome.nodes} == {"Ray on gpu02": "removed", "Ray on gpu03": "added"}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_a_random_change_of_one_rank_names_exactly_its_server(seed: int) -> None:
    chance = random.Random(seed)
    run: Any = copy.deepcopy(BEFORE)
    server = chance.choice(run["servers"])
    rank = chance.choice(server["ranks"])
    what = chance.choice(("argv", "env", "script", "gpus", "host", "ports"))
    text = f"--x={chance.random()}"
    if what == "argv":
        rank["argv"].insert(chance.randrange(3, len(rank["argv"]) + 1), text)
    elif what in ("env", "ports"):
        rank[what][f"N{seed}"] = text if what == "env" else 60000 + seed % 5000
    elif what == "gpus":
        rank["gpus"] = [*rank["gpus"], 97]
    else:
        rank[what] = text
    outcome = difference(BEFORE, run)
    assert [change.name for change in outcome.changed] == [server["name"]], what
    assert outcome.changed[0].reasons
    assert outcome.json()["run_id"] == RUN


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from([1, 2, 4])), min_size=1, max_size=3), st.integers(0, 9))
def test_whatever_runs_planned_again_is_what_runs(models: list[tuple[int, int]], seed: int) -> None:
    """Also where others have come and gone since: the GPUs and ports that it has stay its own."""
    text = "model_args:\n" + "".join(
        f"  m{at}: {{model: /m{at}, tensor-parallel-size: {size}, port: auto}}\n" for at, (_, size) in enumerate(models)
    )
    text += "deploy: {ray: auto, models: {" + ", ".join(
        f"m{at}: {{num_replicas: {count}}}" for at, (count, _) in enumerate(models)
    ) + "}}\n"  # fmt: skip
    chance = random.Random(seed)
    names = ("gpu01", "gpu02", "gpu03", "gpu04", "gpu05", "gpu06", "gpu07", "gpu08")
    busy = {name: sorted(chance.sample(range(8), 2)) for name in names}
    facts = {name: seen(name, busy=busy[name])[name] for name in names}
    before = described(text, RUN, None, inventory=inventory(*names), facts=facts)
    planned = described(text, NEXT, before, inventory=inventory(*names), facts=seen(*names))
    assert difference(before, planned).lines == ()


def test_flags_of_command_lines() -> None:
    argv = ["vllm", "serve", "/m", "--a=1", "--b", "--c", "x", "y", "--a=2"]
    assert flags_of(argv) == {"model": "/m", "--a": "1 2", "--b": "", "--c": "x y"}
    assert flags_of(["python3", "-u", "app.py", "--x"]) == {"program": "python3 -u app.py", "--x": ""}
    assert flags_of([]) == {"program": ""}


def test_ports_of_what_runs_are_its_own_although_a_process_lost_its_marker() -> None:
    on, facts = described(RAY), seen(*HOSTS)
    record = cast(Any, {"deployment": "two", "boot_id": "boot-gpu01", "ports": {"dashboard": 8265, "ray": 6379}})
    facts["gpu01"] = replace(facts["gpu01"], deployments=(record,), ports=(taken(8265, "ray-dashboard"), taken(6379)))
    assert difference(on, described(RAY, NEXT, on, facts=facts)).lines == ()
    facts["gpu01"] = replace(facts["gpu01"], deployments=())
    assert difference(on, described(RAY, NEXT, on, facts=facts)).ray[0] == "head 10.0.0.1:6379 → 10.0.0.1:6380"


def record_of_before() -> dict[str, Any]:
    servers = [
        {"name": server["name"], "model": server["model"], "driver": server["ranks"][0]["host"],
         "gpus": server["gpus"], "argv": server["ranks"][0]["argv"]}
        for server in BEFORE["servers"][:-1]
    ]  # fmt: skip
    router = {"name": "qwen/router", "model": "qwen", "driver": "gpu01", "gpus": {}}
    return {
        "deployment": "two", "run_id": RUN, "boot_id": "boot-gpu01", "head": "gpu01", "hosts": list(HOSTS),
        "instances": servers, "routers": [router], "secrets": ["HF_TOKEN"], "ray": {"enabled": False},
    }  # fmt: skip


def test_a_run_of_an_earlier_version_is_compared_by_its_record() -> None:
    running = Running(cast(Any, record_of_before()))
    planned = described(YAML, NEXT)
    outcome = running.differs(planned)
    assert (outcome.lines, bool(outcome.unknown), outcome.run_id) == ((), True, RUN)
    longer = running.differs(described(YAML.replace("len: 4096", "len: 8192"), NEXT))
    assert changed(longer) == dict.fromkeys(QWEN, ("restarted", ("--max-model-len 4096 → 8192",)))
    assert running.held.gpus["llama/0"] == BEFORE["servers"][3]["gpus"]
    assert running.differs(described(RAY, NEXT)).ray == ("it starts",)


def test_what_runs_is_found_in_the_probes() -> None:
    facts = seen(*HOSTS)
    record = cast(Any, record_of_before())
    facts["gpu01"] = replace(facts["gpu01"], deployments=(record,), kept=run_text(BEFORE))
    assert find_running(facts, "two", "gpu01") is None, "nothing of it lives"
    facts["gpu02"] = replace(facts["gpu02"], runs={f"two/{RUN}": 3})
    assert find_running(facts, "two", "gpu01") == Running(record, BEFORE)
    assert find_running(facts, "other", "gpu01") is None
    for text in ("", "{}", "x", run_text({**BEFORE, "run_id": "other"}), run_text({**BEFORE, "deployment": "evil"})):
        facts["gpu01"] = replace(facts["gpu01"], kept=text)
        assert find_running(facts, "two", "gpu01") == Running(record), text
    facts["gpu02"] = replace(facts["gpu02"], kept=run_text(BEFORE))
    assert find_running(facts, "two", "gpu01") == Running(record, BEFORE), "of another host"


def test_after_an_update_what_runs_is_what_the_update_describes() -> None:
    change = {"run_id": "u2", "base": "u1", "operator": "me", "groups": [], "step": "", "done": [], "secrets": False}
    record = cast(Any, {**record_of_before(), "configuration": "u1", "change": change})
    updated, facts = {**BEFORE, "run_id": "u1"}, seen(*HOSTS)
    facts["gpu01"] = replace(facts["gpu01"], deployments=(record,), runs={f"two/{RUN}": 3}, kept=run_text(BEFORE))
    facts["gpu02"] = replace(facts["gpu02"], kept=run_text(cast(Any, updated)))
    running = find_running(facts, "two", "gpu01")
    assert running == Running(record, cast(Any, updated))
    assert (running.configuration, running.change) == ("u1", change)
    assert Running(record).differs(described(YAML, NEXT)).run_id == "u1"
    before = Running(cast(Any, record_of_before()))
    assert (before.configuration, before.change) == (RUN, None)
