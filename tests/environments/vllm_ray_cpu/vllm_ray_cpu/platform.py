"""The platform class; imported by vLLM once the plugin has been chosen."""

from __future__ import annotations

from vllm.platforms.cpu import CpuPlatform


class RayCpuPlatform(CpuPlatform):  # type: ignore[misc]  # vLLM is not installed where types are checked
    """vLLM's CPU platform, whose workers occupy one `GPU` of the Ray node they run on.

    `GPU` and not `CPU`, since then the number that `ray start --num-gpus` was given decides where ranks go, as it does
    on real GPU hosts: that is what the product plans with.
    """

    ray_device_key = "GPU"

    @classmethod
    def get_device_communicator_cls(cls) -> str:
        return "vllm_ray_cpu.communicator.RayCpuCommunicator"
