"""Check that hosts have the software that the plan needs, in the same versions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from shlex import quote

from flagscale_deploy.checks.conditions import (
    engine_hosts,
    engines,
    failed_if,
    from_planner,
    no_facts,
    no_ray,
    no_spec,
    on,
    one_host,
    passed,
    ray_hosts,
    spanning,
    summary,
    unplanned,
)
from flagscale_deploy.checks.types import Check, Context, Finding
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.plan.software import odd_ones, pinned
from flagscale_deploy.plan.versions import CHECK as VLLM_VERSION
from flagscale_deploy.plan.versions import needed_vllm

TOKENS_SINCE = (2, 52)
"""The first Ray with token authentication, which our clusters always use (release notes of Ray 2.52)."""

Version = Callable[[Facts], str | None]


def environment(context: Context) -> Iterator[Finding]:
    """Check that the environment of a host (`venv`, `before_start`) starts."""
    for name, facts in context.facts.items():
        if facts.environment_error:
            yield Finding(
                name, f"its environment does not start: {facts.environment_error}", "", "correct venv or before_start"
            )


def ray_installed(context: Context) -> Iterator[Finding]:
    """Check that every node of the Ray cluster has Ray."""
    yield from from_planner(context, "ray-installed")


def vllm_installed(context: Context) -> Iterator[Finding]:
    """Check that every host with a rank of an engine has vLLM."""
    yield from from_planner(context, "vllm-installed")


def vllm_version(context: Context) -> Iterator[Finding]:
    """Check that the vLLM of every host is new enough for the flags of the ranks on it."""
    yield from from_planner(context, VLLM_VERSION)
    needs = [need for instance in engines(context) if (need := needed_vllm(instance.ranks)) is not None]
    if needs:
        yield passed(", ".join(f"{version} or later" for version in dict.fromkeys(need.version for need in needs)))


def router_installed(context: Context) -> Iterator[Finding]:
    """Check that every host with a router has vllm-router."""
    yield from from_planner(context, "router-installed")


def gate_installed(context: Context) -> Iterator[Finding]:
    """Check that the host of a gate has aiohttp and a Python that runs it."""
    yield from from_planner(context, "gate-installed")


def nixl_installed(context: Context) -> Iterator[Finding]:
    """Check that every host of prefill and decode pools has NIXL, where they use it."""
    yield from from_planner(context, "nixl-installed")


def ray_version(context: Context) -> Iterator[Finding]:
    """Check that Ray supports token authentication."""
    names = ray_hosts(context) if context.plan else tuple(context.facts)
    versions = {name: version for name in names if (version := context.facts[name].ray)}
    _, usual = odd_ones({name: version for name, version in versions.items() if not _is_older(version)})
    which = pinned("ray[default]", usual) if usual else "-U 'ray[default]'"
    for name, version in versions.items():
        if _is_older(version):
            yield Finding(
                name,
                f"Ray {version} has no token authentication",
                "2.52 or later",
                f"on {name}: pip install {which}",
                failed_if(context.spec is not None),
            )
    if versions:
        yield passed(summary(versions.values()))


def same_python(context: Context) -> Iterator[Finding]:
    """Check that all Ray nodes have the same Python, with patch level: Ray refuses a node with another."""
    yield from _same_in_ray(context, "same-python", "Python", lambda facts: facts.python)


def same_ray(context: Context) -> Iterator[Finding]:
    """Check that all Ray nodes have the same Ray, with patch level: it refuses a node with another."""
    old = {name for name, facts in context.facts.items() if _is_older(facts.ray or "")}
    for finding in _same_in_ray(context, "same-ray", "Ray", lambda facts: facts.ray):
        if finding.host not in old or len(old) == len(context.facts):  # ray-version reports those
            yield finding


def same_vllm(context: Context) -> Iterator[Finding]:
    """Check that all hosts have the same vLLM: ranks of an instance exchange its internal objects."""
    yield from _same(context, "vLLM", lambda facts: facts.vllm, "vllm")


def same_torch(context: Context) -> Iterator[Finding]:
    """Check that all hosts have the same PyTorch, which includes NCCL."""
    yield from _same(context, "PyTorch", lambda facts: facts.torch, "torch")


def same_driver(context: Context) -> Iterator[Finding]:
    """Check that all hosts have the same NVIDIA driver."""
    versions = _versions(context, lambda facts: facts.driver_version)
    odd, usual = odd_ones(versions)
    for name, version in odd.items():
        remedy = on(context, name, "apt-get", "install", f"nvidia-driver-{usual.partition('.')[0]}", root=True)
        yield Finding(name, f"driver {version}", f"{usual}, as on the others", remedy, "warning")
    if versions:
        yield passed(summary(versions.values()))


def _same_in_ray(context: Context, check: str, what: str, version: Version) -> Iterator[Finding]:
    """Yield the planner's findings about Ray's nodes; without a plan, warnings about hosts that differ."""
    names = ray_hosts(context) if context.plan else tuple(context.facts)
    versions = {name: number for name in names if (number := version(context.facts[name]))}
    if context.spec is not None:
        yield from from_planner(context, check)
    else:
        odd, usual = odd_ones(versions)
        for name, number in odd.items():
            yield Finding(
                name, f"{what} {number}", f"{usual}, as on the others", f"install {quote(usual)} there", "warning"
            )
    if versions:
        yield passed(summary(versions.values()))


def _same(context: Context, what: str, version: Version, package: str) -> Iterator[Finding]:
    """Yield hosts that differ; failed if an instance has ranks on such a host and on another."""
    versions = _versions(context, version)
    odd, usual = odd_ones(versions)
    for name, number in odd.items():
        shared = any(
            name in instance.possible_hosts
            and any(versions.get(host, number) != number for host in instance.possible_hosts)
            for instance in spanning(context)
        )
        yield Finding(
            name,
            f"{what} {number}",
            f"{usual}, as on the others",
            f"on {name}, in its environment: pip install {pinned(package, usual)}",
            failed_if(shared),
        )
    if versions:
        yield passed(summary(versions.values()))


def _versions(context: Context, version: Version) -> dict[str, str]:
    """Return the versions on the hosts that engines are planned on, or on all without such hosts."""
    names = engine_hosts(context) or context.facts
    return {name: number for name in context.facts if name in names and (number := version(context.facts[name]))}


def _started(context: Context, names: Iterable[str]) -> list[str]:
    """Return the hosts whose environment starts: the software in others is unknown."""
    facts = context.facts
    return [name for name in names if name in facts and not facts[name].environment_error]


def _is_older(version: str) -> bool:
    parts = tuple(int(part) for part in re.findall(r"\d{1,6}", version)[:2])
    return len(parts) == 2 and parts < TOKENS_SINCE


def _in_ray(context: Context) -> str:
    return one_host(context) or (no_ray(context) if context.spec else "")


def _any_ray(context: Context) -> str:
    return no_facts(context) or (no_ray(context) if context.spec else "")


def _routers(context: Context) -> str:
    if why := no_spec(context):
        return why
    return "the plan has no router" if context.plan and not context.plan.routers else ""


def _gate(context: Context) -> str:
    return no_spec(context) or ("" if context.spec and context.spec.gate else "deploy.gate is not set")


def _pools(context: Context) -> str:
    if (why := no_spec(context)) or context.spec is None:
        return why
    return "" if any(model.pools for model in context.spec.models) else "no model has prefill and decode apart"


SOFTWARE = (
    Check("environment", "software", environment, "an environment that starts", no_facts),
    Check(
        "ray-installed",
        "software",
        ray_installed,
        "Ray on every node",
        unplanned("ray-installed", no_ray),
        looks_at=lambda context: _started(context, ray_hosts(context)),
    ),
    Check(
        "vllm-installed",
        "software",
        vllm_installed,
        "vLLM on every host with a rank",
        unplanned("vllm-installed"),
        looks_at=lambda context: _started(context, engine_hosts(context)),
    ),
    Check(
        VLLM_VERSION,
        "software",
        vllm_version,
        "a vLLM that knows the flags",
        unplanned(VLLM_VERSION),
        blind="any vLLM will do",
    ),
    Check(
        "router-installed",
        "software",
        router_installed,
        "vllm-router where it is planned",
        unplanned("router-installed", _routers),
        looks_at=lambda context: _started(
            context, [router.driver for router in context.plan.routers] if context.plan else ()
        ),
    ),
    Check(
        "gate-installed",
        "software",
        gate_installed,
        "aiohttp and Python 3.10 where a gate is planned",
        unplanned("gate-installed", _gate),
        looks_at=lambda context: _started(
            context, [context.plan.gate.driver] if context.plan and context.plan.gate else ()
        ),
    ),
    Check(
        "nixl-installed",
        "software",
        nixl_installed,
        "NIXL on every host of a pool",
        unplanned("nixl-installed", _pools),
        looks_at=lambda context: _started(
            context, [host for host, instances in engine_hosts(context).items() if any(one.pool for one in instances)]
        ),
    ),
    Check("ray-version", "software", ray_version, "2.52 or later", _any_ray, skippable=False, blind="no Ray was found"),
    Check("same-python", "software", same_python, "one version", _in_ray, blind="no environment starts"),
    Check("same-ray", "software", same_ray, "one version", _in_ray, blind="no Ray was found"),
    Check("same-vllm", "software", same_vllm, "one version", one_host, blind="no vLLM was found"),
    Check("same-torch", "software", same_torch, "one version", one_host, blind="no PyTorch was found"),
    Check("same-driver", "software", same_driver, "one version", one_host, "warning", blind="no driver was found"),
)
