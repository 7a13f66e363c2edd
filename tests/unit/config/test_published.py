"""Experiments of every published shape are planned as their YAML asks: the same hosts, flags and values.

The files are equivalents of FlagScale's own, with values of ours; `rules.py` says what they ask for.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from flagscale_deploy.api.request import Options, load_request
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.planner import plan
from flagscale_deploy.rendering.render import load_templates
from tests.unit.config import rules
from tests.unit.config.files import write

HEAD = """\
defaults:
  - _self_
  - serve: {group}
experiment:
  exp_name: {name}
  exp_dir: outputs/${{experiment.exp_name}}
  task:
    type: serve
"""
TAIL = """\
action: run
hydra:
  run:
    dir: ${experiment.exp_dir}/hydra
"""


def experiment(name: str, group: str, *lines: str) -> str:
    """Write an experiment file; `lines` stand in `experiment`, two blanks further left than in the file."""
    return HEAD.format(name=name, group=group) + "".join(f"  {line}\n" for line in lines) + TAIL


def first_form(model: str, flags: str, actions: str, deploy: str) -> str:
    return f"model_args:\n  vllm_model:\n    model-tag: {model}\n{flags}    action-args:\n{actions}deploy:\n{deploy}"


SEVEN = first_form(
    "/weights/Seven-7B",
    "    tensor-parallel-size: 1\n    gpu-memory-utilization: 0.80\n    max-model-len: 16384\n    port: 4321\n",
    "      - trust-remote-code\n      - enable-chunked-prefill\n",
    "  command-line-mode: true\n  models:\n    vllm_model:\n      num_gpus: 1\n",
)
SEVENTY = SEVEN.replace("Seven-7B", "Seventy-70B").replace("size: 1", "size: 4").replace("num_gpus: 1", "num_gpus: 4")
SPANNING = first_form(
    "/weights/big/model # where it lies",
    "    tensor-parallel-size: 8\n    pipeline-parallel-size: 2\n    max-num-seqs: 128\n    port: 9111 # to serve\n",
    "      - trust-remote-code\n",
    "  command-line-mode: true\n",
)
SHARED_PORT = """\
model_args:
  vllm_model:
    model: /weights/Seven-7B
    tensor_parallel_size: 1
    enforce_eager: True
    enable_chunked_prefill: False
    max_num_seqs: 64
deploy:
  models:
    vllm_model:
      num_replicas: 8
      num_gpus: 1
  service:
    port: 6711
  command_line_mode: true
"""
LISTED = """\
- serve_id: vllm_model
  engine: vllm
  engine_args:
    model: /weights/Seven-7B
    tensor_parallel_size: 1
    pipeline_parallel_size: 1
    gpu_memory_utilization: 0.85
    max_model_len: 16384
    enforce_eager: true
    trust_remote_code: true
    enable_chunked_prefill: true
"""
LISTED_SEVENTY = LISTED.replace("Seven-7B", "Seventy-70B").replace("tensor_parallel_size: 1", "tensor_parallel_size: 4")
COPIES = LISTED.replace("tensor_parallel_size: 1", "tensor_parallel_size: 2") + (
    "  resources:\n    num_replicas: 4\n    num_gpus: 2\n"
)
SEEING = """\
- serve_id: vllm_model
  engine: vllm
  engine_args:
    model: /weights/seeing
    tensor_parallel_size: 1
    limit_mm_per_prompt: image=6,video=1
    port: 9222
    max_num_seqs: 32
    swap_space: 1e-5
    seed: null
    enable_prefix_caching: false
    disable_log_stats: false
  engine_args_specific:
    vllm:
      max_num_seqs: 999
      dtype: bfloat16
    sglang:
      tp: 3
  profile:
    prefix_len: 0
"""
FOUR_HOSTS = LISTED.replace("tensor_parallel_size: 1", "tensor_parallel_size: 8").replace(
    "pipeline_parallel_size: 1", "pipeline_parallel_size: 4"
)

VISIBLE = ("envs:", "  CUDA_VISIBLE_DEVICES: {}", "  CUDA_DEVICE_MAX_CONNECTIONS: 1")
HOSTFILE = ("runner:", "  hostfile: conf/hostfile.txt", "  docker: box", "  ssh_port: 2222")
STARTING = ("cmds:", "  before_start: source /opt/env/bin/activate && export GLOO_SOCKET_IFNAME=bond7 # yours")
NOT_FS = ("deploy:", "  use_fs_serve: false")


def visible(devices: str) -> tuple[str, ...]:
    return tuple(line.format(devices) for line in VISIBLE)


TWO = "# ip slots type=xxx[optional]\n# master\n10.7.0.2 slots=8 type=gpu \n# workers\n10.7.0.1 slots=8 type=gpu"
FOUR = "".join(f"10.7.0.{number} slots=8\n" for number in (4, 3, 2, 1))
LONE = "10.7.0.9 slots=8 type=A100\n"
EXPERIMENTS: dict[str, tuple[str, str, str]] = {
    "first form, one GPU": (experiment("seven", "it", "runner:", "  hostfile: null", *visible("0")), SEVEN, LONE),
    "first form over SSH": (experiment("seven", "it", *HOSTFILE, *visible("0"), *STARTING), SEVEN, LONE),
    "first form, four GPUs": (experiment("seventy", "it", *HOSTFILE, *visible("0,1,2,3")), SEVENTY, LONE),
    "first form, two hosts in containers": (experiment("big", "it", *HOSTFILE, *STARTING), SPANNING, TWO),
    "first form, copies behind a port": (experiment("copies", "it", *HOSTFILE), SHARED_PORT, LONE),
    "list, one GPU": (experiment("seven", "it", *NOT_FS, *HOSTFILE, *visible("0")), LISTED, LONE),
    "list over SSH": (experiment("seven", "it", *NOT_FS, *HOSTFILE, *STARTING), LISTED, LONE),
    "list, four GPUs": (experiment("seventy", "it", *NOT_FS, *HOSTFILE, *visible("0,1,2,3")), LISTED_SEVENTY, LONE),
    "list with a tuner": (
        experiment(
            "seven",
            "it",
            "deploy:",
            "  port: 6711",
            *HOSTFILE,
            "  nnodes: 1",
            "  nproc_per_node: 4",
            "auto_tuner:",
            "  space: {block_size: [8, 16], tensor_model_parallel_size: auto}",
            "  control: {interval: 10, run_best: False}",
        ).replace("action: run", "action: auto_tune"),
        LISTED,
        LONE,
    ),
    "list, four copies": (
        experiment("copies", "it", "deploy:", "  port: 6711", "  use_fs_serve: true", *HOSTFILE, "  nproc_per_node: 8"),
        COPIES,
        LONE,
    ),
    "list, pictures": (experiment("seeing", "it", *NOT_FS, *HOSTFILE, *STARTING), SEEING, LONE),
    "list, two hosts": (
        experiment("big", "it", *NOT_FS, *HOSTFILE, "  nnodes: 2", "  nproc_per_node: 8"),
        LISTED.replace("parallel_size: 1", "parallel_size: 4"),
        TWO,
    ),
    "list, four hosts": (experiment("r1", "it", *NOT_FS, *HOSTFILE, *visible("0,1,2,3,4,5,6,7")), FOUR_HOSTS, FOUR),
    "getting started": (
        experiment("small", "it", "runner:", "  hostfile: null", "  deploy:", "  use_fs_serve: false", *visible("0")),
        "- serve_id: vllm_model\n  engine_args:\n    model: ./Small-0.6B\n    host: 0.0.0.0\n    max_model_len: 4096\n"
        "    uvicorn_log_level: warning\n    port: 30000\n",
        LONE,
    ),
    "deploy in runner": (
        experiment("seven", "it", *HOSTFILE, "  deploy:", "    port: 6712", "    use_fs_serve: false"),
        LISTED,
        LONE,
    ),
}


def planned(path: Path, inventory: str = "conf/hostfile.txt") -> Plan:
    request = load_request(Options(inventory=inventory, config=str(path)), {})
    return plan(Inputs(request.inventory, request.serve, {}, "20261101T120000Z-abc123", load_templates()))


@pytest.fixture(params=list(EXPERIMENTS))
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    config, group, hosts = EXPERIMENTS[request.param]
    write(tmp_path / "conf", {"config_x2.5.yaml": config, "serve/it.yaml": group, "hostfile.txt": hosts})
    monkeypatch.chdir(tmp_path)
    return Path("conf/config_x2.5.yaml")


def test_the_command_lines_are_those_that_the_yaml_asks_for(case: Path) -> None:
    refuse_difference(rules.asked_by(rules.read(case)), planned(case))


def refuse_difference(models: list[rules.Asked], made: Plan) -> None:
    """Fail where a plan has other instances, flags or ports than were asked for."""
    assert {instance.model for instance in made.instances} == {model.name for model in models}
    for asked in models:
        copies = [instance for instance in made.instances if instance.model == asked.name]
        assert len(copies) == asked.copies
        for instance in copies:
            program, serve, model, *words = instance.argv
            assert (program, serve, model) == ("vllm", "serve", asked.model)
            assert sum(len(gpus) for gpus in instance.gpus.values()) == asked.gpus
            spanning = {"--distributed-executor-backend=ray"} if len(instance.hosts) > 1 else set()
            assert set(words) - spanning == asked.words | {f"--port={instance.port}"}
            assert len(words) == len(set(words))
        taken = [(copy.driver, copy.port) for copy in copies]
        assert copies[0].port == asked.port
        assert len(taken) == len(set(taken))


def test_the_first_line_of_the_hostfile_is_the_head_and_every_slot_is_rays_or_an_instances(case: Path) -> None:
    lines, made = rules.hostfile((case.parent / "hostfile.txt").read_text(encoding="utf-8")), planned(case)
    visible = rules.read(case)["experiment"].get("envs", {}).get("CUDA_VISIBLE_DEVICES")
    assert (made.head, made.ray.head) == (lines[0][0], lines[0][0])
    assert [node.host for node in made.ray.nodes] == [host for host, _, _ in lines]
    for (host, slots, kind), node in zip(lines, made.ray.nodes, strict=True):
        limit = slots if visible is None else len(visible.split(","))
        pinned = sum(len(instance.gpus.get(host, ())) for instance in made.instances if instance.executor != "ray")
        assert node.num_gpus == limit - pinned
        assert dict(node.resources) == (
            {} if kind in ("gpu", "cpu") or limit == pinned else {kind: float(limit - pinned)}
        )


def test_what_the_experiment_says_of_the_hosts_reaches_them(case: Path) -> None:
    experiment = rules.read(case)["experiment"]
    request = load_request(Options(config=str(case)), {})
    if experiment.get("runner", {}).get("hostfile") in (None, "null"):
        assert [host.connection for host in request.inventory.hosts] == ["local"]
        return
    assert {(host.container, host.port) for host in request.inventory.hosts} == {("box", 2222)}
    assert request.serve.before_start == experiment.get("cmds", {}).get("before_start")
    assert request.serve.name == experiment["exp_name"]
    assert dict(request.serve.env) == experiment.get("envs", {})
