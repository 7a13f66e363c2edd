"""Every recipe of a folder becomes the deployment that its commands are.

The recipes in `library` are ours, in the site's form. FLAGSCALE_DEPLOY_RECIPES names a folder of the site's files that
are tried as well: `FLAGSCALE_DEPLOY_RECIPES=DIR python -m pytest tests/unit/recipes`.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.api.recipes import settle
from flagscale_deploy.api.request import Options, Request, load_request
from flagscale_deploy.config.load import load_spec
from flagscale_deploy.config.source import parse_document
from flagscale_deploy.config.spec import ModelSpec, ServeSpec
from flagscale_deploy.config.written import written
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.planner import plan
from flagscale_deploy.plan.vllm import serve_argv
from flagscale_deploy.recipes.dropped import FLAGS, VARIABLES
from flagscale_deploy.rendering.render import load_templates
from tests.unit.recipes.commands import flags_of, without
from tests.unit.sources import ROOT

OURS = Path(__file__).parent / "library"
ADDED = {
    "port": "the port of the API server, 8000 unless deploy.port says another",
    "master-port": "a port for each instance: two on one host would meet at vLLM's default",
    "data-parallel-rpc-port": "a port for each instance",
    "distributed-executor-backend": "mp is vLLM's default with --nnodes on CUDA only",
}
"""Flags that the plan adds, and why."""
ADDED_TO_FOLLOWERS = {**ADDED, "headless": "recipes of multi_node_tp_dp leave it out: the follower has no API server"}


def recipes() -> list[tuple[Path, Path]]:
    """Return folder and file of every recipe."""
    folders = [OURS, ROOT / "examples/recipes", *map(Path, filter(None, [os.environ.get("FLAGSCALE_DEPLOY_RECIPES")]))]
    return [(folder, file) for folder in folders for file in sorted(folder.glob("*/*/hw/**/*.json"))]


def request_for(folder: Path, file: Path, inventory: str) -> Request:
    document = json.loads(file.read_text(encoding="utf-8"))
    words = (f"hardware={document['hardware']}", f"strategy={document['strategy']}")
    model = "/".join(file.relative_to(folder).parts[:2])
    options = Options(inventory=inventory, config=f"recipe:{model}", overrides=words, recipes=str(folder))
    request, reasons = settle(load_request(options, {}), offline=True, environ={})
    assert reasons == ()
    return request


def servers_of(document: dict[str, Any], model: ModelSpec) -> list[tuple[ModelSpec, list[str], dict[str, str]]]:
    """Return the model as it is served, command and variables: of each node, of pools of their first node."""
    if "prefill" in document:
        pools = [(document[role], served) for role, served in model.pools.items()]
        return [(served, pool["argv"], document["env"] | pool["env"]) for pool, served in pools]
    argvs = [document["argv"]] if "argv" in document else [document["head_argv"], *document["worker_argvs"]]
    return [(model, argv, document["env"]) for argv in argvs]


def same_as_kept(spec: ServeSpec, path: Path) -> None:
    """Fail where the specification is another one after it was written to a file and read again."""
    path.write_text(written(spec), encoding="utf-8")
    again = load_spec(path, environ={})
    assert _without_places(again) == _without_places(spec)


def _without_places(spec: ServeSpec) -> ServeSpec:
    return replace(spec, source="", models=tuple(map(_unplaced, spec.models)))


def _unplaced(model: ModelSpec) -> ModelSpec:
    prefill, decode = (pool and replace(pool, where="", places={}) for pool in (model.prefill, model.decode))
    return replace(model, where="", places={}, prefill=prefill, decode=decode)


ALL = recipes()


def inventory(folder: Path, gpus: int = 8, hosts: int = 16) -> str:
    """Return an inventory of hosts with this many GPUs."""
    file = folder / "hosts.yaml"
    file.write_text(f"hosts: ['gpu[01:{hosts:02}]']\ndefaults: {{gpus: {gpus}}}\n")
    return str(file)


@pytest.mark.parametrize(("folder", "file"), ALL, ids=[str(file.relative_to(folder)) for folder, file in ALL])
def test_a_recipe_becomes_the_deployment_that_its_commands_are(folder: Path, file: Path, tmp_path: Path) -> None:
    document = json.loads(file.read_text(encoding="utf-8"))
    spec = request_for(folder, file, inventory(tmp_path)).serve
    (model,) = spec.models
    servers = servers_of(document, model)
    assert len(servers) == (len(model.pools) or document["node_count"])
    for served, argv, env in servers:
        assert served.model == argv[2]
        assert without(flags_of(serve_argv(served, port=8000, extra={})), ADDED) == without(flags_of(argv), FLAGS)
        assert {**spec.env, **served.env} == {name: value for name, value in env.items() if name not in VARIABLES}
    same_as_kept(spec, tmp_path / "kept.yaml")


SINGLE = [(folder, file) for folder, file in ALL if '"single_node"' in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize(("folder", "file"), SINGLE, ids=[str(file.relative_to(folder)) for folder, file in SINGLE])
def test_a_recipe_for_one_host_is_planned_as_its_command_is(folder: Path, file: Path, tmp_path: Path) -> None:
    argv = json.loads(file.read_text(encoding="utf-8"))["argv"]
    size = request_for(folder, file, inventory(tmp_path)).serve.models[0].gpus_needed
    request = request_for(folder, file, inventory(tmp_path, size))
    made = plan(Inputs(request.inventory, request.serve, {}, "20261101T120000Z-abc123", load_templates()))
    (instance,) = made.instances
    assert without(flags_of(instance.argv), ADDED) == without(flags_of(argv), FLAGS)
    assert instance.hosts == ("gpu01",)
    assert not made.ray.enabled


MULTI = [(folder, file) for folder, file in ALL if '"multi_node"' in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize(("folder", "file"), MULTI, ids=[str(file.relative_to(folder)) for folder, file in MULTI])
def test_a_recipe_for_several_hosts_is_planned_as_its_commands_are(folder: Path, file: Path, tmp_path: Path) -> None:
    document = json.loads(file.read_text(encoding="utf-8"))
    nodes = document["node_count"]
    gpus = request_for(folder, file, inventory(tmp_path)).serve.models[0].gpus_needed
    request = request_for(folder, file, inventory(tmp_path, gpus // nodes, nodes))
    made = plan(Inputs(request.inventory, request.serve, {}, "20261101T120000Z-abc123", load_templates()))
    (instance,) = made.instances
    assert [rank.host for rank in instance.ranks] == [f"gpu{number:02}" for number in range(1, nodes + 1)]
    assert not made.ray.enabled
    for rank, argv in zip(instance.ranks, [document["head_argv"], *document["worker_argvs"]], strict=True):
        recipes_own = flags_of([word.replace("$HEAD_IP", "gpu01") for word in argv])
        added = (ADDED_TO_FOLLOWERS if rank.role == "follower" else ADDED).keys() - recipes_own.keys()
        assert without(flags_of(rank.argv), added) == without(recipes_own, {"port"})


APART = [(folder, file) for folder, file in ALL if '"pd_cluster"' in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize(("folder", "file"), APART, ids=[str(file.relative_to(folder)) for folder, file in APART])
def test_prefill_and_decode_apart_are_planned_as_their_commands_are(folder: Path, file: Path, tmp_path: Path) -> None:
    """Flags of a place are compared with several hosts above; a recipe has but the command of a pool's first node."""
    document = json.loads(file.read_text(encoding="utf-8"))
    request = request_for(folder, file, inventory(tmp_path))
    made = plan(Inputs(request.inventory, request.serve, {}, "20261101T120000Z-abc123", load_templates()))
    (router,) = made.routers
    assert f"--policy={document['router_config']['policy']}" in router.argv
    for instance, role in zip(made.instances, ("prefill", "decode"), strict=True):
        pool = document[role]
        assert len(instance.ranks) == max(1, pool["nodes"])
        assert {"VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT"} <= instance.env.keys()
        for rank in instance.ranks:
            assert without(flags_of(rank.argv), FLAGS) == without(flags_of(pool["argv"]), FLAGS)
            env = {name: value for name, value in pool["env"].items() if name not in VARIABLES}
            assert env.items() <= rank.env.items()
    assert not made.ray.enabled


def test_prefill_and_decode_become_pools_before_a_router(tmp_path: Path) -> None:
    file = OURS / "example/Sparse-48B-A3B/hw/h200/strategies/pd_cluster.json"
    kept = parse_document(written(request_for(OURS, file, inventory(tmp_path)).serve), "kept.yaml").value
    assert isinstance(kept, dict)
    common = {"model": "example/Sparse-48B-A3B", "trust-remote-code": True}
    assert kept["model_args"] == {"vllm_model": common}
    transfer = {"kv_connector": "NixlConnector", "kv_load_failure_policy": "fail"}
    prefill = {"tensor-parallel-size": 16, "max-num-seqs": 5}
    decode = {
        "tensor-parallel-size": 1,
        "data-parallel-size": 16,
        "enable-expert-parallel": True,
        "data-parallel-hybrid-lb": True,
        "enable-prefix-caching": False,
        "max-num-seqs": 64,
    }
    pools = {
        "prefill": {
            "engine_args": prefill | {"kv-transfer-config": transfer | {"kv_role": "kv_producer"}},
            "env": {"VLLM_USE_DEEP_GEMM": "0"},
        },
        "decode": {
            "engine_args": decode | {"kv-transfer-config": transfer | {"kv_role": "kv_consumer"}},
            "env": {"VLLM_USE_DEEP_GEMM": "1"},
        },
    }
    models = {"vllm_model": pools}
    assert kept["deploy"] == {
        "ray": "auto", "executor": "mp", "router": {"policy": "round_robin"}, "models": models,
    }  # fmt: skip


def test_what_is_kept_of_a_recipe_is_a_serve_yaml_for_people(tmp_path: Path) -> None:
    file = OURS / "example/Sparse-48B-A3B/hw/h200/strategies/multi_node_dep.json"
    request = request_for(OURS, file, inventory(tmp_path))
    assert parse_document(written(request.serve), "kept.yaml").value == {
        "experiment": {"exp_name": "Sparse-48B-A3B", "envs": {"VLLM_USE_DEEP_GEMM": "0"}},
        "model_args": {
            "vllm_model": {
                "model": "example/Sparse-48B-A3B",
                "trust-remote-code": True,
                "enable-expert-parallel": True,
                "data-parallel-hybrid-lb": True,
                "data-parallel-size": 16,
                "kv-cache-dtype": "fp8",
            }
        },
        "deploy": {"ray": "auto", "executor": "mp"},
    }
