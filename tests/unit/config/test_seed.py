from __future__ import annotations

from pathlib import Path

import pytest

from flagscale_deploy.config.spec import ModelSpec, RaySpec, Timeouts
from flagscale_deploy.plan.vllm import serve_argv
from tests.unit.config.files import SEED, faults, load


def test_the_published_form_becomes_the_published_command_line(tmp_path: Path) -> None:
    (model,) = load(SEED, folder=tmp_path).models
    assert " ".join(serve_argv(model, port=model.port, extra={})) == (
        "vllm serve /models/Qwen2.5-7B-Instruct --tensor-parallel-size=1 --gpu-memory-utilization=0.90 --port=4567"
        " --trust-remote-code --enable-chunked-prefill"
    )


def test_a_model_carries_what_the_file_says(tmp_path: Path) -> None:
    spec = load(SEED, folder=tmp_path)
    assert spec.models == (
        ModelSpec(
            name="vllm_model",
            model="/models/Qwen2.5-7B-Instruct",
            engine_args={"tensor-parallel-size": 1, "gpu-memory-utilization": 0.9},
            action_args=("trust-remote-code", "enable-chunked-prefill"),
            port=4567,
            num_gpus=1,
            where=f"{tmp_path}/qwen.yaml:2:3: model_args.vllm_model",
            places={
                "tensor-parallel-size": f"{tmp_path}/qwen.yaml:4:5: model_args.vllm_model.tensor-parallel-size",
                "gpu-memory-utilization": f"{tmp_path}/qwen.yaml:5:5: model_args.vllm_model.gpu-memory-utilization",
            },
        ),
    )
    assert (spec.ray, spec.timeouts, spec.env, spec.source) == (RaySpec(), Timeouts(), {}, f"{tmp_path}/qwen.yaml")


def test_dashes_underscores_and_leading_dashes_are_one_spelling(tmp_path: Path) -> None:
    flags = "model_tag: /m, --max_model_len: 5, limit_mm_per_prompt.a_b: 1, action_args: [--trust_remote_code]"
    (model,) = load(f"model_args: {{m: {{{flags}}}}}", folder=tmp_path).models
    assert (dict(model.engine_args), model.action_args) == (
        {"max-model-len": 5, "limit-mm-per-prompt.a_b": 1},
        ("trust-remote-code",),
    )


def test_a_short_name_and_a_long_one_are_one_key(tmp_path: Path) -> None:
    """In vLLM `-tp` is `--tensor-parallel-size`; what the planner counts and what vLLM gets have to agree."""
    cli = "experiment: {runner: {cli_args: {engine_args: {tp: 4}}}}\n"
    (model,) = load(f"{cli}model_args: {{m: {{model: /m, tensor-parallel-size: 1}}}}", folder=tmp_path).models
    assert (dict(model.engine_args), model.gpus_needed) == ({"tensor-parallel-size": 4}, 4)
    (model,) = load("model_args: {m: {model: /m, pp: 2, q: awq, cc.mode: 3}}", folder=tmp_path).models
    assert dict(model.engine_args) == {"pipeline-parallel-size": 2, "quantization": "awq", "compilation-config.mode": 3}


def test_an_action_says_the_same_as_its_flag_or_has_a_value_of_its_own(tmp_path: Path) -> None:
    actions = "[--enforce_eager, no-enable-prefix-caching, chat_template=/a_b, ep]"
    text = f"model_args: {{m: {{model: /m, enforce-eager: on, enable-prefix-caching: false, action-args: {actions}}}}}"
    assert load(text, folder=tmp_path).models[0].action_args == (
        "enforce-eager", "no-enable-prefix-caching", "chat-template=/a_b", "enable-expert-parallel",
    )  # fmt: skip


def test_the_order_is_the_users_and_null_is_left_out(tmp_path: Path) -> None:
    (model,) = load("model_args: {m: {z: 1, model: /m, b: null, a: {x: [1, null]}}}", folder=tmp_path).models
    assert list(model.engine_args.items()) == [("z", 1), ("a", {"x": [1, None]})]


def test_everything_of_an_experiment_is_read(tmp_path: Path) -> None:
    text = """
    experiment:
      exp_name: qwen
      exp_dir: outs/${experiment.exp_name}
      envs: {A: 1, B: true, C: "x y", E: null, F: 1.10, G: 'no', H: on, D: "0,1,2,3"}
      cmds: {before_start: source /opt/env/bin/activate && ulimit -n 65535, after_stop: echo done}
      runner: {hostfile: hosts.txt, ssh_port: 2222, docker: ds, nnodes: 2, nproc_per_node: 8, device_type: A100}
      task: {type: serve, backend: vllm, entrypoint: null}
      auto_tuner: {space: {x: auto}}
    action: run
    model_args: {m: {model-tag: /m}}
    deploy: {use_fs_serve: false}
    """
    spec = load(text, folder=tmp_path)
    assert (spec.name, spec.exp_dir) == ("qwen", "outs/qwen")
    assert spec.env == {"A": "1", "B": "true", "C": "x y", "D": "0,1,2,3", "F": "1.10", "G": "no", "H": "on"}
    assert (spec.before_start, spec.after_stop) == ("source /opt/env/bin/activate && ulimit -n 65535", "echo done")
    assert (spec.hostfile, spec.ssh_port, spec.docker) == ("hosts.txt", 2222, "ds")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("experiment: {exp_name: of-experiment}\ndeploy: {name: of-deploy}", "of-deploy"),
        ("experiment: {exp_name: of-experiment}", "of-experiment"),
        ("experiment: {exp_name: 7}", "7"),
        ("deploy: {}", "qwen"),
    ],
)
def test_the_name_is_the_nearest_that_was_given(tmp_path: Path, text: str, name: str) -> None:
    spec = load(f"{text}\nmodel_args: {{m: {{model-tag: /m}}}}", folder=tmp_path)
    assert (spec.name, spec.exp_dir) == (name, f"outputs/{name}")
    assert load(f"{text}\nmodel_args: {{m: {{model-tag: /m}}}}", folder=tmp_path, name="given").name == "given"


@pytest.mark.parametrize("port", ["8123", "'8123'"])
def test_deploy_port_wins_over_the_models_own(tmp_path: Path, port: str) -> None:
    assert load(f"{SEED}  port: {port}", folder=tmp_path).models[0].port == 8123


def test_without_any_port_it_is_vllms_own(tmp_path: Path) -> None:
    assert load("model_args: {m: {model-tag: /m}}", folder=tmp_path).models[0].port == 8000


@pytest.mark.parametrize(
    ("ray", "spec"),
    [
        ("auto", RaySpec("auto")),
        ("true", RaySpec("on")),
        ("on", RaySpec("on")),
        ("false", RaySpec("off")),
        ("off", RaySpec("off")),
        ("never", RaySpec("off")),
        ("{port: 6400, dashboard: no}", RaySpec("on", 6400, False)),
        ("{mode: auto}", RaySpec("auto")),
    ],
)
def test_ray_is_a_mode_or_a_mapping(tmp_path: Path, ray: str, spec: RaySpec) -> None:
    assert load(f"{SEED}  ray: {ray}", folder=tmp_path).ray == spec


def test_timeouts_are_seconds_or_durations(tmp_path: Path) -> None:
    text = f"{SEED}  timeouts: {{connect: 3, probe: 1.5, ray: 90s, ready: 1h30m, drain: 3m}}"
    assert load(text, folder=tmp_path).timeouts == Timeouts(connect=3, probe=1.5, ray=90, ready=5400, drain=180)


def test_several_models_and_copies_are_carried_to_the_planner(tmp_path: Path) -> None:
    deploy = "deploy: {models: {b: {num_gpus: 2, num_cpus: 1.5, num_replicas: 3}}}"
    a, b = load(f"model_args: {{a: {{model: /a}}, b: {{model: /b, port: 9}}}}\n{deploy}", folder=tmp_path).models
    assert (a.name, a.port, a.num_gpus, a.replicas) == ("a", 8000, None, 1)
    assert (b.name, b.port, b.num_gpus, b.num_cpus, b.replicas) == ("b", 9, 2, 1.5, 3)


FAULTS = {
    "a model that is not there": (
        f"{SEED}    vllm_modle: {{num_gpus: 1}}",
        "qwen.yaml: deploy.models.vllm_modle: unknown model\n    → model_args has: vllm_model",
    ),
    "unknown key of deploy": (f"{SEED}  prot: 1", "qwen.yaml: deploy.prot: unknown key\n    → did you mean port?"),
    "unknown key below": (
        f"{SEED}  timeouts: {{redy: 1}}",
        "qwen.yaml: deploy.timeouts.redy: unknown key\n    → did you mean ready?",
    ),
    "unknown key of ray": (
        f"{SEED}  ray: {{prot: 1}}",
        "qwen.yaml: deploy.ray.prot: unknown key\n    → did you mean port?",
    ),
    "unknown option": (
        SEED.replace("num_gpus", "num-gpu"),
        "qwen.yaml: deploy.models.vllm_model.num-gpu: unknown key\n    → did you mean num_gpus?",
    ),
    "unknown root key": (f"{SEED}experimnt: {{}}", "qwen.yaml: experimnt: unknown key\n    → did you mean experiment?"),
    "unknown key of runner": (
        f"{SEED}experiment: {{runner: {{ssh-prot: 1}}}}",
        "qwen.yaml: experiment.runner.ssh-prot: unknown key\n    → did you mean ssh_port?",
    ),
    "a port that is none": (
        f"{SEED}  port: some",
        "qwen.yaml: deploy.port: 'some': expected a port from 1 to 65535, or auto",
    ),
    "a port too high": (
        SEED.replace("4567", "70000"),
        "qwen.yaml: model_args.vllm_model.port: 70000: expected a port from 1 to 65535",
    ),
    "half a GPU": (
        SEED.replace("num_gpus: 1", "num_gpus: 0.5"),
        "qwen.yaml: deploy.models.vllm_model.num_gpus: 0.5: expected a whole number of GPUs",
    ),
    "true for a number": (f"{SEED}  port: true", "qwen.yaml: deploy.port: True: expected a port"),
    "a timeout of nothing": (
        f"{SEED}  timeouts: {{ready: 0}}",
        "qwen.yaml: deploy.timeouts.ready: 0: expected a number greater than 0",
    ),
    "a mode of ray": (
        f"{SEED}  ray: sometimes",
        "qwen.yaml: deploy.ray: 'sometimes': expected always, auto or never\n    → as in ray: auto",
    ),
    "a name that is no policy": (
        f"{SEED}  router: fastest",
        "qwen.yaml: deploy.router: 'fastest': is not a policy of vllm-router\n    → one of random, round_robin,",
    ),
    "a list of hosts": (
        SEED.replace("num_gpus: 1", "hosts: [a, b]"),
        "qwen.yaml: deploy.models.vllm_model.hosts: a list: expected a pattern of hosts\n    → in one text",
    ),
    "a size that is none": (
        SEED.replace("size: 1", "size: two"),
        "qwen.yaml: model_args.vllm_model.tensor-parallel-size: 'two': expected a whole number from 1",
    ),
    "two spellings": (
        f"{SEED}".replace("port: 4567", "port: 4567\n    tensor_parallel_size: 2"),
        "qwen.yaml: model_args.vllm_model.tensor_parallel_size: --tensor-parallel-size is set twice",
    ),
    "a short name and a long one": (
        SEED.replace("port: 4567", "port: 4567\n    tp: 2"),
        "qwen.yaml: model_args.vllm_model.tp: --tensor-parallel-size is set twice",
    ),
    "no model": ("model_args: {m: {port: 1}}", "qwen.yaml: model_args.m: has no model-tag"),
    "a model like a flag": (
        "model_args: {m: {model-tag: -x}}",
        "qwen.yaml: model_args.m.model-tag: vLLM would read '-x' as a flag",
    ),
    "no models": ("model_args: {}", "qwen.yaml: model_args: has no models"),
    "nothing to serve": ("experiment: {exp_name: x}", "qwen.yaml: model_args: has no models"),
    "a model that is a word": ("model_args: {m: /models/x}", "qwen.yaml: model_args.m: is not a mapping"),
    "actions that are a word": (
        "model_args: {m: {model: /m, action-args: x}}",
        "qwen.yaml: model_args.m.action-args: is not a list of flags",
    ),
    "an action without a name": (
        "model_args: {m: {model: /m, action-args: ['--=x']}}",
        "qwen.yaml: model_args.m.action-args: is not a list of flags",
    ),
    "an action with a value": (
        "model_args: {m: {model: /m, action-args: ['--seed 3']}}",
        "qwen.yaml: model_args.m.action-args: seed has a value\n    → write it as a flag of the model: seed: …",
    ),
    "a size among the actions": (
        "model_args: {m: {model: /m, action-args: ['tp=2']}}",
        "qwen.yaml: model_args.m.action-args: tensor-parallel-size has a value",
    ),
    "off, and on by an action": (
        "model_args: {m: {model: /m, enforce-eager: false, action-args: [enforce_eager]}}",
        "qwen.yaml: model_args.m.action-args: enforce-eager is set as a flag, too",
    ),
    "on, and off by an action": (
        "model_args: {m: {model: /m, enable-prefix-caching: yes, action-args: [no-enable-prefix-caching]}}",
        "qwen.yaml: model_args.m.action-args: no-enable-prefix-caching is set as a flag, too",
    ),
    "empty": ("", "qwen.yaml: is empty"),
    "a word": ("hello", "qwen.yaml: holds one value"),
    "a bad name": (
        "experiment: {exp_name: a/b}\nmodel_args: {m: {model: /m}}",
        "qwen.yaml: experiment.exp_name: 'a/b' cannot name a deployment",
    ),
    "a list for deploy": ("deploy: [1]\nmodel_args: {m: {model: /m}}", "qwen.yaml: deploy: a list: expected a mapping"),
    "a word for models": (
        "deploy: {models: x}\nmodel_args: {m: {model: /m}}",
        "qwen.yaml: deploy.models: 'x': expected a mapping",
    ),
    "a name of an env": (
        "experiment: {envs: {a-b: 1}}\nmodel_args: {m: {model: /m}}",
        "qwen.yaml: experiment.envs.a-b: is not the name of a variable",
    ),
    "a list in envs": (
        "experiment: {envs: {A: [0, 1]}}\nmodel_args: {m: {model: /m}}",
        "qwen.yaml: experiment.envs.A: is a list",
    ),
    "a composition": (
        "deploy: {models: {A: {module: a.py, name: A}, B: {module: b.py, depends: [A]}}}",
        "qwen.yaml: deploy.models.A: is part of a composition graph",
    ),
    "a composition by its switch": (
        f"{SEED}  enable_composition: true",
        "qwen.yaml: deploy.enable_composition: composition graphs are not run here",
    ),
    "another engine": (
        f"{SEED}experiment: {{task: {{backend: sglang}}}}",
        "qwen.yaml: experiment.task.backend: 'sglang' is not run here",
    ),
    "an engine that nobody here knows": (
        f"{SEED}experiment: {{task: {{backend: trt_llm}}}}",
        "qwen.yaml: experiment.task.backend: 'trt_llm' is not run here\n    → set backend: vllm",
    ),
    "another task": (
        f"{SEED}experiment: {{task: {{type: train}}}}",
        "qwen.yaml: experiment.task.type: 'train' is not run here",
    ),
    "an action of nobody's": (f"{SEED}action: serve", "qwen.yaml: action: 'serve' is not an action"),
}


@pytest.mark.parametrize(("text", "problem"), FAULTS.values(), ids=FAULTS.keys())
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    (fault,) = faults(text, folder=tmp_path)
    assert fault.startswith(problem)


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    text = "experiment: {exp_name: -, envs: {a b: 1}}\nmodel_args: {m: {port: 0}}\ndeploy: {prot: 1, ray: x}\n"
    assert len(faults(text, folder=tmp_path)) == 6
