"""`plan --json` is a contract: the shape of the design, key by key."""

from __future__ import annotations

import json

from flagscale_deploy.plan.json_schema import plan_json
from flagscale_deploy.secrets import Secret
from tests.unit.plan.given import RUN, facts, host, inventory, model, planned, spec

HOSTS = inventory("gpu01", host("gpu02", type="A100"))


def test_the_shape_of_the_design() -> None:
    serve_spec = model(
        "vllm_model", model="/models/Qwen", tp=16, port=4567, engine_args={"served-model-name": ["qwen", "q"]}
    )
    made = planned(HOSTS, spec(serve_spec, env={"K": "v"}))
    content = json.loads(json.dumps(plan_json(made)))
    scripts = content.pop("scripts")
    assert content == {
        "schema": 2,
        "deployment": "qwen",
        "run_id": RUN,
        "digest": made.digest,
        "hosts": ["gpu01", "gpu02"],
        "ray": {
            "enabled": True,
            "head": "gpu01",
            "port": 6379,
            "nodes": [
                {"host": "gpu01", "role": "head", "node_ip": "10.0.0.1", "num_gpus": 8, "num_cpus": None,
                 "resources": {}},
                {"host": "gpu02", "role": "worker", "node_ip": "10.0.0.2", "num_gpus": 8, "num_cpus": None,
                 "resources": {"A100": 8.0}},
            ],
        },
        "instances": [
            {
                "model": "vllm_model",
                "replica": 0,
                "pool": "",
                "engine": "vllm",
                "hosts": ["gpu01", "gpu02"],
                "driver": "gpu01",
                "gpus": {"gpu01": list(range(8)), "gpu02": list(range(8))},
                "executor": "ray",
                "needs_vllm": None,
                "port": 4567,
                "argv": [
                    "vllm", "serve", "/models/Qwen", "--served-model-name", "qwen", "q", "--tensor-parallel-size=16",
                    "--distributed-executor-backend=ray", "--port=4567",
                ],
                "env": {
                    "VLLM_HOST_IP": "10.0.0.1", "GLOO_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": "eth0",
                    "K": "v", "RAY_ADDRESS": "10.0.0.1:6379",
                },
                "endpoint": "http://10.0.0.1:4567/v1",
                "served_name": "qwen",
                "ranks": [
                    {
                        "number": 0,
                        "role": "driver",
                        "host": "gpu01",
                        "gpus": list(range(8)),
                        "ports": {"api": 4567},
                        "argv": list(made.instances[0].argv),
                        "env": dict(made.instances[0].env),
                        "script": "vllm_serve_vllm_model_0.sh",
                    }
                ],
                "spares": [],
            }
        ],
        "program": None,
        "router": None,
        "routers": [],
        "gate": None,
        "restart": {"policy": "no", "max": 5, "backoff": {"first": 1.0, "factor": 2.0, "max": 60.0},
                    "reset_after": 600.0, "boot": False, "lost": 60.0, "spare": False, "hang": 600.0,
                    "interval": 60.0, "notify": None},
        "stages": [
            {"name": "ray-head", "after": [], "steps": [{"host": "gpu01", "script": "ray_head.sh"}]},
            {"name": "ray-workers", "after": [], "steps": [{"host": "gpu02", "script": "ray_worker.sh"}]},
            {"name": "ray-nodes", "after": ["ray-head"],
             "steps": [{"host": "gpu01", "script": "ray_nodes.sh"}]},
            {"name": "serve", "after": ["ray-workers", "ray-nodes"],
             "steps": [{"host": "gpu01", "script": "vllm_serve_vllm_model_0.sh"}]},
        ],
    }  # fmt: skip
    assert {name: sorted(files) for name, files in scripts.items()} == {
        "gpu01": ["ray_head.sh", "ray_nodes.sh", "vllm_serve_vllm_model_0.sh", "warm.sh"],
        "gpu02": ["ray_worker.sh", "warm.sh"],
    }
    assert all(text.startswith("#!/usr/bin/env bash\n") for files in scripts.values() for text in files.values())


def test_every_step_has_its_script() -> None:
    made = planned(HOSTS, spec(model("a", tp=2, port=1), model("b/c", tp=12, port=2), after_stop="echo bye"))
    for stage in made.stages:
        for step in stage.steps:
            assert step.script in made.scripts[step.host]
    assert made.instances[1].script.startswith("vllm_serve_b_c-")
    assert all("after_stop.sh" in made.scripts[name] for name in made.hosts)


def test_a_plan_without_ray_has_one_stage() -> None:
    made = planned(HOSTS, spec())
    assert [(stage.name, stage.after) for stage in made.stages] == [("serve", ())]
    assert made.stages[0].steps[0].detached


def test_two_models_whose_names_differ_in_odd_letters_have_two_scripts() -> None:
    made = planned(HOSTS, spec(model("a/b", port=1), model("a_b", port=2)))
    one, two = (instance.script for instance in made.instances)
    assert one != two
    assert {one, two} <= set(made.scripts["gpu01"])


def test_no_secret_is_in_a_plan() -> None:
    made = planned(HOSTS, spec(secret_env={"HF_TOKEN": Secret("hf_abcdefgh")}), {n: facts(n) for n in HOSTS.names})
    assert "hf_abcdefgh" not in json.dumps(plan_json(made))


def test_timeouts_reach_their_steps() -> None:
    made = planned(HOSTS, spec(model(tp=16)))
    assert {step.script: step.timeout for stage in made.stages for step in stage.steps} == {
        "ray_head.sh": 180.0, "ray_worker.sh": 180.0, "ray_nodes.sh": 180.0, "vllm_serve_qwen_0.sh": 60.0,
    }  # fmt: skip
