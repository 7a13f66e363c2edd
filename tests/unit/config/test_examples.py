from __future__ import annotations

from pathlib import Path

import pytest

from flagscale_deploy.config.load import load_spec
from flagscale_deploy.plan.vllm import serve_argv

EXAMPLES = Path(__file__).parents[3] / "examples"
SEVEN = "/models/Qwen2.5-7B-Instruct --tensor-parallel-size=1 --gpu-memory-utilization=0.9 --max-model-len=32768"
LARGE = "/models/Qwen2.5-72B-Instruct --tensor-parallel-size"
BARE = "--port=4567 --trust-remote-code --enable-chunked-prefill"
WORDS = {
    "qwen2.5-7b.yaml": f"{SEVEN} {BARE}",
    "hydra/conf/config.yaml": f"{SEVEN} {BARE}",
    "qwen2.5-7b-list-form.yaml": f"{SEVEN} --trust-remote-code --enable-chunked-prefill --max-num-seqs=256 --port=4567",
    "qwen2.5-72b-tp.yaml": f"{LARGE}=4 --gpu-memory-utilization=0.9 --max-model-len=32768 --max-num-seqs=256 {BARE}",
    "qwen2.5-72b-two-hosts.yaml": (
        f"{LARGE}=8 --pipeline-parallel-size=2 --gpu-memory-utilization=0.9 --max-model-len=32768 {BARE}"
    ),
    "qwen3-235b-two-hosts-mp.yaml": (
        "/models/Qwen3-235B-A22B --tensor-parallel-size=8 --pipeline-parallel-size=2 --enable-expert-parallel"
        " --max-model-len=32768 --port=4567"
    ),
    "deepseek-v3-dp-ep.yaml": (
        "/models/DeepSeek-V3 --data-parallel-size=16 --data-parallel-size-local=8 --data-parallel-hybrid-lb"
        " --enable-expert-parallel --max-model-len=32768 --trust-remote-code --port=4567"
    ),
    "tiny-qwen2-mp.yaml": (
        "/models/tiny-qwen2 --served-model-name=tiny-qwen2 --tensor-parallel-size=2 --max-model-len=512"
        " --max-num-seqs=4 --enforce-eager --port=4567"
    ),
    "tiny-qwen2-dp.yaml": (
        "/models/tiny-qwen2 --served-model-name=tiny-qwen2 --data-parallel-size=2 --max-model-len=512"
        " --max-num-seqs=4 --enforce-eager --port=4567"
    ),
    "qwen2.5-72b-pd.yaml": (
        f"{LARGE}=4 --gpu-memory-utilization=0.9 --max-model-len=32768 --port=4567 --trust-remote-code"
    ),
    "tiny-qwen2-pd-cpu.yaml": (
        "/models/tiny-qwen2 --served-model-name=tiny-qwen2 --max-model-len=512 --max-num-seqs=4 --block-size=32"
        " --enforce-eager --port=4567"
    ),
    "tiny-qwen2-cpu.yaml": (
        "/models/tiny-qwen2 --served-model-name=tiny-qwen2 --max-model-len=512 --max-num-seqs=4"
        " --port=4567 --enforce-eager"
    ),
}
GROUPS = {"hydra/conf/serve/qwen2.5-7b.yaml"}


def test_every_example_is_known_here() -> None:
    files = (path.relative_to(EXAMPLES) for path in EXAMPLES.rglob("*.y*ml"))
    there = {str(path) for path in files if path.parts[0] != "ci"}
    programs = {name for name in there if name.startswith("serve-remote/")}
    assert there - programs == WORDS.keys() | GROUPS


def test_an_example_with_a_program_of_its_own_has_it_beside_it() -> None:
    for path in (EXAMPLES / "serve-remote").glob("*.yaml"):
        spec = load_spec(path, environ={})
        assert spec.runs_program
        assert spec.entrypoint is not None
        assert (path.parent / spec.entrypoint).is_file()


@pytest.mark.parametrize(("name", "words"), WORDS.items(), ids=WORDS.keys())
def test_an_example_asks_for_this_command_line(name: str, words: str) -> None:
    spec = load_spec(EXAMPLES / name, environ={})
    (model,) = spec.models
    assert " ".join(serve_argv(model, port=model.port, extra={})) == f"vllm serve {words}"
    assert model.gpus_needed == (0 if "cpu" in name else model.world_size)
