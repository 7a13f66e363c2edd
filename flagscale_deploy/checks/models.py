"""Whether every model can be served as it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flagscale_deploy.checks.conditions import engines, model_of, on, passed
from flagscale_deploy.checks.model import Check, Finding, Scene
from flagscale_deploy.checks.model_files import (
    UNREAD,
    Loaded,
    has_tokenizer,
    loaded,
    model_path,
    model_same,
    model_weights,
    not_looked_for,
    not_unread,
)
from flagscale_deploy.checks.model_memory import incomplete, need, switched_on, utilization
from flagscale_deploy.checks.model_numbers import heads, kv_heads, layers, longest, text_config, tokens
from flagscale_deploy.checks.model_types import KNOWN
from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.facts.model import ModelFiles
from flagscale_deploy.plan.model import InstancePlan
from flagscale_deploy.support.units import MIB

ALLOW_LONG = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"


def model_parallel(scene: Scene) -> Iterator[Finding]:
    """Whether the tensor parallel size divides the attention heads, and divides or is a multiple of the key-value
    heads, and there is a layer for every pipeline stage."""
    for each, files in _read(scene):
        tensor, pipeline = each.model.parallel("tensor"), each.model.parallel("pipeline")
        many, keys, depth = heads(files.config), kv_heads(files.config), layers(files.config)
        host = next(iter(each.files))
        fitting = [size for size in range(1, min(many or 1, 64) + 1) if _divides(size, many, keys)]
        cure = f"set tensor-parallel-size to one of {', '.join(map(str, fitting))} ({each.model.where})"
        if many and tensor > 0 and not _divides(tensor, many, keys):
            words = f"{many} attention heads" + (f", {keys} key-value heads" if keys and keys != many else "")
            yield Finding(host, f"tensor-parallel-size {tensor} with {words}", "a size that divides them", cure)
        elif depth and pipeline > depth:
            yield Finding(host, f"pipeline-parallel-size {pipeline} with {depth} layers", f"{depth} at most",
                          f"lower pipeline-parallel-size ({each.model.where})")  # fmt: skip
        elif many:
            yield passed(f"{many} heads / {tensor}, {depth or '?'} layers / {pipeline}")


def model_length(scene: Scene) -> Iterator[Finding]:
    """Whether max-model-len is within what the model knows positions for: vLLM refuses a larger one."""
    for each, files in _read(scene):
        asked, known = tokens(each.model.engine_args.get("max-model-len")), longest(files.config)
        instances = [one for one in engines(scene) if one.model == each.model.name]
        if _lengthened(each.model, instances) or known is None:
            continue
        length, key = known
        if asked is not None and asked > length:
            yield Finding(next(iter(each.files)), f"max-model-len {asked}, but {key} is {length}", f"{length} at most",
                          f"set max-model-len: {length} ({each.model.where}), or {ALLOW_LONG}=1 in envs")  # fmt: skip
        else:
            yield passed(f"{asked if asked is not None else 'not set'}; the model has {length}")


def model_memory(scene: Scene) -> Iterator[Finding]:
    """Whether the weights and the KV cache of one sequence of max-model-len fit on each GPU."""
    files_of = {each.model.name: files for each, files in _read(scene)}
    told = set()
    for instance in engines(scene):
        model, memory = model_of(scene, instance), _smallest_gpu(scene, instance)
        files = files_of.get(instance.model)
        if model is None or memory is None or files is None or model.engine_args.get("kv-cache-memory-bytes"):
            continue
        wanted = need(files, model, _length(model, files.config))
        if wanted is None or (memory, model.name) in told:
            continue
        told.add((memory, model.name))
        host, total = memory
        share = utilization(model)
        words = wanted.words(total, share)
        if wanted.total > total * share:
            shorter = wanted.longest(total * share)
            cure = (
                f"set max-model-len: {shorter}, or kv-cache-dtype: fp8" if shorter > 255 else "use more or larger GPUs"
            )
            yield Finding(host, words, "it fits", f"{cure}, or raise tensor-parallel-size ({model.where})")
        else:
            yield passed(words)


def model_tokenizer(scene: Scene) -> Iterator[Finding]:
    """Whether there is a tokenizer, and a chat template, without which chat completions are refused (a warning)."""
    for each in loaded(scene):
        if not _brings_tokenizer(each.model):
            continue
        sound = each.sound
        lacking = [host for host, files in sound.items() if not has_tokenizer(files)]
        for host in lacking:
            source = next((name for name in sound if name not in lacking), None)
            yield Finding(host, f"{each.model.model} has no tokenizer", "tokenizer.json, tokenizer.model or vocab.json",
                          _copy_from(scene, each, source, host, "put the tokenizer's files there"))  # fmt: skip
        silent = [host for host, files in sound.items() if not files.chat_template and host not in lacking]
        if silent and not _needs_no_template(each.model, sound[silent[0]]):
            source = next((name for name, files in sound.items() if files.chat_template), None)
            for host in silent if source else silent[:1]:
                yield Finding(host, f"{each.model.model} has no chat template", "one, or only plain completions",
                              _copy_from(scene, each, source, host, f"set chat-template: FILE ({each.model.where})"),
                              "warning")  # fmt: skip


def model_code(scene: Scene) -> Iterator[Finding]:
    """Whether a model that brings its own code, of a type that neither vLLM nor Transformers know, may run it."""
    for each, files in _read(scene):
        mapped = files.config.get("auto_map")
        kind = files.config.get("model_type")
        own = isinstance(mapped, Mapping) and "AutoConfig" in mapped and kind not in KNOWN
        if own and not switched_on(each.model, "trust-remote-code"):
            code = [name for name in files.hashes if name.endswith(".py")]
            yield Finding(
                next(iter(each.files)), f"{each.model.model} needs its own code ({', '.join(code[:3]) or 'auto_map'})",
                "trust-remote-code", f"read the code, then set trust-remote-code: true ({each.model.where})",
            )  # fmt: skip
        else:
            yield passed("it brings code, which may run" if own else "none is needed")


def _read(scene: Scene) -> Iterator[tuple[Loaded, ModelFiles]]:
    """Each model with its files on the first host where they are complete, else where they could be read."""
    for each in loaded(scene):
        if each.sound:
            whole = (files for files in each.sound.values() if not incomplete(files))
            yield each, next(whole, next(iter(each.sound.values())))


def _divides(size: int, many: int | None, keys: int | None) -> bool:
    if many is None or many % size:
        return many is None
    return keys is None or keys % size == 0 or size % keys == 0


def _length(model: ModelSpec, config: Mapping[str, Any]) -> int | None:
    """Tokens of one sequence; where max-model-len is too long, what the model knows (model-length tells of it)."""
    given, known = model.engine_args.get("max-model-len"), longest(config)
    asked = tokens(given)
    if asked is None:
        return known[0] if given is None and known and not _by_memory(config) else None
    return min(asked, known[0]) if known else asked


def _by_memory(config: Mapping[str, Any]) -> bool:
    """Whether vLLM takes a shorter length than the longest by default (LongRoPE)."""
    return "longrope" in str(text_config(config).get("rope_scaling")) + str(text_config(config).get("rope_parameters"))


def _lengthened(model: ModelSpec, instances: list[InstancePlan]) -> bool:
    """Whether the user changes what the model says of itself."""
    changed = any(model.engine_args.get(key) for key in ("hf-overrides", "rope-scaling", "hf-config-path"))
    allowed = any(each.env.get(ALLOW_LONG, "0").casefold() in ("1", "true") for each in instances)
    return changed or allowed or any(key.startswith("hf-overrides.") for key in model.engine_args)


def _smallest_gpu(scene: Scene, instance: InstancePlan) -> tuple[str, int] | None:
    """The host and bytes of the smallest GPU of an instance, of hosts that answered; None where one is not known."""
    if not all(instance.gpus.values()) or not instance.gpus:
        return None
    sizes = []
    for host, indexes in instance.gpus.items():
        if host in scene.facts:
            known = {gpu.index: gpu.memory_total_mib for gpu in scene.facts[host].gpus}
            sizes += [(known.get(index, 0) * MIB, host) for index in indexes]
    least, host = min(sizes, default=(0, ""))
    return (host, least) if least > 0 else None


def _brings_tokenizer(model: ModelSpec) -> bool:
    """Whether its tokenizer is one that lies beside it, and is used."""
    given = model.engine_args
    other = given.get("tokenizer") or given.get("tokenizer-mode") not in (None, "auto", "slow", "hf")
    return not (other or switched_on(model, "skip-tokenizer-init") or model.model.endswith(".gguf"))


def _with_tokenizer(scene: Scene) -> list[str]:
    """The hosts where a tokenizer is looked for."""
    return list(dict.fromkeys(name for each in loaded(scene) if _brings_tokenizer(each.model) for name in each.sound))


def _needs_no_template(model: ModelSpec, files: ModelFiles) -> bool:
    given = model.engine_args
    pools = given.get("runner") == "pooling" or given.get("task") in (
        "embed",
        "embedding",
        "classify",
        "score",
        "reward",
    )
    return bool(given.get("chat-template")) or pools or any(name.startswith("tekken") for name in files.hashes)


def _copy_from(scene: Scene, each: Loaded, source: str | None, host: str, otherwise: str) -> str:
    if source is None:
        return otherwise
    path = each.model.model.rstrip("/") + "/"
    return on(scene, source, "rsync", "-a", path, f"{scene.inventory[host].address}:{path}")


def _no_gpu_memory(scene: Scene) -> str:
    if why := not_unread(scene):
        return why
    known = any(_smallest_gpu(scene, each) for each in engines(scene))
    return "" if known else "nothing is planned on GPUs whose memory is known"


MODELS = (
    Check("model-path", "model", model_path, "a directory that can be read", not_looked_for, blind=UNREAD),
    Check(
        "model-same",
        "model",
        model_same,
        "the same files on all hosts",
        not_looked_for,
        blind="no two hosts where it can be read",
    ),
    Check(
        "model-weights",
        "model",
        model_weights,
        "every file of the index",
        not_unread,
        blind="load-format reads other files",
    ),
    Check(
        "model-parallel",
        "model",
        model_parallel,
        "sizes that divide heads and layers",
        not_unread,
        blind="its config.json tells no heads",
    ),
    Check(
        "model-length",
        "model",
        model_length,
        "max-model-len within the model's",
        not_unread,
        blind="its config.json tells no length, or flags change it",
    ),
    Check(
        "model-memory",
        "model",
        model_memory,
        "weights and one sequence fit",
        _no_gpu_memory,
        blind="the size of the weights is not known",
    ),
    Check(
        "model-tokenizer",
        "model",
        model_tokenizer,
        "a tokenizer and a chat template",
        not_unread,
        looks_at=_with_tokenizer,
    ),
    Check("model-code", "model", model_code, "trust-remote-code where it is needed", not_unread, blind=UNREAD),
)
