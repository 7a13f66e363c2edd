"""A worker for Ray's compiled graphs, which ask each worker for its device; vLLM imports it on Ray's nodes."""

from __future__ import annotations

import torch
from vllm.v1.worker.cpu_worker import CPUWorker


class Worker(CPUWorker):  # type: ignore[misc]  # as in platform.py
    """vLLM's CPU worker, which names its device."""

    def init_device(self) -> None:
        """Initialize as ever."""
        super().init_device()
        self.device = torch.device("cpu")
