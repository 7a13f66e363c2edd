"""What of a recipe's commands is left out because the plan supplies it, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FLAGS: Final[Mapping[str, str]] = {
    "nnodes": "the plan counts the hosts of an instance",
    "node-rank": "the plan numbers the hosts of an instance",
    "headless": "the plan knows which host answers requests",
    "master-addr": "the address of the instance's first host, from the inventory or the probe",
    "master-port": "the plan keeps a free port for each instance",
    "data-parallel-address": "the address of the instance's first host, from the inventory or the probe",
    "data-parallel-rpc-port": "the plan keeps a free port for each instance",
    "data-parallel-start-rank": "follows from the GPUs of the hosts before this one",
    "data-parallel-size-local": "follows from the GPUs of each host",
    "port": "the plan chooses it: set deploy.port for another one",
    "distributed-executor-backend": "deploy.executor says it",
}
"""Flags that name a node, its place among the others, or a port."""

VARIABLES: Final[Mapping[str, str]] = {
    "GLOO_SOCKET_IFNAME": "the interface of the data network, from the inventory or the probe",
    "NCCL_SOCKET_IFNAME": "the interface of the data network, from the inventory or the probe",
    "VLLM_HOST_IP": "the address of each host, from the inventory or the probe",
    "CUDA_VISIBLE_DEVICES": "the plan chooses the GPUs",
    "VLLM_NIXL_SIDE_CHANNEL_HOST": "the address of each host, from the inventory or the probe",
    "VLLM_NIXL_SIDE_CHANNEL_PORT": "the plan keeps a free port for each instance",
}
"""Variables that name a node, its GPUs, or a port."""
