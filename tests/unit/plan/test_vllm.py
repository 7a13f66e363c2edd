from __future__ import annotations

from typing import Any

import pytest

from flagscale_deploy.config.source import WrittenFloat
from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.errors import InputError
from flagscale_deploy.plan.vllm import serve_argv

HOSTILE = """-it's "$(x)" `y` ünï\ncode"""


def flags(args: dict[str, Any], **extra: Any) -> list[str]:
    """Return the words between the model and the port."""
    argv = serve_argv(
        ModelSpec("m", "/m", engine_args=args), port=1, extra={key.replace("_", "-"): extra[key] for key in extra}
    )
    assert argv[:3] == ("vllm", "serve", "/m")
    assert argv[-1] == "--port=1"
    return list(argv[3:-1])


def test_the_form_of_the_design() -> None:
    model = ModelSpec(
        "m",
        "/models/Qwen",
        engine_args={"tensor-parallel-size": 1},
        action_args=("trust-remote-code", "enable-chunked-prefill"),
    )
    assert " ".join(serve_argv(model, port=4567, extra={})) == (
        "vllm serve /models/Qwen --tensor-parallel-size=1 --port=4567 --trust-remote-code --enable-chunked-prefill"
    )


CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "the user's order": ({"z": 1, "a": 2}, ["--z=1", "--a=2"]),
    "true": ({"enforce-eager": True, "of-tomorrow": True}, ["--enforce-eager", "--of-tomorrow"]),
    "false where vLLM has a no-form": ({"enable-prefix-caching": False}, ["--no-enable-prefix-caching"]),
    "false where it has none": ({"headless": False, "of-tomorrow": False, "hf-token": False}, []),
    "words for true and false": (
        {"enforce-eager": "yes", "enable-lora": "Off", "headless": "on"},
        ["--enforce-eager", "--no-enable-lora", "--headless"],
    ),
    "words of other flags": ({"dtype": "no"}, ["--dtype=no"]),
    "nothing": ({"seed": None}, []),
    "zero and empty text": ({"seed": 0, "chat-template": ""}, ["--seed=0", "--chat-template="]),
    "numbers as written": ({"x": WrittenFloat("1e-5"), "y": WrittenFloat("0.90")}, ["--x=1e-5", "--y=0.90"]),
    "a list of words": ({"served-model-name": ["a", "b c"]}, ["--served-model-name", "a", "b c"]),
    "a list of one, whatever it is": ({"served-model-name": ["-a"]}, ["--served-model-name=-a"]),
    "an empty list": ({"served-model-name": []}, []),
    "a list in JSON": ({"allowed-origins": ["*", "ü"]}, ['--allowed-origins=["*","ü"]']),
    "an empty list in JSON": ({"allowed-methods": []}, ["--allowed-methods=[]"]),
    "a list with commas": ({"device-ids": [0, 1]}, ["--device-ids=0,1"]),
    "a repeated flag": ({"middleware": ["a.b", "c.d"]}, ["--middleware=a.b", "--middleware=c.d"]),
    "mappings in a list": (
        {"lora-modules": [{"name": "a", "path": "/a"}, "b=/b"]},
        ["--lora-modules", '{"name":"a","path":"/a"}', "b=/b"],
    ),
    "a mapping": (
        {"hf-overrides": {"a": [1, None, True, WrittenFloat("1e-5")]}},
        ['--hf-overrides={"a":[1,null,true,1e-5]}'],
    ),
    "numbers as written, in JSON too": (
        {"hf-overrides": {"a": WrittenFloat("0.90"), "b": {"c": [WrittenFloat("-.5"), WrittenFloat("5.")]}, "d": 1.5}},
        ['--hf-overrides={"a":0.90,"b":{"c":[-0.5,5.0]},"d":1.5}'],
    ),
    "a dotted number as written": (
        {"c.x": WrittenFloat("1e-5"), "c.y": WrittenFloat(".5")},
        ["--c.x=1e-5", "--c.y=0.5"],
    ),
    "dotted": (
        {"limit-mm-per-prompt.image": 8, "c.on": True, "c.off": False, "c.l": ["x"]},
        ["--limit-mm-per-prompt.image=8", "--c.on=true", "--c.off=false", '--c.l=["x"]'],
    ),
    "dotted text that reads as something else": (
        {"c.a": "8", "c.b": "true", "c.c": "4k", "c.d": "x"},
        ['--c.a="8"', '--c.b="true"', '--c.c="4k"', "--c.d=x"],
    ),
    "hostile text": ({"chat-template": HOSTILE}, [f"--chat-template={HOSTILE}"]),
    "vLLM's config file": ({"config": "/e.yaml"}, ["--config", "/e.yaml"]),
    "the optimization level": ({"O": 3, "O2": True}, ["-O3", "-O2"]),
    "fields of the optimization": ({"O.mode": 3, "O": {"mode": 3}}, ["-O.mode=3", '-O{"mode":3}']),
    "no optimization level": ({"Of": 3, "O": None}, ["--Of=3"]),
    "host": ({"host": "0.0.0.0"}, ["--host=0.0.0.0"]),
}


@pytest.mark.parametrize(("args", "words"), CASES.values(), ids=CASES.keys())
def test_a_flag_becomes_what_vllm_takes(args: dict[str, Any], words: list[str]) -> None:
    assert flags(args) == words


def test_the_planners_flags_come_last_and_replace_in_place() -> None:
    args = {"tensor-parallel-size": 2, "seed": 1}
    assert flags(args, distributed_executor_backend="ray", tensor_parallel_size=4) == [
        "--tensor-parallel-size=4",
        "--seed=1",
        "--distributed-executor-backend=ray",
    ]


def test_an_action_that_stands_among_the_flags_is_not_said_twice() -> None:
    model = ModelSpec(
        "m", "/m", engine_args={"trust-remote-code": True}, action_args=("trust-remote-code", "enforce-eager")
    )
    assert serve_argv(model, port=1, extra={})[3:] == ("--trust-remote-code", "--port=1", "--enforce-eager")


def test_an_action_may_be_the_optimization_level() -> None:
    model = ModelSpec("m", "/m", action_args=("O3", "seed=1"))
    assert serve_argv(model, port=1, extra={})[3:] == ("--port=1", "-O3", "--seed=1")


def test_a_list_that_no_command_line_carries_is_a_fault() -> None:
    model = ModelSpec("m", "/m", engine_args={"served-model-name": ["a", "-b"]}, where="q.yaml: model_args.m")
    with pytest.raises(InputError, match=r"q\.yaml: model_args\.m\.served-model-name: vLLM would read '-b' as a flag"):
        serve_argv(model, port=1, extra={})
