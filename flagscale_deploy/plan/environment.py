"""Compute the environment variables that scripts export on a host."""

from __future__ import annotations

from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.model import Network

SHORT_DNS_TIMEOUT = {"RES_OPTIONS": "timeout:1 attempts:1"}
"""For hosts whose DNS does not answer: Ray resolves metadata.google.internal at its start, which takes 23 s (2.60), and
7 s with these options."""


def host_environment(spec: ServeSpec, host: Host, network: Network) -> dict[str, str]:
    """Return the variables of every process on a host: those of the data network, the user's, and the host's last.

    vLLM never copies VLLM_HOST_IP to its workers, and a worker's own environment wins in the V2 Ray executor (vLLM
    0.32): it has to be set before `ray start`. GPU visibility is not included: it differs between processes of a host.
    """
    computed = {"VLLM_HOST_IP": network.node_ip}
    if network.interface is not None:
        computed |= {"GLOO_SOCKET_IFNAME": network.interface, "NCCL_SOCKET_IFNAME": network.interface}
    if network.resolver_hangs:
        computed |= SHORT_DNS_TIMEOUT
    merged = computed | dict(spec.env) | dict(host.env)
    merged.pop("CUDA_VISIBLE_DEVICES", None)
    return merged


def visible(gpus: tuple[int, ...] | None) -> dict[str, str]:
    """Return CUDA_VISIBLE_DEVICES for some GPUs; nothing for all of them."""
    return {} if gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}
