"""What a configuration says beside its models' flags, carried to those who act on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.config.spec import RouterSpec
from tests.unit.config.files import LISTED, SEED, faults, load

KEY = "sk-open-sesame"


def deploy(text: str) -> str:
    return f"{SEED}  {text}\n"


def experiment(text: str) -> str:
    return f"{SEED}experiment: {{{text}}}\n"


@pytest.mark.parametrize(
    ("text", "router"),
    [
        ("", RouterSpec()),
        ("router: none", RouterSpec(enabled=False)),
        ("router: never", RouterSpec(enabled=False)),
        ("router: always", RouterSpec(enabled=True)),
        ("router: auto", RouterSpec()),
        ("router: null", RouterSpec()),
        ("router: round-robin", RouterSpec(policy="round_robin")),
        ("router: {policy: power_of_two, port: 9100}", RouterSpec(policy="power_of_two", port=9100)),
        ("router: {port: auto, enabled: yes}", RouterSpec(enabled=True)),
        ("router: {host: 10.0.0.9, prometheus-port: 29001}", RouterSpec(host="10.0.0.9", metrics_port=29001)),
        (
            "router: {retry_max_retries: 9, cb-failure-threshold: 2, log_dir: null}",
            RouterSpec(options={"retry-max-retries": 9, "cb-failure-threshold": 2}),
        ),
    ],
)
def test_a_router_is_a_word_or_a_mapping(tmp_path: Path, text: str, router: RouterSpec) -> None:
    assert load(deploy(text), folder=tmp_path).router == router


@pytest.mark.parametrize(
    ("place", "port", "auto"),
    [
        ("deploy: {port: auto}", 4567, True),
        ("deploy: {port: 9, service: {port: 10}}", 9, False),
        ("deploy: {service: {port: 10}}", 10, False),
        ("experiment: {runner: {cli_args: {port: 11}}}\ndeploy: {port: auto}", 11, False),
        ("experiment: {runner: {cli_args: {port: auto}}}\ndeploy: {port: 9}", 9, True),
    ],
)
def test_the_port_is_the_nearest_to_the_command_line(tmp_path: Path, place: str, port: int, auto: bool) -> None:
    text = f"model_args: {{m: {{model: /m, port: 4567}}}}\n{place}"
    (model,) = load(text, folder=tmp_path).models
    assert (model.port, model.port_auto) == (port, auto)


def test_a_model_may_leave_its_port_to_the_planner(tmp_path: Path) -> None:
    (model,) = load(LISTED.replace("4567", "auto"), folder=tmp_path).models
    assert (model.port, model.port_auto) == (8000, True)


@pytest.mark.parametrize(
    ("text", "replicas"),
    [
        (f"{LISTED}  resources: {{num_replicas: auto}}", "auto"),
        (f"{LISTED}  resources: {{replicas: 3}}", 3),
        (SEED.replace("num_gpus: 1", "num_replicas: AUTO"), "auto"),
    ],
)
def test_copies_are_counted_or_left_to_the_planner(tmp_path: Path, text: str, replicas: Any) -> None:
    assert load(text, folder=tmp_path).models[0].replicas == replicas


def test_a_model_may_be_kept_to_some_hosts(tmp_path: Path) -> None:
    text = SEED.replace("num_gpus: 1", "hosts: 'gpu0[1:2],!gpu02'")
    assert load(text, folder=tmp_path).models[0].hosts == "gpu0[1:2],!gpu02"


@pytest.mark.parametrize(
    "option",
    [
        "memory: 1e9",
        "max_restarts: -1",
        "runtime_env: {pip: [x]}",
        "name: m",
    ],
)
def test_options_of_ray_tasks_are_known_and_mean_nothing_to_an_engine(tmp_path: Path, option: str) -> None:
    assert load(f"{SEED}      {option}\n", folder=tmp_path).models == load(SEED, folder=tmp_path).models


def test_what_is_set_for_one_host_is_carried_by_its_name(tmp_path: Path) -> None:
    text = experiment(
        "envs: {A: 1, nodes_envs: {10.0.0.1: {CUDA_VISIBLE_DEVICES: '0,1', B: true}, gpu02: null}},"
        " node_args: {10.0.0.1: {engine_args: {max_num_seqs: 8, seed: null}}, gpu02: null}"
    )
    spec = load(text, folder=tmp_path)
    assert spec.env == {"A": "1"}
    assert spec.host_env == {"10.0.0.1": {"CUDA_VISIBLE_DEVICES": "0,1", "B": "true"}, "gpu02": {}}
    assert spec.host_engine_args == {"10.0.0.1": {"max-num-seqs": 8}}


def test_what_is_said_of_the_hosts_is_carried(tmp_path: Path) -> None:
    ways = "hostfile: h, ssh_port: 2222, docker: ds, type: ssh, master_addr: x, no_shared_fs: true"
    counts = "nnodes: '2:4', nproc_per_node: 8, device_type: npu"
    spec = load(experiment(f"runner: {{{ways}, {counts}}}"), folder=tmp_path)
    assert (spec.hostfile, spec.ssh_port, spec.docker) == ("h", 2222, "ds")
    assert (spec.nnodes, spec.nproc_per_node, spec.device_type) == (2, 8, "npu")


@pytest.mark.parametrize("engine_args", ['\'{"max_model_len": 4096, "seed": null}\'', "{max-model-len: 4096}"])
def test_options_of_flagscales_command_line_win_over_the_file(tmp_path: Path, engine_args: str) -> None:
    text = SEED.replace("port: 4567", "port: 4567\n    max-model-len: 1")
    cli = f"experiment: {{runner: {{cli_args: {{model_path: /other, engine_args: {engine_args}}}}}}}"
    (model,) = load(f"{text}{cli}", folder=tmp_path).models
    assert (model.model, model.port) == ("/other", 4567)
    assert list(model.engine_args) == ["tensor-parallel-size", "gpu-memory-utilization", "max-model-len"]
    assert model.engine_args["max-model-len"] == 4096


def test_a_key_on_that_command_line_is_as_secret_as_in_the_file(tmp_path: Path) -> None:
    cli = f"experiment: {{runner: {{cli_args: {{engine_args: {{api_key: {KEY}, model: /x, port: 3}}}}}}}}"
    spec = load(f"{SEED}{cli}", folder=tmp_path)
    assert spec.secret_env["VLLM_API_KEY"].reveal() == KEY
    assert (spec.models[0].model, spec.models[0].port) == ("/x", 3)
    assert KEY not in json.dumps(spec.public()) + repr(spec)


@pytest.mark.parametrize(("line", "action"), [("", "run"), ("action: auto_tune", "auto_tune"), ("action: null", "run")])
def test_the_action_is_the_files_unless_the_command_line_has_one(tmp_path: Path, line: str, action: str) -> None:
    assert load(f"{SEED}{line}\n", folder=tmp_path).action == action
    assert load(f"{SEED}{line}\n", "action=stop", folder=tmp_path).action == "stop"


def test_limits_in_the_words_of_older_vllm_become_a_mapping(tmp_path: Path) -> None:
    flags = "limit_mm_per_prompt: 'image=16, video=2'"
    (model,) = load(f"model_args: {{m: {{model: /m, {flags}}}}}", folder=tmp_path).models
    assert model.engine_args["limit-mm-per-prompt"] == {"image": 16, "video": 2}


FAULTS = {
    "a policy of nobody's": (deploy("router: {policy: fastest}"), "deploy.router.policy: 'fastest': "),
    "a router's port": (deploy("router: {port: 0}"), "deploy.router.port: 0: expected a port"),
    "a router's list": (deploy("router: [a]"), "deploy.router: a list: expected a mapping"),
    "a router's workers": (deploy("router: {worker_urls: [a]}"), "deploy.router.worker_urls: is set by this tool"),
    "a flag that the router has not": (
        deploy("router: {retry_max_retrys: 3}"),
        "deploy.router.retry_max_retrys: is not a flag of vllm-router\n    → did you mean retry_max_retries?",
    ),
    "a misspelt key of the router": (
        deploy("router: {polcy: random}"),
        "deploy.router.polcy: is not a flag of vllm-router\n    → did you mean policy?",
    ),
    "a router of another mode": (
        deploy("router: {mini_lb: true}"),
        "deploy.router.mini_lb: belongs to a mode that is not",
    ),
    "a router's key": (deploy(f"router: {{api-key: {KEY}}}"), "deploy.router.api_key: would be seen"),
    "copies": (SEED.replace("num_gpus: 1", "num_replicas: many"), "deploy.models.vllm_model.num_replicas: 'many': "),
    "nodes_envs": (experiment("envs: {nodes_envs: [1]}"), "experiment.envs.nodes_envs: is not a mapping"),
    "one host's": (experiment("envs: {nodes_envs: {h: x}}"), "experiment.envs.nodes_envs.h: is not a mapping"),
    "a name there": (experiment("envs: {nodes_envs: {h: {a-b: 1}}}"), "experiment.envs.nodes_envs.h.a-b: is not the"),
    "a secret there": (
        experiment(f"envs: {{nodes_envs: {{h: {{T_KEY: {KEY}}}}}}}"),
        "experiment.envs.nodes_envs.h.T_KEY: is a",
    ),
    "a size there": (
        experiment("node_args: {h: {engine_args: {tp: 2}}}"),
        "experiment.node_args.h.engine_args.tp: must be the same on all hosts",
    ),
    "a key there": (experiment("node_args: {h: {engine_arg: {}}}"), "experiment.node_args.h.engine_arg: unknown key"),
    "nnodes": (experiment("runner: {nnodes: x}"), "experiment.runner.nnodes: 'x': expected a whole number"),
    "cli_args": (
        experiment("runner: {cli_args: {prot: 1}}"),
        "experiment.runner.cli_args.prot: unknown key\n    → did you mean port",
    ),
    "cli json": (
        experiment("runner: {cli_args: {engine_args: '{'}}"),
        "experiment.runner.cli_args.engine_args: is not JSON",
    ),
    "cli list": (
        experiment("runner: {cli_args: {engine_args: '[1]'}}"),
        "experiment.runner.cli_args.engine_args: is not a mapping",
    ),
    "one path for two": (
        "model_args: {a: {model: /a}, b: {model: /b}}\nexperiment: {runner: {cli_args: {model_path: /c}}}",
        "experiment.runner.cli_args.model_path: is one path, but there are 2 models",
    ),
    "service": (deploy("service: {prot: 1}"), "deploy.service.prot: unknown key\n    → did you mean port?"),
}


@pytest.mark.parametrize(("text", "problem"), FAULTS.values(), ids=FAULTS.keys())
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    (fault,) = faults(text, folder=tmp_path)
    assert fault.startswith(f"qwen.yaml: {problem}")
    assert KEY not in fault


def test_where_hosts_and_resources_of_a_model_stand_is_carried(tmp_path: Path) -> None:
    options = "hosts: gpu01, resources: {A100: 1, B: 0}, accelerator_type: A100"
    (model,) = load(
        f"model_args: {{m: {{model: /m}}}}\ndeploy: {{models: {{m: {{{options}}}}}}}", folder=tmp_path
    ).models
    assert (model.hosts, model.host_types) == ("gpu01", ("A100",))
    assert model.places["hosts"] == f"{tmp_path}/qwen.yaml:2:23: deploy.models.m.hosts"
    listed = "- {serve_id: m, engine_args: {model: /m}, resources: {hosts: a, accelerator_type: H100}}"
    (model,) = load(listed, folder=tmp_path).models
    assert model.host_types == ("H100",)
    assert model.places == {
        "hosts": f"{tmp_path}/qwen.yaml:1:55: 0.resources.hosts",
        "resources": f"{tmp_path}/qwen.yaml:1:65: 0.resources.accelerator_type",
    }
