"""How ranks exchange tensors, in every release; imported by vLLM in every worker."""

from __future__ import annotations

from typing import Any

import torch
from vllm.distributed.device_communicators import cpu_communicator


class RayCpuCommunicator(cpu_communicator.CpuCommunicator):  # type: ignore[misc]  # as in platform.py
    """vLLM's CPU communicator, always over the network (Gloo): hosts share no memory."""

    def _all_group_ranks_share_shm_group_name(self) -> bool:
        return False


def _over_the_network(_: Any) -> Any:
    return torch.distributed


if not hasattr(cpu_communicator.CpuCommunicator, "_all_group_ranks_share_shm_group_name"):  # before 0.18
    cpu_communicator._CPUSHMDistributed = _over_the_network
