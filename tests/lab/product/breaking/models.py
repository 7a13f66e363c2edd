"""Models that are missing, incomplete, not the same everywhere, or can't be served as they are asked for."""

from __future__ import annotations

import json
from typing import Any

from tests.lab import Gpu
from tests.lab.product.breaking.devices import equip
from tests.lab.product.breaking.stage import MODEL, Stage, caught_by

MIB_OF_WEIGHTS = 4 * 74000
"""On each of four GPUs 72.3 GiB, which 92 % of 81559 MiB hold, and 92 % of 80000 do not."""
WEIGHTS = f"{MODEL}/model.safetensors"
EMPTY_TENSOR = """
import json, sys
path, size = sys.argv[1], int(sys.argv[2])
header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
with open(path, "wb") as file:
    file.write(len(header).to_bytes(8, "little") + header)
    file.truncate(8 + len(header) + size)
"""
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:5f2c\nsize 988097824\n"


@caught_by("model-path", "flagscale-deploy push", round="model, not there", at="node2")
def its_model_is_not_there(stage: Stage) -> None:
    stage.on(f"mv {MODEL} {MODEL}-gone", f"mv {MODEL}-gone {MODEL}")


@caught_by("model-path", "flagscale-deploy push", round="model, not there", at="node3")
def its_model_is_a_git_lfs_pointer_of_a_model(stage: Stage) -> None:
    edit(stage, "config.json", "version https://git-lfs.github.com/spec/v1\n")


@caught_by("model-same", "rsync -a --delete", round="model, cut off", at="node2")
def its_configuration_is_another(stage: Stage) -> None:
    edit(stage, "generation_config.json", "{}")


@caught_by("model-same", "rsync -a --delete")
def its_weights_have_another_size(stage: Stage) -> None:
    with_copy(stage)
    stage.host.run(["python3", "-c", EMPTY_TENSOR, WEIGHTS, "1000"])


@caught_by("model-weights", "flagscale-deploy push", round="model, cut off", at="node3")
def its_weights_are_cut_off(stage: Stage) -> None:
    """As a copy that was interrupted leaves them."""
    with_copy(stage)
    stage.on(f"truncate -s -1000 {WEIGHTS}")


@caught_by("model-weights", "flagscale-deploy push", round="model, cut off", at="node4")
def its_weights_are_a_pointer_of_git_lfs(stage: Stage) -> None:
    with_copy(stage)
    stage.host.run(["tee", WEIGHTS], stdin=POINTER)


@caught_by("model-weights", "flagscale-deploy push", round="model, in part", at="node3")
def its_weights_are_the_first_of_several_parts(stage: Stage) -> None:
    """Leave a download that ended early, before the index came."""
    with_copy(stage)
    stage.on(f"mv {WEIGHTS} {MODEL}/model-00001-of-00004.safetensors")


@caught_by("model-weights", "flagscale-deploy push", round="model, in part", at="node4")
def its_weights_are_empty(stage: Stage) -> None:
    with_copy(stage)
    stage.on(f"truncate -s 0 {WEIGHTS}")


@caught_by("model-weights", "flagscale-deploy push", round="model, missing", at="node2")
def its_weights_are_missing(stage: Stage) -> None:
    with_copy(stage)
    stage.on(f"rm {WEIGHTS}")


@caught_by("model-tokenizer", "flagscale-deploy push", round="model, not there", at="node4")
def its_tokenizer_is_missing(stage: Stage) -> None:
    with_copy(stage)
    stage.on(f"rm {MODEL}/tokenizer.json")


@caught_by("model-tokenizer", "flagscale-deploy push", state="warning", round="model, missing", at="node3")
def its_chat_template_is_missing(stage: Stage) -> None:
    with_copy(stage)
    stage.on(f"rm {MODEL}/chat_template.jinja")


@caught_by("model-memory", "use more or larger GPUs")
def its_gpu_is_just_too_small(stage: Stage) -> None:
    """Make GPUs a little too small for the weights; files of that size that hold nothing take no room."""
    equip(stage, Gpu(memory_mib=80000))
    for host in stage.lab.hosts:
        stage.on(f"mv {WEIGHTS} {MODEL}.kept", f"mv {MODEL}.kept {WEIGHTS}", host)
        host.run(["python3", "-c", EMPTY_TENSOR, WEIGHTS, str(MIB_OF_WEIGHTS << 20)])


@caught_by("model-parallel", "set tensor-parallel-size to one of 1, 2, 4", host="node1")
def heads_can_not_be_divided(stage: Stage) -> None:
    """Told of the driver's host, as all that is wrong with the model as such."""
    stage.flags(tensor_parallel_size=3)


@caught_by("model-parallel", "lower pipeline-parallel-size", host="node1", round="sizes", at="node2")
def there_are_fewer_layers_than_stages(stage: Stage) -> None:
    stage.flags(tensor_parallel_size=1, pipeline_parallel_size=4)


@caught_by("model-experts", "remove enable-expert-parallel", host="node1")
def experts_are_shared_out_that_the_model_does_not_have(stage: Stage) -> None:
    stage.flags(enable_expert_parallel=True)


@caught_by("model-length", "set max-model-len: 1024", host="node1", round="flags", at="node2")
def longer_sequences_are_asked_for_than_the_model_knows(stage: Stage) -> None:
    stage.flags(max_model_len=4096)


@caught_by("model-code", "set trust-remote-code: true", host="node1", round="values", at="node2")
def the_model_wants_its_own_code_to_run(stage: Stage) -> None:
    for host in stage.lab.hosts:
        config: dict[str, Any] = json.loads(stage.on(f"cat {MODEL}/config.json", host=host))
        config |= {"model_type": "ours", "auto_map": {"AutoConfig": "configuration_ours.OursConfig"}}
        edit(stage, "config.json", json.dumps(config), host)


@caught_by("engine-arguments", "did you mean --max-num-seqs?", host="node1", round="flags", at="node2")
def a_flag_is_misspelt(stage: Stage) -> None:
    """Give a wrong flag, which vLLM on the driver's host finds in the command line."""
    stage.flags(max_nun_seqs=4)


@caught_by("engine-arguments", "correct the value", host="node1", round="values", at="node2")
def a_value_is_none_that_vllm_takes(stage: Stage) -> None:
    stage.flags(max_num_seqs="many")


@caught_by("engine-arguments", "reinstall vLLM", host="node1", round="sizes", at="node2")
def vllm_can_not_be_imported(stage: Stage) -> None:
    driver = stage.lab.hosts[0]
    place = (
        next((stage.environments["good"] / "lib").glob("python*")) / "site-packages/vllm/entrypoints/openai/cli_args.py"
    )
    driver.run(
        ["tee", "/run/broken.py"], stdin="raise ImportError('libcudart.so.13: cannot open shared object file')\n"
    )
    stage.on(f"mount --bind /run/broken.py {place}", f"umount {place}", driver)


def with_copy(stage: Stage) -> None:
    """Whatever happens to the model, it is as before afterwards."""
    stage.on(f"cp -a {MODEL} {MODEL}-kept", f"rm -r {MODEL}; mv {MODEL}-kept {MODEL}")


def edit(stage: Stage, name: str, text: str, host: Any = None) -> None:
    at = host or stage.host
    stage.on(f"cp -a {MODEL}/{name} /run/{name}", f"mv /run/{name} {MODEL}/{name}", at)
    at.run(["tee", f"{MODEL}/{name}"], stdin=text)
