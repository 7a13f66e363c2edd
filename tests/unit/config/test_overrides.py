from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.config.load import load_spec
from tests.unit.config.files import EXPERIMENT, LISTED, SEED, faults, load, write

DIALECTS = {
    "seed": {"config.yaml": SEED},
    "list": {"config.yaml": LISTED},
    "seed in a group": {"config.yaml": EXPERIMENT, "serve/qwen2.5_7b.yaml": SEED},
    "list in a group": {"config.yaml": EXPERIMENT, "serve/qwen2.5_7b.yaml": LISTED},
    "deploy in the experiment": {
        "config.yaml": EXPERIMENT.replace("  runner:", "  deploy: {port: 1}\n  runner:"),
        "serve/qwen2.5_7b.yaml": LISTED,
    },
}


@pytest.mark.parametrize("files", DIALECTS.values(), ids=DIALECTS.keys())
@pytest.mark.parametrize(
    "word", ["deploy.port=9000", "+deploy.port=9000", "++deploy.port=9000", "experiment.deploy.port=9000"]
)
def test_the_port_is_set_in_every_dialect(tmp_path: Path, files: dict[str, str], word: str) -> None:
    write(tmp_path, files)
    assert load_spec(tmp_path / "config.yaml", [word], environ={}).models[0].port == 9000


@pytest.mark.parametrize(
    "key",
    [
        "model_args.vllm_model.max-model-len",
        "model_args.vllm_model.max_model_len",
        "serve.model_args.vllm_model.max-model-len",
    ],
)
@pytest.mark.parametrize("files", [DIALECTS["seed"], DIALECTS["seed in a group"]], ids=["file", "group"])
def test_a_models_flag_is_set_wherever_the_model_stands(tmp_path: Path, files: dict[str, str], key: str) -> None:
    write(tmp_path, files)
    (model,) = load_spec(tmp_path / "config.yaml", [f"{key}=4096"], environ={}).models
    assert model.engine_args["max-model-len"] == 4096


@pytest.mark.parametrize("key", ["serve.0", "serve[0]", "serve.vllm_model", "serve['vllm_model']"])
@pytest.mark.parametrize("files", [DIALECTS["list"], DIALECTS["list in a group"]], ids=["file", "group"])
def test_an_entry_of_a_list_has_an_index_and_a_name(tmp_path: Path, files: dict[str, str], key: str) -> None:
    write(tmp_path, files)
    word = f"{key}.engine_args.tensor-parallel-size=4"
    (model,) = load_spec(tmp_path / "config.yaml", [word], environ={}).models
    assert model.engine_args["tensor-parallel-size"] == 4


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("1e-5", 1e-5), ("true", True), ("'1'", "1"), ("[1, a]", [1, "a"]), ('{"a": [true]}', {"a": [True]}),
        ("", ""), ("a: b #c", "a: b #c"), ("*x", "*x"), ("a=b", "a=b"), ("$(x)", "$(x)"), ("-1", -1),
        ("two\nlines", "two\nlines"), ("${experiment.exp_name}/x", "q/x"), ("ünï", "ünï"), ("@x", "@x"),
    ],
)  # fmt: skip
def test_values_mean_what_they_mean_in_the_file(tmp_path: Path, text: str, value: Any) -> None:
    spec = load(f"{SEED}experiment: {{exp_name: q}}", f"model_args.vllm_model.x={text}", folder=tmp_path)
    assert spec.models[0].engine_args["x"] == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{image:8,video:0}", {"image": 8, "video": 0}), ("{image: 8,video:0}", {"image": 8, "video": 0}),
        ("{a:{b:1,c:[x,y]},d:true}", {"a": {"b": 1, "c": ["x", "y"]}, "d": True}), ("[{a:1},b:2]", [{"a": 1}, "b:2"]),
        ("{url:http://h:1/x,b:2}", {"url": "http://h:1/x", "b": 2}), ("{'a:b':'c:d, e'}", {"a:b": "c:d, e"}),
        ('{"a":1,"b":"{c:d}"}', {"a": 1, "b": "{c:d}"}), ('{"a":"\\":{,"}', {"a": '":{,'}),
        ("{a:it's,b:1}", {"a": "it's", "b": 1}),
        ("{a:,b: }", {"a": None, "b": None}), ("{a:b: 1}", {"a:b": 1}), ("{}", {}), ("{a}", {"a": None}),
    ],
)  # fmt: skip
def test_a_mapping_needs_no_blanks_as_in_hydra(tmp_path: Path, text: str, value: Any) -> None:
    (model,) = load(SEED, f"model_args.vllm_model.limit-mm-per-prompt={text}", folder=tmp_path).models
    assert model.engine_args["limit-mm-per-prompt"] == value


def test_a_flag_is_replaced_in_its_place_and_null_takes_it_out(tmp_path: Path) -> None:
    words = ["model_args.vllm_model.tensor_parallel_size=8", "model_args.vllm_model.gpu-memory-utilization=null"]
    (model,) = load(SEED, *words, folder=tmp_path).models
    assert list(model.engine_args.items()) == [("tensor-parallel-size", 8)]


def test_a_tilde_removes(tmp_path: Path) -> None:
    spec = load(SEED, "~deploy.models.vllm_model.num_gpus", "~model_args.vllm_model.port=4567", folder=tmp_path)
    assert (spec.models[0].num_gpus, spec.models[0].port) == (None, 8000)


def test_every_place_of_deploy_can_be_removed_by_its_own_name(tmp_path: Path) -> None:
    places = "{deploy: {port: 1}, runner: {deploy: {port: 2}}}"
    text = f"experiment: {places}\nmodel_args: {{m: {{model: /m, port: 3}}}}\n"
    words = ["~experiment.deploy", "~experiment.runner.deploy"]
    assert [load(text, *words[:count], folder=tmp_path).models[0].port for count in (0, 1, 2)] == [1, 2, 3]
    assert load(text, "~deploy.port", folder=tmp_path).models[0].port == 3


def test_keys_with_dots_are_found(tmp_path: Path) -> None:
    text = "model_args: {qwen2.5-7b: {model: /m, limit-mm-per-prompt.image: 1, hf-overrides: {a: 1}}}"
    words = ["model_args.qwen2.5-7b.limit_mm_per_prompt.image=2", "model_args[qwen2.5-7b].hf-overrides.b=2"]
    (model,) = load(text, *words, folder=tmp_path).models
    assert dict(model.engine_args) == {"limit-mm-per-prompt.image": 2, "hf-overrides": {"a": 1, "b": 2}}


def test_a_model_is_added_with_a_plus(tmp_path: Path) -> None:
    assert [model.name for model in load(SEED, "+model_args.b.model-tag=/b", folder=tmp_path).models] == [
        "vllm_model",
        "b",
    ]


def test_later_words_win(tmp_path: Path) -> None:
    assert load(SEED, "deploy.port=1", "deploy.port=2", folder=tmp_path).models[0].port == 2


def test_flagscales_own_words_are_taken(tmp_path: Path) -> None:
    assert load(SEED, "action=stop", "hydra.run.dir=x", "experiment.runner.nnodes=2", folder=tmp_path).name == "qwen"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (SEED, "model_args.vllm_model.tp=4"),
        (LISTED, "serve.0.engine_args.tp=4"),
        (SEED.replace("tensor-parallel-size", "tp"), "model_args.vllm_model.tensor_parallel_size=4"),
    ],
)
def test_a_flag_is_found_by_its_short_name_and_by_its_long_one(tmp_path: Path, text: str, word: str) -> None:
    args = load(text, word, folder=tmp_path).models[0].engine_args
    assert (args["tensor-parallel-size"], "tp" in args) == (4, False)
    removed = load(text, f"~{word.removesuffix('=4')}", folder=tmp_path).models[0].engine_args
    assert "tensor-parallel-size" not in removed


FAULTS = {
    "deploy.prot=1": "override deploy.prot: unknown key\n    → did you mean port?",
    "deploy.timeouts.redy=1": "override deploy.timeouts.redy: unknown key\n    → did you mean ready?",
    "deploy.port=x": "override deploy.port: 'x': expected a port from 1 to 65535, or auto",
    "experimnt.exp_name=x": "override experimnt.exp_name: unknown key\n    → did you mean experiment?",
    "model_args.vllm_modle.x=1": "override model_args.vllm_modle.x: unknown model vllm_modle\n    → model_args has: ",
    "deploy.models.modle.num_gpus=1": "override deploy.models.modle.num_gpus: unknown model\n    → model_args has: ",
    "model_args.vllm_model.port.x=1": "override model_args.vllm_model.port.x: model_args.vllm_model.port is one value",
    "deploy.port": "override deploy.port: is not key=value",
    "=1": "override =1: is not key=value",
    "~deploy.nothing": "override deploy.nothing: there is nothing to remove",
    "~model_args.vllm_model.port=1": "override model_args.vllm_model.port: there is nothing to remove",
    "deploy.port=[1": "override deploy.port:1:",
    "deploy.name=\0": "override deploy.name: a NUL byte cannot be given to a program",
    "a[=1": "override a[=1: is not key=value",
}


@pytest.mark.parametrize(("word", "problem"), FAULTS.items())
def test_an_override_that_does_not_fit_is_named_by_itself(tmp_path: Path, word: str, problem: str) -> None:
    (fault,) = faults(SEED, word, folder=tmp_path)
    assert fault.startswith(problem)


def test_an_entry_that_the_list_does_not_have(tmp_path: Path) -> None:
    (fault,) = faults(LISTED, "serve.1.engine_args.x=1", folder=tmp_path)
    assert fault == "override serve.1.engine_args.x: the list has no entry 1\n    → it has: 0 (vllm_model)"


def test_the_value_of_an_override_is_in_no_message(tmp_path: Path) -> None:
    assert "sesame" not in "".join(faults(SEED, "model_args.vllm_model.api-key=[sesame,open]", folder=tmp_path))
