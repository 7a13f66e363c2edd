"""What a recipe may hold, and what is said of one that holds something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.errors import InputError
from flagscale_deploy.plan.vllm_flags import KNOWN
from flagscale_deploy.recipes.command import read_command
from flagscale_deploy.recipes.recipe import read_recipe, serve_tree
from flagscale_deploy.recipes.refused import FLAGS

OURS = Path(__file__).parent / "library"
NODES = OURS / "example/Dense-8B/hw/h200/strategies/multi_node_tp.json"
Change = Callable[[dict[str, Any]], object]


def read(change: Change, file: Path = NODES, strategy: str = "multi_node_tp") -> str:
    """Return what is said of a recipe after a change."""
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    with pytest.raises(InputError) as raised:
        read_recipe(document, "r.json", "h200", strategy)
    (fault,) = raised.value.faults
    assert fault.remedy
    return f"{fault.where}: {fault.problem}"


def word(index: int, text: object) -> Change:
    return lambda document: document["head_argv"].__setitem__(index, text)


def more(*words: str) -> Change:
    return lambda document: document["head_argv"].extend(words)


def env(name: str, value: object) -> Change:
    return lambda document: document["env"].__setitem__(name, value)


FAULTS: dict[str, tuple[Change, str]] = {
    "another hardware": (lambda d: d.update(hardware="h100"), "r.json: hardware: found 'h100', expected h200"),
    "another strategy": (lambda d: d.update(strategy=7), "r.json: strategy: found 7, expected multi_node_tp"),
    "an unknown kind": (lambda d: d.update(deploy_type="cloud"), "r.json: deploy_type: found 'cloud', expected"),
    "companions": (lambda d: d.update(companions=[{}]), "r.json: companions: found companion processes"),
    "no command": (lambda d: d.pop("head_argv"), "r.json: head_argv: found None, expected a list of"),
    "another program": (word(0, "bash"), "r.json: head_argv: found 'bash serve example/Dense-8B', expected vllm serve"),
    "a path as the model": (word(2, "/etc/passwd"), "r.json: head_argv: found 'vllm serve /etc/passwd', expected"),
    "a flag as the model": (word(2, "--help"), "r.json: head_argv: found 'vllm serve --help', expected"),
    "a number": (word(7, 16), "r.json: head_argv.7: found 16, expected text of"),
    "a NUL byte": (word(3, "--a\0b"), "r.json: head_argv.3: found '--a\\x00b', expected text of"),
    "a line end": (more("--a", "b\nc"), "expected text of at most 20,000 printable characters"),
    "a stray word": (word(5, "16"), "r.json: head_argv.5: found '16', expected a flag"),
    "a value missing": (more("--max-model-len"), "found --max-model-len alone, expected a value after it"),
    "a placeholder": (more("--dtype", "$DTYPE"), "found '$DTYPE', expected no placeholder there"),
    "a variable of the operator": (
        more("--dtype", "${oc.env:HOME}"),
        "found '${oc.env:HOME}', expected no placeholder",
    ),
    "broken JSON": (more("--hf-overrides", '{"a": 1'), "expected a JSON object"),
    "JSON with a key twice": (more("--hf-overrides", '{"a": 1, "a": 2}'), "expected a JSON object"),
    "JSON of no number": (more("--hf-overrides", '{"a": NaN}'), "expected a JSON object"),
    "a key": (more("--api-key", "x"), "found --api-key, expected no such flag in a recipe"),
    "a file of flags": (more("--config=/tmp/x"), "found --config, expected no such flag in a recipe"),
    "another worker": (lambda d: d["worker_argvs"][0].extend(["--dtype", "half"]), "worker_argvs.0: found another"),
    "another model": (lambda d: d["worker_argvs"][0].__setitem__(2, "a/b"), "worker_argvs.0: found another command"),
    "too few workers": (lambda d: d.update(worker_argvs=[]), "r.json: node_count: found 2 nodes, expected one more"),
    "no number of nodes": (lambda d: d.update(node_count="many"), "r.json: node_count: found 'many' nodes"),
    "no environment": (lambda d: d.update(env=None), "r.json: env: found None, expected at most 200 variables"),
    "a variable that loads code": (env("LD_PRELOAD", "/x.so"), "env.LD_PRELOAD: found 'LD_PRELOAD', expected"),
    "a variable that finds code": (env("PYTHONPATH", "/x"), "env.PYTHONPATH: found"),
    "a secret": (env("HF_TOKEN", "x"), "env.HF_TOKEN: found"),
    "a variable that is none": (env("a b", "x"), "env.a b: found 'a b', expected a variable of vLLM"),
    "a variable of the host": (env("VLLM_X", "$HOME"), "env.VLLM_X: found '$HOME', expected no placeholder"),
    "a size that is none": (
        word(12, "many"),
        "r.json: head_argv: tensor-parallel-size: found 'many', expected a whole number from 1",
    ),
}


@pytest.mark.parametrize(("change", "text"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_names_file_and_key_and_what_was_expected(change: Change, text: str) -> None:
    assert text in read(change)


@pytest.mark.parametrize("document", [None, [], "x", 7, {"hardware": "h200", "strategy": "multi_node_tp"}])
def test_what_is_no_recipe_is_refused(document: object) -> None:
    with pytest.raises(InputError, match=r"r\.json.*found .*expected"):
        read_recipe(document, "r.json", "h200", "multi_node_tp")


def test_sizes_that_the_nodes_cannot_share_are_refused() -> None:
    def thirds(document: dict[str, Any]) -> None:
        document["node_count"] = 3
        document["worker_argvs"] *= 2

    assert read(thirds) == "r.json: head_argv: found 16 ranks, expected a multiple of the 3 nodes"
    local = OURS / "example/Sparse-48B-A3B/hw/h200/strategies/multi_node_dep.json"
    document = json.loads(local.read_text(encoding="utf-8"))
    document["head_argv"][document["head_argv"].index("8")] = "4"
    with pytest.raises(InputError, match=r"found '4', expected an equal share of data-parallel-size on each of 2"):
        read_recipe(document, "r.json", "h200", "multi_node_dep")


OF_PROGRAMS = """
    PATH LD_PRELOAD PYTHONPATH PYTHONSTARTUP CC CXX CUDACXX NVCC_PREPEND_FLAGS OPENSSL_CONF NCCL_NET_PLUGIN VLLM_PLUGINS
    NCCL_TUNER_PLUGIN VLLM_NCCL_SO_PATH VLLM_CUDART_SO_PATH TRITON_PTXAS_PATH HF_ENDPOINT VLLM_USAGE_STATS_SERVER
    RAY_RUNTIME_ENV_HOOK VLLM_SERVER_DEV_MODE VLLM_ALLOW_INSECURE_SERIALIZATION VLLM_ALLOW_RUNTIME_LORA_UPDATING
    HTTPS_PROXY SSL_CERT_FILE GIT_SSH_COMMAND
""".split()  # noqa: SIM905 (one name a line would hide the rest)


@pytest.mark.parametrize("name", OF_PROGRAMS)
def test_a_recipe_decides_no_program_and_nobody_that_is_talked_to(name: str) -> None:
    assert f"env.{name}: found '{name}', expected a variable of vLLM" in read(env(name, "1"))


@pytest.mark.parametrize("value", ["/tmp/x.so", "x/y", "~", "https://example.com", "\\\\host"])
def test_no_variable_of_a_recipe_names_a_file_or_an_address(value: str) -> None:
    assert "env.VLLM_ANYTHING: found" in (text := read(env("VLLM_ANYTHING", value)))
    assert text.endswith("no path and no address")


@pytest.mark.parametrize("flag", sorted(FLAGS))
def test_a_recipe_has_no_flag_of_these(flag: str) -> None:
    assert flag in KNOWN
    assert f"found --{flag}, expected no such flag in a recipe" in read(more(f"--{flag}=x"))


POOLS = OURS / "example/Dense-8B/hw/h200/strategies/pd_cluster.json"
POOL_FAULTS: dict[str, tuple[Change, str]] = {
    "no pool": (lambda d: d.pop("decode"), "r.json: decode: found None, expected a JSON object"),
    "no number of nodes": (lambda d: d["decode"].update(nodes=-1), "r.json: decode.nodes: found -1, expected a whole"),
    "nodes without a share": (lambda d: d["prefill"].update(nodes=3), "prefill.argv: found 4 ranks, expected a multip"),
    "another model": (lambda d: d["decode"]["argv"].__setitem__(2, "a/b"), "decode.argv: found 'a/b', expected exam"),
    "a secret": (lambda d: d["decode"]["env"].update(HF_TOKEN="1"), "r.json: decode.env.HF_TOKEN: found 'HF_TOKEN'"),
    "no command": (lambda d: d["decode"].update(argv="vllm"), "r.json: decode.argv: found 'vllm', expected a list"),
    "no policy": (lambda d: d.update(router_config={"policy": "a b"}), "router_config.policy: found 'a b', expected a"),
}


@pytest.mark.parametrize(("change", "text"), POOL_FAULTS.values(), ids=POOL_FAULTS.keys())
def test_a_fault_of_a_pool_names_it(change: Change, text: str) -> None:
    assert text in read(change, POOLS, "pd_cluster")


def test_what_the_plan_supplies_is_left_out_and_numbers_keep_their_spelling() -> None:
    words = (
        "vllm serve a/b --port 1 --nnodes 2 --master-addr $HEAD_IP --gpu-memory-utilization 0.90 -O3 -tp 2 --seed 007"
    )
    assert read_command(words.split(), "argv").flags["master-addr"] == "$HEAD_IP"
    document = {"hardware": "h200", "strategy": "x", "deploy_type": "single_node", "env": {}, "argv": words.split()}
    tree = serve_tree(read_recipe(document, "r.json", "h200", "x"))
    assert json.loads(json.dumps(tree, default=str)) == {
        "experiment": {"exp_name": "b"},
        "model_args": {
            "vllm_model": {
                "model": "a/b",
                "gpu-memory-utilization": 0.9,
                "O3": True,
                "tensor-parallel-size": 2,
                "seed": "007",
            }
        },
        "deploy": {"ray": "auto"},
    }
