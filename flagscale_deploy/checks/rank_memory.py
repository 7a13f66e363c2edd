"""What the ranks of an instance take of a host's own memory.

On GPUs little: a process, and what `cpu-offload-gb` leaves in memory, which is counted per GPU (vLLM 0.32,
`config/offload.py`). Without GPUs all of it: each rank holds its share of the weights, and a KV cache of
VLLM_CPU_KVCACHE_SPACE GiB or `kv-cache-memory-bytes`; where neither is set vLLM takes what is left (`cpu_worker.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from flagscale_deploy.checks.conditions import engine_hosts, model_of
from flagscale_deploy.checks.model import Scene
from flagscale_deploy.checks.model_files import loaded
from flagscale_deploy.checks.model_memory import incomplete, need, number
from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.plan.model import InstancePlan
from flagscale_deploy.support.units import GIB, format_size

RANK_BYTES = GIB
"""What a rank takes before it has loaded anything: Python, PyTorch and CUDA's libraries."""
OFFLOAD, CACHE, CACHE_SPACE = "cpu-offload-gb", "kv-cache-memory-bytes", "VLLM_CPU_KVCACHE_SPACE"


@dataclass(frozen=True)
class Ranks:
    """Ranks of an instance on a host, and what each of them takes, in bytes."""

    number: int
    weights: float = 0.0
    cache: float = 0.0
    offloaded: float = 0.0

    @property
    def bytes(self) -> float:
        return self.number * (RANK_BYTES + self.weights + self.cache + self.offloaded)

    @property
    def words(self) -> str:
        """The arithmetic."""
        parts = [("weights", self.weights), ("KV cache", self.cache), (OFFLOAD, self.offloaded)]
        held = [f"{name} {format_size(amount)}" for name, amount in parts if amount]
        each = " + ".join([format_size(RANK_BYTES), *held])
        return f"{self.number} {'rank' if self.number == 1 else 'ranks'} × {f'({each})' if held else each}"


def ranks_on(scene: Scene, host: str) -> Iterator[Ranks]:
    """The ranks that a host gets, of each instance."""
    for instance in engine_hosts(scene).get(host, ()):
        many, model = ranks_of(scene, instance, host), model_of(scene, instance)
        if model is None:
            yield Ranks(many)
        elif instance.gpus.get(host):
            yield Ranks(many, offloaded=max(0.0, number(model.engine_args.get(OFFLOAD)) or 0.0) * GIB)
        else:
            yield Ranks(many, _weights(scene, model), _cache(model, instance))


def ranks_of(scene: Scene, instance: InstancePlan, host: str) -> int:
    """Ranks of an instance on a host: one for each GPU; without GPUs all of them on its only host, else one each."""
    if gpus := len(instance.gpus.get(host, ())):
        return gpus
    if len(instance.hosts) > 1 or scene.spec is None:
        return 1
    return next((each.world_size for each in scene.spec.models if each.name == instance.model), 1)


def _weights(scene: Scene, model: ModelSpec) -> float:
    """What a rank holds of the weights; nothing where their size is not known."""
    here = replace(model, engine_args={key: value for key, value in model.engine_args.items() if key != OFFLOAD})
    files = [found for each in loaded(scene) if each.model.name == model.name for found in each.sound.values()]
    found = next((each for each in files if not incomplete(each)), files[0] if files else None)
    wanted = need(found, here, None) if found is not None else None
    return wanted.weights if wanted is not None else 0.0


def _cache(model: ModelSpec, instance: InstancePlan) -> float:
    space = number(instance.env.get(CACHE_SPACE)) or 0.0
    given = number(model.engine_args.get(CACHE)) or 0.0
    return max(0.0, space * GIB or given)
