"""How ranks exchange tensors; imported by vLLM in every worker."""

from __future__ import annotations

from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator


class RayCpuCommunicator(CpuCommunicator):  # type: ignore[misc]  # vLLM is not installed where types are checked
    """vLLM's CPU communicator, always over the network (Gloo).

    vLLM takes equal shared-memory group names to mean one machine. On Ray nodes the names are equal and the memory is
    not shared: the ranks would wait for each other for ever.
    """

    def _all_group_ranks_share_shm_group_name(self) -> bool:
        return False
