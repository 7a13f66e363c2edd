"""Find hosts that lack the software that the plan needs, or have different versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from shlex import quote

from flagscale_deploy.errors import Fault
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.plan.versions import is_older

_ACTIVATE = "set venv or before_start for the host, so that the environment with it is active"


def software_faults(
    facts: Mapping[str, Facts],
    ray_hosts: Iterable[str],
    engine_hosts: Iterable[str],
    routers: Iterable[str],
    nixl_hosts: Iterable[str] = (),
    gate_hosts: Iterable[str] = (),
) -> list[Fault]:
    """Return faults for environments that don't start, missing software, and versions that differ in a Ray cluster.

    vLLM is needed on every host of an instance: Ray's workers load it too. Ray refuses a node whose Ray or Python
    differs in the patch level (`RuntimeError: Version mismatch`); `ray_hosts` begin with the head.
    """
    faults = [
        Fault(name, f"its environment does not start: {host.environment_error}", "correct venv or before_start",
              "environment")
        for name, host in facts.items()
        if host.environment_error
    ]  # fmt: skip
    sound = {name: host for name, host in facts.items() if not host.environment_error}
    ray_hosts = [name for name in ray_hosts if name in sound]
    faults += [Fault(name, "Ray is not installed in its environment", f"pip install 'ray[default]', or {_ACTIVATE}",
                     "ray-installed")
               for name in ray_hosts if sound[name].ray is None]  # fmt: skip
    faults += [Fault(name, "vLLM is not installed in its environment", f"pip install vllm, or {_ACTIVATE}",
                     "vllm-installed")
               for name in dict.fromkeys(engine_hosts) if name in sound and sound[name].vllm is None]  # fmt: skip
    without = f"pip install vllm-router, or {_ACTIVATE}; or use no router: deploy.router: none"
    faults += [Fault(name, "vllm-router is not installed in its environment", without, "router-installed")
               for name in dict.fromkeys(routers) if name in sound and sound[name].router is None]  # fmt: skip
    faults += [Fault(name, "NIXL, by which pools transfer the KV cache, is not installed in its environment",
                     f"pip install nixl, or {_ACTIVATE}", "nixl-installed")
               for name in dict.fromkeys(nixl_hosts) if name in sound and sound[name].nixl is None]  # fmt: skip
    without = f"pip install aiohttp, or {_ACTIVATE}; or use no gate: deploy.gate: false"
    faults += [Fault(name, f"{lacking} in its environment, as the gate needs it", without, "gate-installed")
               for name in gate_hosts if name in sound and (lacking := _lacks_for_gate(sound[name]))]  # fmt: skip
    faults += _differing("Ray", ray_hosts, lambda name: sound[name].ray,
                         lambda usual: f"pip install {pinned('ray[default]', usual)}", "same-ray")  # fmt: skip
    faults += _differing("Python", ray_hosts, lambda name: sound[name].python,
                         lambda usual: f"create its environment with Python {quote(usual)}", "same-python")  # fmt: skip
    return faults


def _lacks_for_gate(host: Facts) -> str:
    """Return what a gate cannot do without on a host; "" where all is there."""
    if host.aiohttp is None:
        return "there is no aiohttp"
    return "there is no Python 3.10 or later" if is_older(host.python, "3.10") else ""


def pinned(package: str, version: str) -> str:
    """Return `package==version` as a word of a shell. Remedies are pasted there; a host may say anything of another."""
    return quote(f"{package}=={version}")


def odd_ones(versions: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Return the hosts that differ from the usual version, and that version: the most common, else the first host's."""
    ranked = Counter(versions.values()).most_common()
    if len(ranked) < 2:
        return {}, ranked[0][0] if ranked else ""
    first = next(iter(versions.values()))
    usual = ranked[0][0] if ranked[0][1] > ranked[1][1] else first
    return {name: version for name, version in versions.items() if version != usual}, usual


def _differing(
    what: str, hosts: Iterable[str], version: Callable[[str], str | None], remedy: Callable[[str], str], check: str
) -> list[Fault]:
    versions = {name: number for name in hosts if (number := version(name)) is not None}
    odd, usual = odd_ones(versions)
    most = [name for name, number in versions.items() if number == usual]
    others = most[0] if len(most) == 1 else f"{most[0]} and {len(most) - 1} more" if most else ""
    return [
        Fault(name, f"{what} {number}, but {usual} on {others}: it must be the same on all Ray nodes",
              f"on {name}: {remedy(usual)}", check)
        for name, number in odd.items()
    ]  # fmt: skip
