"""The platform class, for every release; imported by vLLM once the plugin has been chosen."""

from __future__ import annotations

from typing import Any

from vllm.platforms.cpu import CpuPlatform


class RayCpuPlatform(CpuPlatform):  # type: ignore[misc]  # vLLM is not installed where types are checked
    """vLLM's CPU platform, whose workers occupy one `GPU` of the Ray node they run on."""

    ray_device_key = "GPU"

    @classmethod
    def check_and_update_config(cls, vllm_config: Any) -> None:
        """Let Ray be the executor: until 0.18, the CPU platform takes mp in its place."""
        parallel = vllm_config.parallel_config
        backend = parallel.distributed_executor_backend
        if backend == "ray" and parallel.worker_cls == "auto":
            parallel.worker_cls = "vllm_ray_cpu.worker.Worker"
        super().check_and_update_config(vllm_config)
        if backend == "ray":
            parallel.distributed_executor_backend = backend

    @classmethod
    def set_device(cls, device: Any) -> None:
        """Do nothing: there is one CPU."""

    @classmethod
    def get_device_communicator_cls(cls) -> str:
        return "vllm_ray_cpu.communicator.RayCpuCommunicator"
