"""Check that the all-to-all backend by which experts exchange tokens is installed.

Source: `vllm/distributed/device_communicators/all2all.py` and `ParallelConfig` of vLLM 0.15.1, 0.16.0, 0.17.0 and 0.32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from flagscale_deploy.checks.conditions import engines, model_of, no_plan, passed, summary
from flagscale_deploy.checks.model_memory import switched_on
from flagscale_deploy.checks.model_numbers import is_dense
from flagscale_deploy.checks.types import Check, Context, Finding
from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.plan.model import InstancePlan
from flagscale_deploy.plan.rank import flag_of
from flagscale_deploy.plan.versions import is_older

FLAG, VARIABLE = "all2all-backend", "VLLM_ALL2ALL_BACKEND"
WITHOUT_VARIABLE, WITHOUT_PPLX = "0.16.0", "0.17.0"
"""The first vLLM that does not read the variable, and the first that takes its own backend in place of pplx."""
_DEEP_EP = "DeepEP (tools/ep_kernels of vLLM)"
_FLASHINFER = "flashinfer-python"
PACKAGES: Final[Mapping[str, tuple[str, str]]] = {
    "deepep_high_throughput": ("deep_ep", _DEEP_EP),
    "deepep_low_latency": ("deep_ep", _DEEP_EP),
    "deepep_v2": ("deep_ep", _DEEP_EP),
    "flashinfer_all2allv": ("flashinfer", _FLASHINFER),
    "flashinfer_nvlink_one_sided": ("flashinfer", _FLASHINFER),
    "flashinfer_nvlink_two_sided": ("flashinfer", _FLASHINFER),
    "moonep": ("moonep", "MoonEP"),
    "mori_high_throughput": ("mori", "MoRI of ROCm"),
    "mori_low_latency": ("mori", "MoRI of ROCm"),
    "nixl_ep": ("nixl_ep", "nixl"),
    "pplx": ("pplx_kernels", "pplx-kernels (tools/ep_kernels of vLLM)"),
}
"""The package that a backend needs, by the name that Python imports, and what to install. Others are vLLM's own."""


def all2all_installed(context: Context) -> Iterator[Finding]:
    """Check that every host of data-parallel ranks has the package of the all-to-all backend that they name.

    Ranks of a model without experts exchange nothing.
    """
    used = []
    for instance in engines(context):
        model = model_of(context, instance)
        if model is None or not _exchanges(model):
            continue
        for host in instance.hosts:
            facts = context.facts.get(host)
            if facts is not None and not facts.environment_error and not _has_no_experts(model, facts):
                backend, ignored = _backend(instance, host, facts)
                if ignored:
                    yield _ignored(host, backend, facts)
                elif backend in PACKAGES and not (backend == "pplx" and _is_since(facts, WITHOUT_PPLX)):
                    yield from _missing(host, backend, facts)
                    used.append(backend)
    if used:
        yield passed(summary(used))


def _missing(host: str, backend: str, facts: Facts) -> Iterator[Finding]:
    module, software = PACKAGES[backend]
    if module not in facts.all2all:
        yield Finding(
            host,
            f"{FLAG} is {backend}, but its environment has no package {module}",
            f"{module} where ranks use it",
            f"install {software} on every host of the instance, or remove {FLAG}",
        )


def _ignored(host: str, backend: str, facts: Facts) -> Finding:
    return Finding(
        host,
        f"{VARIABLE} is {backend}: vLLM {facts.vllm} does not read it",
        f"{FLAG} among the model's flags",
        f"remove {VARIABLE} from envs and env; set {FLAG}: {backend} for the model",
        "warning",
    )


def _backend(instance: InstancePlan, host: str, facts: Facts) -> tuple[str, bool]:
    """Return the backend that the rank on a host names, "" if none, and whether vLLM ignores it."""
    rank = next((rank for rank in instance.ranks if rank.host == host), instance.ranks[0])
    backend = flag_of(rank.argv, FLAG)
    if backend is not None:
        return backend, False
    return rank.env.get(VARIABLE, ""), VARIABLE in rank.env and _is_since(facts, WITHOUT_VARIABLE)


def _exchanges(model: ModelSpec) -> bool:
    """Return whether ranks with a share of the experts each have other tokens: only then is a backend used."""
    context_parallel = str(model.engine_args.get("prefill-context-parallel-size", 1)) != "1"
    return model.parallel("data") > 1 or (context_parallel and switched_on(model, "enable-expert-parallel"))


def _has_no_experts(model: ModelSpec, facts: Facts) -> bool:
    return any(is_dense(files.config) for files in facts.models if files.path == model.model)


def _is_since(facts: Facts, version: str) -> bool:
    return not is_older(facts.vllm, version)


ALL2ALL = (
    Check(
        "all2all-installed",
        "software",
        all2all_installed,
        "the package of the backend",
        no_plan,
        blind="no ranks exchange tokens of experts by a backend that is a package",
    ),
)
