"""Whatever the file and the words are: a specification, or an error of ours with a place."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flagscale_deploy.api.hosts import hosts_of
from flagscale_deploy.config import source
from flagscale_deploy.config.load import load_spec
from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.planner import plan
from flagscale_deploy.plan.vllm import serve_argv
from flagscale_deploy.rendering.render import load_templates
from tests.unit.config.files import EXPERIMENT, LISTED, SEED

FULL = """\
experiment:
  exp_name: full
  envs: {A: 1, nodes_envs: {10.0.0.1: {B: 2}, 10.0.0.2: {CUDA_VISIBLE_DEVICES: '0,1'}}}
  node_args: {10.0.0.2: {engine_args: {max_num_seqs: 8}}}
  cmds: {before_start: ulimit -n 65535, after_stop: echo done}
  runner:
    ssh_port: 22
    docker: box
    nnodes: 2
    nproc_per_node: 8
    no_shared_fs: true
    cli_args: {model_path: /x, port: 9, engine_args: '{"max_model_len": 4096}'}
    deploy: {port: auto, use_fs_serve: false}
serve:
  model_args:
    vllm_model: {model-tag: /m, limit_mm_per_prompt: image=8, port: auto, action-args: [enforce-eager]}
  deploy:
    command-line-mode: true
    models: {vllm_model: {num_gpus: 1, num_replicas: auto, hosts: all, resources: {A100: 1}}}
    router: {policy: round_robin, port: 9100, retry_max_retries: 3}
    ray: always
  hostfile:
    nodes:
      - master: {ip: 10.0.0.1, slots: 8, type: gpu, port: 6400}
      - node: {ip: 10.0.0.2, slots: 4, type: npu, port: 2222, docker: ds}
action: run
"""
OLDEST = """\
command-line-mode: true
llm: {model-tag: /m, tensor-parallel-size: 1, port: 4567, action-args: [trust-remote-code]}
deploy: {instance: [{name: a, num-replicas: 1}]}
"""
PROGRAM = """\
experiment: {task: {type: serve, entrypoint: app.py}}
serve:
  model_args: {m: {model-tag: /m}}
  deploy: {command_line_mode: false, models: {m: {num_gpus: 0.5, runtime_env: {}}}}
"""
TEMPLATES = load_templates()


def parse_yaml(text: str, name: str) -> Any:
    return source.parse_yaml(text, name)


BASES: list[Any] = [
    {**parse_yaml(EXPERIMENT, "x"), **parse_yaml(SEED, "x"), "defaults": []},
    {**parse_yaml(EXPERIMENT, "x"), "serve": parse_yaml(LISTED, "x"), "defaults": ["_self_"]},
    parse_yaml(LISTED, "x"),
    parse_yaml(FULL, "x"),
    parse_yaml(OLDEST, "x"),
    parse_yaml(PROGRAM, "x"),
]
ODD = [
    "${a.b}", "${oc.env:X}", "${", "???", "-x", "auto", "1e-5", "serve", "a.b", "${serve}",
    "none", "image=1", "gpu[1:2]", "10.0.0.1",
]  # fmt: skip
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from([*ODD, 0.5, "x" * 300])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
words = st.one_of(
    st.text(max_size=20),
    st.builds(
        lambda sign, key, value: f"{sign}{key}={value}",
        st.sampled_from(["", "+", "++", "~"]),
        st.sampled_from(
            [
                "deploy",
                "deploy.port",
                "deploy.models",
                "serve",
                "serve.0",
                "serve.vllm_model.engine_args",
                "model_args.vllm_model",
                "experiment.envs.A",
                "defaults",
                "a[b].c",
            ]
        ),
        st.sampled_from(["1", "", "x", "[1]", "{a: b}", "null", "${x}", "'", "{"]),
    ),
)
relaxed = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def mutated(tree: Any, draw: Any) -> Any:
    """Return a copy with one thing, anywhere in it, replaced, removed or added."""
    tree = copy.deepcopy(tree)
    node = tree
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = draw(st.sampled_from(keys)) if keys else None
        if key is not None and isinstance(node[key], (dict, list)) and node[key] and draw(st.booleans()):
            node = node[key]
            continue
        what = draw(st.sampled_from(["replace", "remove", "add"]))
        if what == "add" or key is None:
            node[draw(st.text(max_size=6))] = draw(values) if isinstance(node, dict) else None
        elif what == "replace":
            node[key] = draw(values)
        else:
            del node[key]
        return tree


def check(path: Path, overrides: list[str]) -> None:
    faults: list[Fault] = []
    path.with_name("hosts.yaml").write_text("hosts: [{name: gpu1, gpus: 8}, {name: gpu2, gpus: 4}]", encoding="utf-8")
    try:
        spec = load_spec(path, overrides, environ={})
        for model in spec.models:
            serve_argv(model, port=model.port, extra={})
        json.dumps(spec.public())
        given = None if spec.nodes or spec.hostfile else str(path.with_name("hosts.yaml"))
        plan(Inputs(hosts_of(given, spec), spec, {}, "20261101T120000Z-abc123", TEMPLATES))
    except InputError as error:
        faults = list(error.faults)
    placed = re.compile(rf"override |{re.escape(str(path))}:[0-9]+:[0-9]+(: |$)|gpu[0-9]|(?!{re.escape(str(path))})")
    assert [fault.where for fault in faults if not placed.match(fault.where)] == []
    assert [str(fault) for fault in faults if not (fault.where and fault.problem and fault.remedy)] == []


@relaxed
@given(data=st.data(), base=st.sampled_from(BASES), overrides=st.lists(words, max_size=2))
def test_a_mutated_configuration_never_crashes(
    tmp_path: Path, data: st.DataObject, base: Any, overrides: list[str]
) -> None:
    tree = base
    for _ in range(data.draw(st.integers(1, 3))):
        try:
            tree = mutated(tree, data.draw)
        except TypeError:
            break
    path = tmp_path / "qwen.yaml"
    path.write_text(json.dumps(tree), encoding="utf-8")
    check(path, overrides)


@relaxed
@given(text=st.text(max_size=60))
def test_any_text_never_crashes(tmp_path: Path, text: str) -> None:
    path = tmp_path / "qwen.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    check(path, [])


LINES = st.lists(
    st.tuples(
        st.sampled_from(["gpu01", "10.0.0.1", "x.x.x.x", "a[1:2]", "a[", "u@h:22", "h:0", "../f", "-", "#", ":"]),
        st.sampled_from(["slots=8", "slots=8", "slots=-1", "slots=", "slots=8 more", "type=gpu", "", "gpus=8"]),
        st.sampled_from(["", "", "type=A100", "type=", "type=a,b", "type=gpu", "more", "# told", "\t"]),
    ).map(" ".join),
    max_size=4,
).map("\n".join)


@relaxed
@given(text=LINES | st.text(max_size=40))
def test_any_hostfile_is_read_or_refused_with_a_remedy(tmp_path: Path, text: str) -> None:
    (tmp_path / "hosts.txt").write_text(text, encoding="utf-8", errors="surrogatepass")
    path = tmp_path / "qwen.yaml"
    path.write_text(f"{SEED}experiment: {{runner: {{hostfile: {tmp_path}/hosts.txt}}}}\n", encoding="utf-8")
    check(path, [])


@pytest.mark.parametrize("base", BASES, ids=["seed", "list in a file", "list", "full", "llm", "program"])
def test_the_bases_themselves_load(tmp_path: Path, base: Any) -> None:
    path = tmp_path / "qwen.yaml"
    path.write_text(json.dumps({**base, "hydra": None} if isinstance(base, dict) else base), encoding="utf-8")
    spec = load_spec(path, environ={})
    assert spec.models or spec.runs_program
