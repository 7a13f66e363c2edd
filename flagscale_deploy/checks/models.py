"""Check that every model can be served as configured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flagscale_deploy.checks.conditions import engines, model_of, passed
from flagscale_deploy.checks.model_files import (
    UNREAD,
    LoadedModel,
    copied,
    has_tokenizer,
    in_pools,
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
from flagscale_deploy.checks.types import Check, Context, Finding
from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.facts.model import ModelFiles
from flagscale_deploy.plan.model import InstancePlan
from flagscale_deploy.support.units import MIB, counted

ALLOW_LONG = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"


def model_parallel(context: Context) -> Iterator[Finding]:
    """Check that the tensor parallel size fits attention and key-value heads, and every stage has a layer.

    It has to divide the attention heads, and to divide the key-value heads or be a multiple of them.
    """
    for model, files in readable(context):
        tensor, pipeline = model.spec.parallel("tensor"), model.spec.parallel("pipeline")
        many, keys, depth = heads(files.config), kv_heads(files.config), layers(files.config)
        host = next(iter(model.files))
        fitting = [size for size in range(1, min(many or 1, 64) + 1) if _divides(size, many, keys)]
        cure = f"set tensor-parallel-size to one of {', '.join(map(str, fitting))} ({model.spec.where})"
        if many and tensor > 0 and not _divides(tensor, many, keys):
            words = f"{counted(many, 'attention head')}" + (
                f", {counted(keys, 'key-value head')}" if keys and keys != many else ""
            )
            yield Finding(host, f"tensor-parallel-size {tensor} with {words}", "a size that divides the heads", cure)
        elif depth and pipeline > depth:
            yield Finding(host, f"pipeline-parallel-size {pipeline} with {counted(depth, 'layer')}", f"at most {depth}",
                          f"lower pipeline-parallel-size ({model.spec.where})")  # fmt: skip
        elif many:
            yield passed(f"{many} heads / {tensor}, {depth or '?'} layers / {pipeline}")


def model_length(context: Context) -> Iterator[Finding]:
    """Check that max-model-len is within the positions that the model knows: vLLM refuses a larger one."""
    for model, files in readable(context):
        configured, limit = tokens(model.spec.engine_args.get("max-model-len")), longest(files.config)
        instances = [instance for instance in engines(context) if instance.label == model.spec.label]
        if _lengthened(model.spec, instances) or limit is None:
            continue
        length, key = limit
        if configured is not None and configured > length:
            problem = f"max-model-len {configured}, but {key} is {length}"
            yield Finding(next(iter(model.files)), problem, f"at most {length}",
                          f"set max-model-len: {length} ({model.spec.where}), or {ALLOW_LONG}=1 in envs")  # fmt: skip
        else:
            yield passed(f"{configured if configured is not None else 'not set'}; the model has {length}")


def model_memory(context: Context) -> Iterator[Finding]:
    """Check that the weights and the KV cache of one sequence of max-model-len fit on each GPU."""
    files_of = {model.spec.name: files for model, files in readable(context)}
    done = set()
    for instance in engines(context):
        model, memory = model_of(context, instance), _smallest_gpu(context, instance)
        files = files_of.get(instance.model)
        if model is None or memory is None or files is None or model.engine_args.get("kv-cache-memory-bytes"):
            continue
        needed = need(files, model, _length(model, files.config))
        if needed is None or (memory, model.name) in done:
            continue
        done.add((memory, model.name))
        host, total = memory
        share = utilization(model)
        calculation = needed.calculation(total, share)
        if needed.total > total * share:
            shorter = needed.longest(total * share)
            cure = (
                f"set max-model-len: {shorter}, or kv-cache-dtype: fp8" if shorter > 255 else "use more or larger GPUs"
            )
            yield Finding(
                host, calculation, "a model that fits", f"{cure}, or raise tensor-parallel-size ({model.where})"
            )
        else:
            yield passed(calculation)


def model_tokenizer(context: Context) -> Iterator[Finding]:
    """Check that there are a tokenizer and a chat template; without a template vLLM refuses chats (a warning)."""
    for model in loaded(context):
        if not _brings_tokenizer(model.spec):
            continue
        sound = model.sound
        lacking = [host for host, files in sound.items() if not has_tokenizer(files)]
        for host in lacking:
            source = next((name for name in sound if name not in lacking), None)
            yield Finding(host, f"{model.spec.model} has no tokenizer", "tokenizer.json, tokenizer.model or vocab.json",
                          _copy_from(context, model, source, host, "copy the tokenizer's files there"))  # fmt: skip
        silent = [host for host, files in sound.items() if not files.chat_template and host not in lacking]
        if silent and not _needs_no_template(model.spec, sound[silent[0]]):
            source = next((name for name, files in sound.items() if files.chat_template), None)
            for host in silent if source else silent[:1]:
                yield Finding(host, f"{model.spec.model} has no chat template", "one, or plain completions only",
                              _copy_from(context, model, source, host, f"set chat-template: FILE ({model.spec.where})"),
                              "warning")  # fmt: skip


def model_code(context: Context) -> Iterator[Finding]:
    """Check that a model with its own code may run it, if neither vLLM nor Transformers know its type."""
    for model, files in readable(context):
        mapped = files.config.get("auto_map")
        kind = files.config.get("model_type")
        own = isinstance(mapped, Mapping) and "AutoConfig" in mapped and kind not in KNOWN
        if own and not switched_on(model.spec, "trust-remote-code"):
            code = [name for name in files.hashes if name.endswith(".py")]
            yield Finding(
                next(iter(model.files)), f"{model.spec.model} needs its own code ({', '.join(code[:3]) or 'auto_map'})",
                "trust-remote-code", f"read the code, then set trust-remote-code: true ({model.spec.where})",
            )  # fmt: skip
        else:
            yield passed("it has code of its own, which may run" if own else "not needed")


def readable(context: Context) -> Iterator[tuple[LoadedModel, ModelFiles]]:
    """Yield each model, or each of its pools, with its files on the first host where they are complete.

    Where they are complete nowhere, it is the first where they can be read.
    """
    for model in (pool for whole_model in loaded(context) for pool in in_pools(context, whole_model)):
        if model.sound:
            whole = (files for files in model.sound.values() if not incomplete(files))
            yield model, next(whole, next(iter(model.sound.values())))


def _divides(size: int, many: int | None, keys: int | None) -> bool:
    if many is None or many % size:
        return many is None
    return keys is None or keys % size == 0 or size % keys == 0


def _length(model: ModelSpec, config: Mapping[str, object]) -> int | None:
    """Return the tokens of one sequence, at most those that the model has positions for."""
    value, limit = model.engine_args.get("max-model-len"), longest(config)
    length = tokens(value)
    if length is None:
        return limit[0] if value is None and limit and not _by_memory(config) else None
    return min(length, limit[0]) if limit else length


def _by_memory(config: Mapping[str, object]) -> bool:
    """Return whether vLLM by default takes a shorter length than the longest (LongRoPE)."""
    return "longrope" in str(text_config(config).get("rope_scaling")) + str(text_config(config).get("rope_parameters"))


def _lengthened(model: ModelSpec, instances: list[InstancePlan]) -> bool:
    """Return whether flags or variables change the length that the model states."""
    changed = any(model.engine_args.get(key) for key in ("hf-overrides", "rope-scaling", "hf-config-path"))
    allowed = any(instance.env.get(ALLOW_LONG, "0").casefold() in ("1", "true") for instance in instances)
    return changed or allowed or any(key.startswith("hf-overrides.") for key in model.engine_args)


def _smallest_gpu(context: Context, instance: InstancePlan) -> tuple[str, int] | None:
    """Return host and bytes of the smallest GPU of an instance, on hosts with facts; None if one is unknown."""
    if not all(instance.gpus.values()) or not instance.gpus:
        return None
    sizes = []
    for host, indexes in instance.gpus.items():
        if host in context.facts:
            memory = {gpu.index: gpu.memory_total_mib for gpu in context.facts[host].gpus}
            sizes += [(memory.get(index, 0) * MIB, host) for index in indexes]
    least, host = min(sizes, default=(0, ""))
    return (host, least) if least > 0 else None


def _brings_tokenizer(model: ModelSpec) -> bool:
    """Return whether the tokenizer lies beside the model, and is used."""
    flags = model.engine_args
    other = flags.get("tokenizer") or flags.get("tokenizer-mode") not in (None, "auto", "slow", "hf")
    return not (other or switched_on(model, "skip-tokenizer-init") or model.model.endswith(".gguf"))


def _with_tokenizer(context: Context) -> list[str]:
    """Return the hosts where a tokenizer is looked for."""
    models = [model for model in loaded(context) if _brings_tokenizer(model.spec)]
    return list(dict.fromkeys(host for model in models for host in model.sound))


def _needs_no_template(model: ModelSpec, files: ModelFiles) -> bool:
    flags = model.engine_args
    pools = flags.get("runner") == "pooling" or flags.get("task") in (
        "embed",
        "embedding",
        "classify",
        "score",
        "reward",
    )
    return bool(flags.get("chat-template")) or pools or any(name.startswith("tekken") for name in files.hashes)


def _copy_from(context: Context, model: LoadedModel, source: str | None, host: str, otherwise: str) -> str:
    return otherwise if source is None else copied(context, model.spec.model, source, host)


def _no_gpu_memory(context: Context) -> str:
    if why := not_unread(context):
        return why
    any_memory = any(_smallest_gpu(context, instance) for instance in engines(context))
    return "" if any_memory else "no engine is planned on GPUs with known memory"


MODELS = (
    Check("model-path", "model", model_path, "a directory that can be read", not_looked_for, blind=UNREAD),
    Check(
        "model-same",
        "model",
        model_same,
        "the same files on all hosts",
        not_looked_for,
        blind="it can be read on fewer than two hosts",
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
        blind="its config.json has no number of heads",
    ),
    Check(
        "model-length",
        "model",
        model_length,
        "max-model-len within the model's limit",
        not_unread,
        blind="its config.json has no length, or flags change it",
    ),
    Check(
        "model-memory",
        "model",
        model_memory,
        "weights and one sequence fit",
        _no_gpu_memory,
        blind="the size of the weights is unknown",
    ),
    Check(
        "model-tokenizer",
        "model",
        model_tokenizer,
        "a tokenizer and a chat template",
        not_unread,
        looks_at=_with_tokenizer,
    ),
    Check("model-code", "model", model_code, "trust-remote-code if needed", not_unread, blind=UNREAD),
)
