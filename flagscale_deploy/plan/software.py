"""Whether the hosts have what the plan needs, and the same of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from flagscale_deploy.errors import Fault
from flagscale_deploy.observation import Facts

_ACTIVATE = "set venv or before_start for the host, so that the environment with it is active"


def software_faults(
    facts: Mapping[str, Facts], ray_hosts: Iterable[str], drivers: Iterable[str], routers: Iterable[str]
) -> list[Fault]:
    """Environments that don't start, Ray or vLLM missing where they run, versions that differ within a Ray cluster.

    Ray refuses a node whose Ray or Python differs in the patch level (`RuntimeError: Version mismatch`).
    """
    broken = [
        Fault(name, f"its environment does not start: {each.environment_error}", "correct venv or before_start")
        for name, each in facts.items()
        if each.environment_error
    ]
    if broken:
        return broken
    ray_hosts = [name for name in ray_hosts if name in facts]
    drivers = [name for name in dict.fromkeys(drivers) if name in facts]
    faults = [Fault(name, "Ray is not installed in its environment", f"pip install 'ray[default]', or {_ACTIVATE}")
              for name in ray_hosts if facts[name].ray is None]  # fmt: skip
    faults += [Fault(name, "vLLM is not installed in its environment", f"pip install vllm, or {_ACTIVATE}")
               for name in drivers if facts[name].vllm is None]  # fmt: skip
    without = f"pip install vllm-router, or {_ACTIVATE}; deploy.router: none does without it"
    faults += [Fault(name, "vllm-router is not installed in its environment", without)
               for name in dict.fromkeys(routers) if name in facts and facts[name].router is None]  # fmt: skip
    faults += _differing("Ray", ray_hosts, lambda name: facts[name].ray)
    faults += _differing("Python", ray_hosts, lambda name: facts[name].python)
    return faults


def _differing(what: str, hosts: Iterable[str], version: Callable[[str], str | None]) -> list[Fault]:
    versions = {name: found for name in hosts if (found := version(name)) is not None}
    if len(set(versions.values())) < 2:
        return []
    listed = ", ".join(f"{name} {found}" for name, found in versions.items())
    return [
        Fault(f"{what} version", f"must be the same on all Ray nodes; found: {listed}", "install the same everywhere")
    ]
