"""What vLLM itself says of the command lines it will be started with."""

from __future__ import annotations

from collections.abc import Iterator

from flagscale_deploy.checks.conditions import engines, model_of, no_plan, passed
from flagscale_deploy.checks.model import Check, Finding, Scene
from flagscale_deploy.support.suggest import nearest


def engine_arguments(scene: Scene) -> Iterator[Finding]:
    """Whether the vLLM on each driver's host knows the flags and takes their values: its own parser is asked there."""
    for instance in engines(scene):
        parsed = (scene.parsed or {}).get(instance.name)
        if parsed is None:
            continue
        model = model_of(scene, instance)
        where = f"{model.where}: " if model and model.where else ""
        for flag in parsed.unknown:
            near = nearest(flag, parsed.known)
            yield Finding(
                instance.driver,
                f"{where}--{flag} is no flag of the vLLM there",
                "flags that it knows",
                f"did you mean --{near}?" if near else "leave it out, or install the vLLM that has it",
            )
        if parsed.broken:
            yield Finding(
                instance.driver,
                f"vLLM can't be imported: {parsed.broken}",
                "a vLLM that starts",
                "correct venv or before_start, or install vLLM anew there",
            )
        elif parsed.error and not parsed.unknown:
            yield Finding(instance.driver, f"{where}{parsed.error}", "values that vLLM takes", "correct the value")
    hosts = dict.fromkeys(each.driver for each in engines(scene) if each.name in (scene.parsed or {}))
    if hosts:
        yield passed(f"read by vLLM on {', '.join(hosts)}")


def _unread(scene: Scene) -> str:
    if (why := no_plan(scene)) or scene.parsed:
        return why
    silent = dict.fromkeys(each.driver for each in engines(scene) if each.driver in scene.silent)
    return f"{', '.join(silent)} did not answer" if silent else "vLLM was not asked"


ENGINE = (Check("engine-arguments", "engine", engine_arguments, "flags that vLLM knows", _unread),)
