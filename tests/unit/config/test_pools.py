"""`deploy.models.<name>.prefill` and `.decode`, and FlagScale's keys for the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from flagscale_deploy.config.spec import ModelSpec, PoolSpec, ServeSpec
from tests.unit.config.files import faults, load, unplaced

FLAGS = "model-tag: /m, tensor-parallel-size: 2, max-num-seqs: 64, action-args: [enforce-eager, trust-remote-code]"
MODEL = f"model_args: {{m: {{{FLAGS}}}}}\n"
LISTED = "serve:\n- serve_id: m\n  engine: vllm\n  engine_args: {model: /m, tensor_parallel_size: 2}\n"
DEPLOY = "qwen.yaml: deploy."
OPTIONS = f"{DEPLOY}models.m."
PD = "prefill_decode_disaggregation"


def read(folder: Path, options: str, *overrides: str) -> ModelSpec:
    """Return the model with these options."""
    return only(load(f"{MODEL}deploy: {{models: {{m: {{{options}}}}}}}", *overrides, folder=folder))


def only(spec: ServeSpec) -> ModelSpec:
    (model,) = spec.models
    return model


def pools(model: ModelSpec) -> tuple[PoolSpec, PoolSpec]:
    assert model.prefill is not None
    assert model.decode is not None
    return model.prefill, model.decode


def plain(pool: PoolSpec) -> tuple[object, ...]:
    return pool.replicas, pool.num_gpus, pool.hosts, dict(pool.engine_args)


def test_a_model_has_no_pools_unless_they_are_written(tmp_path: Path) -> None:
    for options in ("num_gpus: 2", "prefill: null, decode: ~"):
        model = read(tmp_path, options)
        assert (model.prefill, model.decode, model.pools) == (None, None, {})


def test_pools_of_nothing_are_one_engine_each(tmp_path: Path) -> None:
    prefill, decode = pools(read(tmp_path, "prefill: {}, decode: {}"))
    assert plain(prefill) == plain(decode) == (1, None, None, {})


def test_each_key_of_a_pool(tmp_path: Path) -> None:
    first = "prefill: {num-replicas: 2, num_gpus: 4, hosts: 'gpu01,gpu02', engine-args: {tp: 4, max_num_seqs: 8}}"
    second = "decode: {num_replicas: 3, engine_args: {--max-model-len: 4096, enforce_eager: no, seed: null}}"
    model = read(tmp_path, f"{first}, {second}")
    prefill, decode = pools(model)
    assert plain(prefill) == (2, 4, "gpu01,gpu02", {"tensor-parallel-size": 4, "max-num-seqs": 8})
    assert plain(decode) == (3, None, None, {"max-model-len": 4096, "enforce-eager": "no"})
    assert model.replicas == 1
    places = [unplaced(prefill.places[key], tmp_path) for key in ("tensor-parallel-size", "hosts")]
    assert places == [f"{OPTIONS}prefill.engine_args.tensor-parallel-size", f"{OPTIONS}prefill.hosts"]


def test_a_pool_serves_the_model_with_its_own_flags_over_the_models(tmp_path: Path) -> None:
    model = read(tmp_path, "hosts: a, num_gpus: 2, prefill: {}, decode: {num_replicas: 3, hosts: b, num_gpus: 4, "
                           "engine_args: {tp: 4, no-enforce-eager: true}}")  # fmt: skip
    prefill, decode = model.pools.values()
    assert [*model.pools] == ["prefill", "decode"]
    assert (prefill.replicas, prefill.hosts, prefill.num_gpus, prefill.world_size) == (1, "a", 2, 2)
    assert (prefill.engine_args, prefill.action_args) == (model.engine_args, model.action_args)
    assert (decode.replicas, decode.hosts, decode.num_gpus, decode.world_size) == (3, "b", 4, 4)
    assert decode.engine_args == {"tensor-parallel-size": 4, "max-num-seqs": 64, "no-enforce-eager": True}
    assert decode.action_args == ("trust-remote-code",)
    assert (decode.prefill, decode.decode, decode.pools) == (None, None, {})
    assert decode.place("tensor-parallel-size") != model.place("tensor-parallel-size")
    assert decode.place("max-num-seqs") == model.place("max-num-seqs")
    assert decode.where != prefill.where != model.where


def test_both_forms_and_the_models_own_resources_have_them(tmp_path: Path) -> None:
    own = f"{LISTED}  resources: {{prefill: {{num_replicas: 2}}, decode: {{num_replicas: 3}}}}\n"
    assert [pool.replicas for pool in pools(only(load(own, folder=tmp_path)))] == [2, 3]
    deployed = f"{own}deploy: {{models: {{m: {{decode: {{num_replicas: 4}}}}}}}}"
    assert [pool.replicas for pool in pools(only(load(deployed, folder=tmp_path)))] == [2, 4]


def test_an_override_sets_a_key_of_a_pool(tmp_path: Path) -> None:
    words = ("deploy.models.m.decode.num_replicas=5", "deploy.models.m.decode.engine_args.max_num_seqs=7")
    _, decode = pools(read(tmp_path, "prefill: {}, decode: {engine_args: {max-num-seqs: 9}}", *words))
    assert plain(decode) == (5, None, None, {"max-num-seqs": 7})


def test_pools_change_what_is_public(tmp_path: Path) -> None:
    """The digest of a deployment is made of it."""
    written = ("num_gpus: 2", "prefill: {}, decode: {}", "prefill: {}, decode: {engine_args: {seed: 1}}")
    public = [
        str(load(f"{MODEL}deploy: {{models: {{m: {{{words}}}}}}}", folder=tmp_path).public()) for words in written
    ]
    assert len({*public}) == len(written)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ("prefill: {}", f"{OPTIONS}prefill: prefill is set, but decode is not\n    → add decode: {{num_replicas: 1}}"),
        ("decode: {num_gpus: 2}", f"{OPTIONS}decode: decode is set, but prefill is not\n    → add prefill"),
        ("prefill: {}, decode: {}, num_replicas: 2", f"{OPTIONS}num_replicas: does not say of which pool"),
        ("prefill: {}, decode: {}, replicas: auto", f"{OPTIONS}replicas: does not say of which pool"),
        ("prefill: 2, decode: {}", f"{OPTIONS}prefill: 2: expected a mapping"),
        (
            "prefill: {num_replica: 2}, decode: {}",
            f"{OPTIONS}prefill.num_replica: unknown key\n    → did you mean num_r",
        ),
        (
            "prefill: {num_replicas: auto}, decode: {}",
            f"{OPTIONS}prefill.num_replicas: 'auto': expected a whole number",
        ),
        ("prefill: {num_replicas: 0}, decode: {}", f"{OPTIONS}prefill.num_replicas: 0: expected a number greater"),
        ("prefill: {num_gpus: 0.5}, decode: {}", f"{OPTIONS}prefill.num_gpus: 0.5: expected a whole number of GPUs"),
        ("prefill: {hosts: [a, b]}, decode: {}", f"{OPTIONS}prefill.hosts: a list: expected a pattern of hosts"),
        ("prefill: {engine_args: [a]}, decode: {}", f"{OPTIONS}prefill.engine_args: a list: expected a mapping"),
        (
            "prefill: {}, decode: {engine_args: {tp: x}}",
            f"{OPTIONS}decode.engine_args.tp: 'x': expected a whole number",
        ),
        (
            "prefill: {}, decode: {engine_args: {tp: 2, tensor-parallel-size: 2}}",
            f"{OPTIONS}decode.engine_args.tensor-parallel-size: --tensor-parallel-size is set twice",
        ),
        *(
            (
                f"prefill: {{engine_args: {{{flag}: x}}}}, decode: {{}}",
                f"{OPTIONS}prefill.engine_args.{flag}: cannot differ between prefill and decode",
            )
            for flag in ("model", "model_tag", "port", "action-args", "api-key", "hf_token")
        ),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(tmp_path: Path, options: str, fault: str) -> None:
    messages = faults(f"{MODEL}deploy: {{models: {{m: {{{options}}}}}}}", folder=tmp_path)
    assert messages[0].startswith(fault)


def test_a_program_of_the_users_own_has_no_pools(tmp_path: Path) -> None:
    text = f"{MODEL}experiment: {{task: {{entrypoint: a.py}}}}\n"
    nothing = "has no effect on a program of your own"
    messages = faults(f"{text}deploy: {{models: {{m: {{prefill: {{}}, decode: {{}}}}}}}}", folder=tmp_path)
    assert [message.partition("\n")[0] for message in messages] == [
        f"{OPTIONS}prefill: {nothing}",
        f"{OPTIONS}decode: {nothing}",
    ]
    (message,) = faults(f"{text}deploy: {{{PD}: true}}", folder=tmp_path)
    assert message.startswith(f"{DEPLOY}{PD}: {nothing}")


@pytest.mark.parametrize("key", ["deploy", "experiment.deploy", "experiment.runner.deploy"])
def test_flagscales_keys_are_the_same_pools(tmp_path: Path, key: str) -> None:
    words = {PD: "true", "prefill_num": "2", "prefill_address": "10.0.0.1", "decode_num": "3",
             "decode_address": "auto", "decode_gpu_memory_utilization": "0.7", "pd_proxy_port": "17001"}  # fmt: skip
    spec = load(LISTED, *(f"++{key}.{name}={value}" for name, value in words.items()), folder=tmp_path)
    prefill, decode = pools(only(spec))
    assert plain(prefill) == (2, None, "10.0.0.1", {})
    assert plain(decode) == (3, None, None, {"gpu-memory-utilization": 0.7})
    assert "prefill_address" in prefill.places["hosts"]
    assert "decode_gpu_memory_utilization" in decode.places["gpu-memory-utilization"]


def test_flagscales_numbers_are_one_by_default(tmp_path: Path) -> None:
    prefill, decode = pools(only(load(f"{LISTED}deploy: {{{PD}: yes}}", folder=tmp_path)))
    assert plain(prefill) == plain(decode) == (1, None, None, {})


def test_flagscales_numbers_have_no_effect_without_its_switch(tmp_path: Path) -> None:
    for switch in ("", f"{PD}: false, "):
        spec = load(f"{LISTED}deploy: {{{switch}prefill_num: 2}}", folder=tmp_path)
        assert (only(spec).pools, spec.warnings) == ({}, ())


def test_flagscales_form_with_llm_has_them(tmp_path: Path) -> None:
    text = f"llm: {{model-tag: /m}}\ndeploy: {{{PD}: true, prefill_num: 2}}"
    prefill, decode = pools(only(load(text, folder=tmp_path)))
    assert (prefill.replicas, decode.replicas) == (2, 1)


def test_a_warning_says_that_nixl_is_used(tmp_path: Path) -> None:
    (warning,) = load(f"{LISTED}deploy: {{{PD}: true}}", folder=tmp_path).warnings
    assert unplaced(str(warning), tmp_path) == (
        f"{DEPLOY}{PD}: the KV cache is transferred by NIXL: vLLM 0.32 has no P2pNcclConnector\n"
        "    → install nixl on the hosts of both pools"
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            f"{MODEL[:-2]}, n: {{model: /n}}}}\ndeploy: {{{PD}: true}}",
            f"{PD}: does not say which of the models 'm', 'n'",
        ),
        (
            f"{MODEL}deploy: {{{PD}: true, models: {{m: {{num_replicas: 2}}}}}}",
            f"{PD}: num_replicas of 'm' does not say",
        ),
        (f"{MODEL}deploy: {{{PD}: true, models: {{m: {{prefill: {{}}, decode: {{}}}}}}}}", f"{PD}: the model 'm' has"),
        (f"{MODEL}deploy: {{{PD}: true, prefill_num: 0}}", "prefill_num: 0: expected a number greater"),
        (f"{MODEL}deploy: {{{PD}: maybe}}", f"{PD}: 'maybe': expected true or false"),
    ],
)
def test_what_does_not_fit_of_flagscales_is_named(tmp_path: Path, text: str, fault: str) -> None:
    (message,) = faults(text, folder=tmp_path)
    assert message.startswith(f"{DEPLOY}{fault}")


def test_variables_of_a_pool_are_its_own_and_no_secrets(tmp_path: Path) -> None:
    model = read(tmp_path, "prefill: {env: {A: 1.10, B: true, C: null}}, decode: {}")
    prefill, decode = model.pools.values()
    assert (dict(prefill.env), dict(decode.env)) == ({"A": "1.10", "B": "true"}, {})
    text = f"{MODEL}deploy: {{models: {{m: {{prefill: {{env: {{HF_TOKEN: abcdefgh}}}}, decode: {{}}}}}}}}"
    (fault,) = faults(text, folder=tmp_path)
    assert fault.startswith(f"{OPTIONS}prefill.env.HF_TOKEN: is a secret of one pool")
