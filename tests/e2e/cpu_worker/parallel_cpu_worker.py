"""A vLLM worker for CPU with what pipeline and expert parallelism need; lab hosts import it for `--worker-cls`.

vLLM 0.32 leaves three things out on CPU, where no GPU model runner fills them in: the tensors that a later pipeline
stage receives, collectives for unequal parts, and an expert kernel that heeds which experts are local.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed
from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator
from vllm.distributed.parallel_state import get_pp_group
from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
from vllm.v1.worker.cpu_worker import CPUWorker


class Worker(CPUWorker):  # type: ignore[misc]  # vLLM is not installed where types are checked
    """A CPU worker whose later pipeline stages have room for what they receive; GPUs make it in their profile run."""

    def load_model(self, **options: Any) -> None:
        """Load the model, then make room for the tensors of the stage before this one."""
        super().load_model(**options)
        runner = self.model_runner
        if not get_pp_group().is_first_rank and runner.intermediate_tensors is None:
            runner.intermediate_tensors = runner.model.make_empty_intermediate_tensors(
                batch_size=runner.max_num_tokens, dtype=runner.model_config.dtype, device=runner.device
            )


def all_gatherv(self: Any, parts: Any, dim: int = 0, sizes: list[int] | None = None) -> Any:
    """Return the parts of all ranks, one behind the other. Gloo gathers equal shapes only, so they are padded."""
    if isinstance(parts, list):
        return [all_gatherv(self, part, dim, sizes) for part in parts]
    sizes = sizes or [parts.shape[0]] * self.world_size
    padded = parts.new_zeros((max(sizes), *parts.shape[1:]))
    padded[: parts.shape[0]] = parts
    gathered = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(gathered, padded, group=self.device_group)
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])


def reduce_scatterv(self: Any, whole: Tensor, dim: int = 0, sizes: list[int] | None = None) -> Tensor:
    """Return this rank's part of the sum over all ranks."""
    total = whole.clone()
    distributed.all_reduce(total, group=self.device_group)
    sizes = sizes or [total.shape[0] // self.world_size] * self.world_size
    first = sum(sizes[: self.rank_in_group])
    return total[first : first + sizes[self.rank_in_group]].contiguous()


def with_local_experts(apply: Callable[..., Any]) -> Callable[..., Any]:
    """Return `apply` where experts of other ranks have weight 0; it would read behind its own ones."""
    parameters = inspect.signature(apply)

    def wrapped(*args: Any, **options: Any) -> Any:
        given = parameters.bind(*args, **options).arguments
        if given["expert_map"] is not None:
            local = given["expert_map"][given["topk_ids"].long()]
            given["topk_weights"] = given["topk_weights"] * (local >= 0)
            given["topk_ids"] = local.clamp(min=0).to(given["topk_ids"].dtype)
        return apply(**given)

    return wrapped


CpuCommunicator.all_gatherv, CpuCommunicator.reduce_scatterv = all_gatherv, reduce_scatterv
CPUUnquantizedExperts.apply = with_local_experts(CPUUnquantizedExperts.apply)
