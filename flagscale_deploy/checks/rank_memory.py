"""Calculate how much of a host's own memory the ranks of an instance need.

With GPUs it is little: a process, and what `cpu-offload-gb` keeps in memory for each GPU (vLLM 0.32,
`config/offload.py`). Without GPUs it is everything: each rank holds its share of the weights, and a KV cache of
VLLM_CPU_KVCACHE_SPACE GiB or `kv-cache-memory-bytes`; if neither is set vLLM takes what is left (`cpu_worker.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from flagscale_deploy.checks.conditions import engine_hosts, model_of
from flagscale_deploy.checks.model_files import loaded
from flagscale_deploy.checks.model_memory import incomplete, need, number
from flagscale_deploy.checks.types import Context
from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.plan.model import InstancePlan
from flagscale_deploy.support.units import GIB, format_size

RANK_BYTES = GIB
"""Memory of a rank before it loads anything: Python, PyTorch and CUDA's libraries."""
OFFLOAD, CACHE, CACHE_SPACE = "cpu-offload-gb", "kv-cache-memory-bytes", "VLLM_CPU_KVCACHE_SPACE"


@dataclass(frozen=True)
class Ranks:
    """Ranks of an instance on a host, and the bytes that each of them needs."""

    number: int
    weights: float = 0.0
    cache: float = 0.0
    offloaded: float = 0.0

    @property
    def bytes(self) -> float:
        """Return the bytes that all ranks need together."""
        return self.number * (RANK_BYTES + self.weights + self.cache + self.offloaded)

    @property
    def description(self) -> str:
        """Return the calculation as text."""
        parts = [("weights", self.weights), ("KV cache", self.cache), (OFFLOAD, self.offloaded)]
        held = [f"{name} {format_size(amount)}" for name, amount in parts if amount]
        rank = " + ".join([format_size(RANK_BYTES), *held])
        return f"{self.number} {'rank' if self.number == 1 else 'ranks'} × {f'({rank})' if held else rank}"


def ranks_on(context: Context, host: str) -> Iterator[Ranks]:
    """Yield the ranks of each instance on a host."""
    for instance in engine_hosts(context).get(host, ()):
        many, model = ranks_of(context, instance, host), model_of(context, instance)
        if model is None:
            yield Ranks(many)
        elif instance.gpus.get(host):
            yield Ranks(many, offloaded=max(0.0, number(model.engine_args.get(OFFLOAD)) or 0.0) * GIB)
        else:
            yield Ranks(many, _weights(context, model), _cache(model, instance))


def ranks_of(context: Context, instance: InstancePlan, host: str) -> int:
    """Return the ranks of an instance on a host: one per GPU; without GPUs all on its only host, else one each."""
    if gpus := len(instance.gpus.get(host, ())):
        return gpus
    if len(instance.hosts) > 1 or context.spec is None:
        return 1
    model = model_of(context, instance)
    return model.world_size if model else 1


def _weights(context: Context, model: ModelSpec) -> float:
    """Return the bytes of weights that a rank holds; 0 if their size is unknown."""
    on_cpu = replace(model, engine_args={key: value for key, value in model.engine_args.items() if key != OFFLOAD})
    copies = [files for probed in loaded(context) if probed.spec.name == model.name for files in probed.sound.values()]
    copy = next((files for files in copies if not incomplete(files)), copies[0] if copies else None)
    needed = need(copy, on_cpu, None) if copy is not None else None
    return needed.weights if needed is not None else 0.0


def _cache(model: ModelSpec, instance: InstancePlan) -> float:
    space = number(instance.env.get(CACHE_SPACE)) or 0.0
    configured = number(model.engine_args.get(CACHE)) or 0.0
    return max(0.0, space * GIB or configured)
