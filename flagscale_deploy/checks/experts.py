"""Check the experts of a model against its parallel sizes, as vLLM 0.32 takes them.

Source: `_verify_with_expert_parallelism`, `ExpertMapManager`, `FusedMoEFactory` and the models of vLLM 0.32.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final

from flagscale_deploy.checks.conditions import engines, passed
from flagscale_deploy.checks.model_files import not_unread
from flagscale_deploy.checks.model_memory import switched_on
from flagscale_deploy.checks.model_numbers import experts, is_dense, text_config
from flagscale_deploy.checks.models import readable
from flagscale_deploy.checks.types import Check, Context, Finding
from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.plan.rank import flag_of
from flagscale_deploy.support.units import counted

EXPERT_PARALLEL, PREFILL = "enable-expert-parallel", "prefill-context-parallel-size"
REDUNDANT = "num_redundant_experts"
AN_EXPERT_A_RANK: Final = frozenset(
    """
    cohere2_moe ernie4_5_moe ernie4_5_vl_moe exaone_moe hy_v3 laguna lfm2_moe mimo_v2_flash minimax_m2 qwen2_moe
    qwen3_5_moe qwen3_moe qwen3_next qwen3_omni_moe qwen3_vl_moe step3_text step3p5
    """.split()  # noqa: SIM905 (as in the other tables)
)
"""Model types whose code in vLLM wants no more tensor parallel ranks than experts."""


def model_experts(context: Context) -> Iterator[Finding]:
    """Check that a model has the experts that expert parallelism and its load balancing need.

    Data-parallel ranks of a model without experts are independent: replicas do the same, and one that dies is noticed.
    """
    for loaded, files in readable(context):
        model, host = loaded.spec, next(iter(loaded.files))
        if is_dense(files.config):
            yield from _dense(context, model, host)
        elif number := experts(files.config):
            yield from _too_few(model, host, number, files.config) or _shared_out(model, host, number)


def _dense(context: Context, model: ModelSpec, host: str) -> Iterator[Finding]:
    """Yield what is wrong with a model without experts."""
    ranks = model.parallel("data")
    if switched_on(model, EXPERT_PARALLEL):
        yield Finding(host, f"{EXPERT_PARALLEL}, but {model.model} has no experts", "a model with experts",
                      f"remove {EXPERT_PARALLEL} ({model.where})")  # fmt: skip
    if ranks > 1:
        alone = _is_alone(context, model)
        words = f"data-parallel-size {ranks} for a model without experts" + (
            ", with an API server for each rank: vLLM refuses that" if alone else ""
        )
        cure = f"set num_replicas: {ranks} in place of data-parallel-size ({model.where})"
        yield Finding(host, words, "replicas behind the router, which need less", cure,
                      "failed" if alone else "warning")  # fmt: skip


def _is_alone(context: Context, model: ModelSpec) -> bool:
    """Return whether a rank has an API server of its own, as vLLM makes of hybrid load balancing with one per host."""
    servers = [rank for instance in engines(context) if instance.label == model.label for rank in instance.ranks]
    return any(
        "--data-parallel-hybrid-lb" in rank.argv and flag_of(rank.argv, "data-parallel-size-local") == "1"
        for rank in servers
    )


def _too_few(model: ModelSpec, host: str, number: int, config: Mapping[str, object]) -> list[Finding]:
    """Return a tensor parallel size that the model's code in vLLM refuses, with expert parallelism and without."""
    tensor = model.parallel("tensor")
    if tensor > number and any(
        str(part.get("model_type")) in AN_EXPERT_A_RANK for part in (config, text_config(config))
    ):
        return [Finding(host, f"tensor-parallel-size {tensor} with {counted(number, 'expert')}: vLLM refuses that",
                        f"at most {number}", f"lower tensor-parallel-size ({model.where})")]  # fmt: skip
    return []


def _shared_out(model: ModelSpec, host: str, number: int) -> Iterator[Finding]:
    """Yield what is wrong with the shares of the experts; vLLM balances equal ones only, and allows others."""
    if not switched_on(model, EXPERT_PARALLEL):
        yield passed(counted(number, "expert"))
        return
    ranks = model.parallel("tensor") * model.parallel("data") * (_number(model.engine_args.get(PREFILL)) or 1)
    redundant = _redundant(model)
    total = number + redundant
    words = f"{counted(number, 'expert')}" + (f" and {redundant} redundant" if redundant else "")
    words = f"{words} over {counted(ranks, 'rank')}"
    if switched_on(model, "enable-eplb") and total % ranks:
        cure = f"set eplb-config: {{num_redundant_experts: {redundant + ranks - total % ranks}}} ({model.where})"
        yield Finding(host, f"{words}, with enable-eplb", "the same number of experts on each rank", cure)
    elif ranks > total:
        yield Finding(host, f"{words}: {counted(ranks - total, 'rank')} without an expert", "an expert on each rank",
                      f"lower tensor-parallel-size or data-parallel-size ({model.where})", "warning")  # fmt: skip
    else:
        yield passed(f"{words}: {total // ranks} each" + (" or one more" if total % ranks else ""))


def _redundant(model: ModelSpec) -> int:
    """Return how many copies of experts the load balancing adds."""
    config = model.engine_args.get("eplb-config")
    if isinstance(config, str):
        try:
            config = json.loads(config)
        except ValueError:
            return 0
    whole = config.get(REDUNDANT) if isinstance(config, Mapping) else None
    return _number(model.engine_args.get(f"eplb-config.{REDUNDANT}", whole))


def _number(value: object) -> int:
    """Return a whole number of a flag; 0 for anything else."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


EXPERTS = (
    Check(
        "model-experts",
        "model",
        model_experts,
        "experts that fit the parallel sizes",
        not_unread,
        blind="no model has experts or data-parallel ranks",
    ),
)
