"""The environment variables that scripts export on a host."""

from __future__ import annotations

from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.model import Network

IMPATIENT = {"RES_OPTIONS": "timeout:1 attempts:1"}
"""Where the resolver hangs: Ray asks for metadata.google.internal, and its start takes 23 s (2.60; 7 s with this)."""


def host_environment(spec: ServeSpec, host: Host, network: Network) -> dict[str, str]:
    """What every process on a host gets: the data network, then the user's own, the host's last.

    vLLM never copies VLLM_HOST_IP to its workers, and a worker's own environment wins in the V2 Ray executor (vLLM
    0.32): so it has to stand there before `ray start`. GPU visibility is not in here: it belongs to a process, not to
    a host.
    """
    computed = {"VLLM_HOST_IP": network.node_ip}
    if network.interface is not None:
        computed |= {"GLOO_SOCKET_IFNAME": network.interface, "NCCL_SOCKET_IFNAME": network.interface}
    if network.resolver_hangs:
        computed |= IMPATIENT
    merged = computed | dict(spec.env) | dict(host.env)
    merged.pop("CUDA_VISIBLE_DEVICES", None)
    return merged


def visible(gpus: tuple[int, ...] | None) -> dict[str, str]:
    """CUDA_VISIBLE_DEVICES for some GPUs; nothing for all of them."""
    return {} if gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}
